"""Harmony: a federation per modality, then classifiers per combination.

relief run harmony:smoke --workdir=runs/harmony

Variants: smoke, paper, best, lora, tight, full, one.
"""

from relief_jax.config import presets


def lora(c):
  """Freezes the base, with adapters in the encoders: they become personal."""
  presets.lora(c)
  c.model.adapters = True


def one(c):
  """Makes one cluster per combination of sensors, of however many devices."""
  c.harmony.members = 10**6


get_config = presets.getter('harmony', lora=lora, one=one)
