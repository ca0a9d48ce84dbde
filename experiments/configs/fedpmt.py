"""FedPMT: trains as many levels from the output side as the deadline allows.

relief run fedpmt:smoke --workdir=runs/fedpmt

Variants: smoke, paper, best, lora, tight, full, prefix, cycle.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config of FedPMT; every layer is a level.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('fedpmt', arg, prefix=prefix, cycle=cycle)
  c.model.groups = 'layer'
  return c


def prefix(c):
  """Trains from the input side instead: the ablation of the claim."""
  c.fedpmt.side = 'input'


def cycle(c):
  """Gives the devices depths 1..L in turn, whatever the deadline."""
  c.fedpmt.depth = 'cycle'
