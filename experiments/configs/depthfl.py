"""DepthFL: as many layers from the input side as the deadline allows.

python -m experiments.main --config=experiments/configs/depthfl.py:smoke \
    --workdir=runs/depthfl

Variants: smoke, paper, best, tight, full, inclusive.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of DepthFL, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('depthfl', arg, inclusive=inclusive)


def inclusive(c):
  """Trains the exit behind a device's last layer alone, as InclusiveFL does."""
  c.depthfl.exits = 'last'
