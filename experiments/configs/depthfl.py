"""DepthFL: as many layers from the input side as the deadline allows.

python -m experiments.main --config=experiments/configs/depthfl.py:smoke \
    --workdir=runs/depthfl

Variants: smoke, paper, best, tight, full, inclusive.
"""

from experiments.configs import common


def get_config(arg=None):
  """The config.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('depthfl', arg, inclusive=inclusive)


def inclusive(c):
  """InclusiveFL: a device trains the exit behind its last layer alone."""
  c.depthfl.exits = 'last'
