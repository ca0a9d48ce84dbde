"""Every device trains alone and keeps its own model.

relief run local_only:smoke --workdir=runs/local_only

Variants: smoke, paper, best, lora, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('local_only')
