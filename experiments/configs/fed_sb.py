"""Fed-SB: a small matrix between fixed factors.

relief run fed_sb:smoke --workdir=runs/fed_sb

Variants: smoke, paper, best, tight, full, transformer.
"""

from relief_jax.config import presets

get_config = presets.adapted('fed_sb')
