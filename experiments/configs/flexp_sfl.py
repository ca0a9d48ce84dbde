"""FlexP-SFL: personal ends around a shared middle; labels stay.

relief run flexp_sfl:smoke --workdir=runs/flexp_sfl

Variants: smoke, paper, best, lora, tight, full, transformer, plain.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('flexp_sfl', arg, transformer=transformer, plain=plain)
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def plain(c):
  """Aligns nothing."""
  c.flexp_sfl.align = 0.0
