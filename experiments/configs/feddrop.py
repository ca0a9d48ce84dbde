"""FedDrop: a random sub-network per device and round, sized to its budget.

relief run feddrop:smoke --workdir=runs/feddrop

Variants: smoke, paper, best, tight, full, exact, all.
"""

from relief_jax.config import presets


def exact(c):
  """Draws the same number of units from every layer: Federated Dropout."""
  c.feddrop.exact = True


def everybody(c):
  """Averages over all devices, which the scaling of activations unbiases."""
  c.feddrop.denominator = 'all'


get_config = presets.getter('feddrop', exact=exact, all=everybody)
