"""MMO-FL with PMM; variants as in common.py.

python -m experiments.main --config=experiments/configs/pmm.py --workdir=DIR
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of MMO-FL with PMM, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('pmm', arg)
