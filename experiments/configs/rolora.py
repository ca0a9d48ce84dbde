"""RoLoRA: the factors take turns.

relief run rolora:smoke --workdir=runs/rolora

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('rolora')
