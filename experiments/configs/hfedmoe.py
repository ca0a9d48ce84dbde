"""HFedMoE: the experts that matter most to a device and fit its budget.

relief run hfedmoe:smoke --workdir=runs/hfedmoe

Variants: smoke, paper, best, tight, full, transformer, routed, usage, random.
"""

from relief_jax.config import presets


def routed(c):
  """Leaves on a device only the experts that it trains."""
  c.hfedmoe.form = 'routed'


def usage(c):
  """Takes the experts that a device uses most."""
  c.hfedmoe.rule = 'usage'


def random(c):
  """Takes experts at random, of those that some window is routed to."""
  c.hfedmoe.rule = 'random'


get_config = presets.mixed('hfedmoe', routed=routed, usage=usage, random=random)
