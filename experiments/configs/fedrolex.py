"""FedRolex: HeteroFL with units that take turns.

relief run fedrolex:smoke --workdir=runs/fedrolex

Variants: smoke, paper, best, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('fedrolex')
