"""HASFL style: batch and split of every device, for time to a target.

relief run hasfl_style:smoke --workdir=runs/hasfl_style

Variants: smoke, paper, best, lora, tight, full, transformer, fixed, random.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method(
    'hasfl_style', arg, transformer=transformer, fixed=fixed, random=random
  )
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def fixed(c):
  """Chooses neither batch nor split."""
  c.hasfl_style.rule = c.hasfl_style.batches = 'fixed'


def random(c):
  """Draws both."""
  c.hasfl_style.rule = c.hasfl_style.batches = 'random'
