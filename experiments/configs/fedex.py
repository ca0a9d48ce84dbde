"""FedEx-LoRA: the residual of the mean factors into the base.

relief run fedex:smoke --workdir=runs/fedex

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('fedex')
