"""HeteroFL: the first units of every layer, as many as the deadline allows.

python -m experiments.main --config=experiments/configs/heterofl.py:smoke \
    --workdir=runs/heterofl

Variants: smoke, paper, best, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of HeteroFL, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('heterofl', arg)
