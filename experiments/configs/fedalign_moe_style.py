"""FedAlign-MoE style: gates by consistency, experts by what they say.

relief run fedalign_moe_style:smoke --workdir=runs/fedalign_moe_style

Variants: smoke, paper, best, tight, full, transformer, routed.
"""

from relief_jax.config import presets


def routed(c):
  """Leaves on a device only the experts that it trains."""
  c.fedalign_moe_style.form = 'routed'


get_config = presets.mixed('fedalign_moe_style', routed=routed)
