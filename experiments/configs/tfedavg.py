"""T-FedAvg: ternary weights on the device and on both links.

relief run tfedavg:smoke --workdir=runs/tfedavg

Variants: smoke, paper, best, lora, tight, full, released.
"""

from relief_jax.config import presets


def released(c):
  """Takes the threshold of the released code."""
  c.tfedavg.mode = 'released'


get_config = presets.getter('tfedavg', released=released)
