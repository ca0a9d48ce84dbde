"""QQR, our reconstruction; variants as in common.py.

python -m experiments.main --config=experiments/configs/qqr_style.py \
    --workdir=DIR
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of QQR style, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('qqr_style', arg)
