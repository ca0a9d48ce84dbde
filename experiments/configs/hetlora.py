"""HetLoRA: ranks per device, zero-padded means.

relief run hetlora:smoke --workdir=runs/hetlora

Variants: smoke, paper, best, tight, full, transformer, fixed.
"""

from relief_jax.config import presets


def fixed(c):
  """Gives every device the same rank."""
  c.hetlora.rule = 'fixed'


get_config = presets.adapted('hetlora', fixed=fixed)
