"""FedIT: the factors of adapters averaged apart.

relief run fedit:smoke --workdir=runs/fedit

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('fedit')
