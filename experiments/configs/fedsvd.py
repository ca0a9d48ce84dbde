"""FedSVD: the second factor trains, an SVD turns both.

relief run fedsvd:smoke --workdir=runs/fedsvd

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('fedsvd')
