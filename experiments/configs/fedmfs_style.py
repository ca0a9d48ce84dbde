"""FedMFS style: the modalities of most merit that the deadline allows.

python -m experiments.main --config=experiments/configs/fedmfs_style.py:smoke \
    --workdir=runs/fedmfs_style

Variants: smoke, paper, best, lora, tight, full, impact, rotate.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FedMFS style, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fedmfs_style', arg, impact=impact, rotate=rotate)


def impact(c):
  """Scores modalities by Shapley value alone."""
  c.fedmfs_style.shapley = 1.0
  c.fedmfs_style.size = c.fedmfs_style.recency = 0.0


def rotate(c):
  """Scores by recency alone, which takes turns: nothing is measured for it."""
  c.fedmfs_style.shapley = c.fedmfs_style.size = 0.0
  c.fedmfs_style.recency = 1.0
