"""FedRolex: HeteroFL with units that take turns.

python -m experiments.main --config=experiments/configs/fedrolex.py:smoke \
    --workdir=runs/fedrolex

Variants: smoke, paper, best, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FedRolex, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fedrolex', arg)
