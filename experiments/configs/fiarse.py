"""FIARSE: the largest weights, as many as the deadline allows.

python -m experiments.main --config=experiments/configs/fiarse.py:smoke \
    --workdir=runs/fiarse

Variants: smoke, paper, best, tight, full, dense, layer.
"""

from experiments.configs import common


def get_config(arg=None):
  """The config.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fiarse', arg, dense=dense, layer=layer)


def dense(c):
  """Charges the FLOPs of the whole model: masks without structure save none."""
  c.fiarse.flops = 'dense'


def layer(c):
  """Every layer keeps its share, and not the model as a whole."""
  c.fiarse.threshold = 'layer'
