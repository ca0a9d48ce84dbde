"""FedEL: elastic training in a window that slides over the layers.

relief run fedel:smoke --workdir=runs/fedel

Variants: smoke, paper, best, tight, full.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config of FedEL; early exits cut the model by layer.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('fedel', arg)
  c.model.groups = 'layer'
  return c
