"""All data in one place: an upper bound, not a federation.

relief run centralized:smoke --workdir=runs/centralized

Variants: smoke, paper, best, lora, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('centralized')
