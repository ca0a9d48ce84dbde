"""Every block averaged over its owners, without budgets.

python -m experiments.main --config=experiments/configs/cohort_mean.py:smoke \
    --workdir=runs/cohort_mean

Variants: smoke, paper, best, lora, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of the cohort mean, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('cohort_mean', arg)
