"""GAPSL style: parallel split learning with aligned gradients.

relief run gapsl_style:smoke --workdir=runs/gapsl_style

Variants: smoke, paper, best, lora, tight, full, transformer, strong.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('gapsl_style', arg, transformer=transformer, strong=strong)
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def strong(c):
  """Corrects with strength 1."""
  c.gapsl_style.eta = 1.0
