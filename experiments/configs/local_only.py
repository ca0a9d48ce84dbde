"""Every device trains alone and keeps its own model.

python -m experiments.main --config=experiments/configs/local_only.py:smoke \
    --workdir=runs/local_only

Variants: smoke, paper, best, lora, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of local training, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('local_only', arg)
