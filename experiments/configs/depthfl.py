"""DepthFL: as many layers from the input side as the deadline allows.

relief run depthfl:smoke --workdir=runs/depthfl

Variants: smoke, paper, best, tight, full, inclusive.
"""

from relief_jax.config import presets


def inclusive(c):
  """Trains the exit behind a device's last layer alone, as InclusiveFL does."""
  c.depthfl.exits = 'last'


get_config = presets.getter('depthfl', inclusive=inclusive)
