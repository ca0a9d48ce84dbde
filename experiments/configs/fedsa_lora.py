"""FedSA-LoRA: the first factor is shared, the rest stays.

relief run fedsa_lora:smoke --workdir=runs/fedsa_lora

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('fedsa_lora')
