"""FIARSE: the largest weights, as many as the deadline allows.

relief run fiarse:smoke --workdir=runs/fiarse

Variants: smoke, paper, best, tight, full, dense, layer.
"""

from relief_jax.config import presets


def dense(c):
  """Charges the FLOPs of the whole model: masks without structure save none."""
  c.fiarse.flops = 'dense'


def layer(c):
  """Keeps the share of every layer, and not of the model as a whole."""
  c.fiarse.threshold = 'layer'


get_config = presets.getter('fiarse', dense=dense, layer=layer)
