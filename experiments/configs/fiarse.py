"""FIARSE: the largest weights, as many as the deadline allows.

python -m experiments.main --config=experiments/configs/fiarse.py:smoke \
    --workdir=runs/fiarse

Variants: smoke, paper, best, tight, full, dense, layer.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FIARSE, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fiarse', arg, dense=dense, layer=layer)


def dense(c):
  """Charges the FLOPs of the whole model: masks without structure save none."""
  c.fiarse.flops = 'dense'


def layer(c):
  """Keeps the share of every layer, and not of the model as a whole."""
  c.fiarse.threshold = 'layer'
