"""FFA-LoRA: only the second factor trains.

relief run ffa_lora:smoke --workdir=runs/ffa_lora

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('ffa_lora')
