"""MMO-FL with PMM; variants as in presets.py.

relief run pmm --workdir=DIR
"""

from relief_jax.config import presets

get_config = presets.getter('pmm')
