"""SplitFed: FedAvg's model at the price of split training.

relief run splitfed:smoke --workdir=runs/splitfed

Variants: smoke, paper, best, lora, tight, full, fixed, deepest.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config of SplitFed; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('splitfed', arg, fixed=fixed, deepest=deepest)
  c.model.groups = 'layer'
  return c


def fixed(c):
  """Leaves one layer of every encoder on every device."""
  c.splitfed.rule = 'fixed'


def deepest(c):
  """Leaves on a device as many layers as its memory holds."""
  c.splitfed.rule = 'deepest'
