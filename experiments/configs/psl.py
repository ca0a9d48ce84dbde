"""Parallel split learning: one server model, device parts that stay.

relief run psl:smoke --workdir=runs/psl

Variants: smoke, paper, best, lora, tight, full, transformer, merged, labels.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method(
    'psl', arg, transformer=transformer, merged=merged, labels=labels
  )
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def merged(c):
  """Averages the devices' parts after every round."""
  c.psl.merge = True


def labels(c):
  """Leaves labels, and the head, on the devices."""
  c.psl.labels, c.psl.layers = 'stay', 1
