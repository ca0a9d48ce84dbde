"""QQR, our reconstruction; variants as in presets.py.

relief run qqr_style --workdir=DIR
"""

from relief_jax.config import presets

get_config = presets.getter('qqr_style')
