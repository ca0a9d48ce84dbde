"""HO-SFL: devices estimate by probes what the server back-propagates.

relief run ho_sfl:smoke --workdir=runs/ho_sfl

Variants: smoke, paper, best, lora, tight, full, transformer, small, jvp.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method(
    'ho_sfl', arg, transformer=transformer, small=small, jvp=jvp
  )
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def small(c):
  """Leaves one layer on the devices: probes of few numbers go further."""
  c.ho_sfl.layers = 1


def jvp(c):
  """Takes exact directional derivatives."""
  c.ho_sfl.probe = 'jvp'
