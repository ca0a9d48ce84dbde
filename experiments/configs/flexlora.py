"""FlexLoRA: ranks per device, the mean product cut by SVD.

relief run flexlora:smoke --workdir=runs/flexlora

Variants: smoke, paper, best, tight, full, transformer, fixed.
"""

from relief_jax.config import presets


def fixed(c):
  """Gives every device the same rank."""
  c.flexlora.rule = 'fixed'


get_config = presets.adapted('flexlora', fixed=fixed)
