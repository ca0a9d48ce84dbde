"""FedMFS style: the modalities of most merit that the deadline allows.

relief run fedmfs_style:smoke --workdir=runs/fedmfs_style

Variants: smoke, paper, best, lora, tight, full, impact, rotate.
"""

from relief_jax.config import presets


def impact(c):
  """Scores modalities by Shapley value alone."""
  c.fedmfs_style.shapley = 1.0
  c.fedmfs_style.size = c.fedmfs_style.recency = 0.0


def rotate(c):
  """Scores by recency alone, which takes turns: nothing is measured for it."""
  c.fedmfs_style.shapley = c.fedmfs_style.size = 0.0
  c.fedmfs_style.recency = 1.0


get_config = presets.getter('fedmfs_style', impact=impact, rotate=rotate)
