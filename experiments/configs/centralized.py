"""All data in one place: an upper bound, not a federation.

python -m experiments.main --config=experiments/configs/centralized.py:smoke \
    --workdir=runs/centralized

Variants: smoke, paper, best, lora, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of pooled SGD, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('centralized', arg)
