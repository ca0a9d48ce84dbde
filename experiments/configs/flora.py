"""FLoRA: ranks per device, products merged into the base.

relief run flora:smoke --workdir=runs/flora

Variants: smoke, paper, best, tight, full, transformer, fixed.
"""

from relief_jax.config import presets


def fixed(c):
  """Gives every device the same rank."""
  c.flora.rule = 'fixed'


get_config = presets.adapted('flora', fixed=fixed)
