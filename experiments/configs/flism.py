"""FLISM: two views contrasted, weights by entropy, and a teacher.

relief run flism:smoke --workdir=runs/flism

Variants: smoke, paper, best, lora, tight, full, none, contrast, weights.
"""

from relief_jax.config import presets


def lora(c):
  """Freezes the base as elsewhere; frozen encoders have nothing to contrast."""
  presets.lora(c)
  c.flism.contrast = False


def none(c):
  """Switches off all terms: FedAvg."""
  c.flism.contrast, c.flism.entropy, c.flism.kd = False, False, 0.0


def contrast(c):
  """Contrasts the two views, without the other terms."""
  none(c)
  c.flism.contrast = True


def weights(c):
  """Contrasts the two views and uses the weights, without a teacher."""
  contrast(c)
  c.flism.entropy = True


get_config = presets.getter(
  'flism', lora=lora, none=none, contrast=contrast, weights=weights
)
