"""HeteroFL: the first units of every layer, as many as the deadline allows.

relief run heterofl:smoke --workdir=runs/heterofl

Variants: smoke, paper, best, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('heterofl')
