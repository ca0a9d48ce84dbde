"""Experts: FedAvg with and without them, and devices that train two of eight.

relief compare experts --workdir=runs/experts --data_dir=DIR --workers=2

Eight people of DSADS, two of them held out; 24 devices, 60 rounds. `dense` is
FedAvg of the model without a mixture, `whole` of the model with all experts
everywhere; the others train two experts of a device, chosen by importance, by
use or at random, the last two with nothing else on the device or with aligned
experts. No deadline. Variants: `smoke`, `skewed` (classes by Dirichlet, 0.1).
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

MOST = 2


def labels() -> dict[str, dict]:
  """Maps each label to the keys of its run."""
  mixed = {'model': {'fusion': 'experts'}, 'fill': 'skip'}
  found: dict[str, dict] = {
    'dense': {'method': 'fedavg', 'fill': 'skip'},
    'whole': {'method': 'fedavg', **mixed},
  }
  for label, keys in {
    'importance': {},
    'usage': {'rule': 'usage'},
    'random': {'rule': 'random'},
    'routed': {'form': 'routed'},
  }.items():
    own = {'most': MOST, **keys}
    found[label] = {'method': 'hfedmoe', 'hfedmoe': own, **mixed}
  found['aligned'] = {
    'method': 'fedalign_moe_style',
    'fedalign_moe_style': {'most': MOST},
    **mixed,
  }
  return found


def skewed(c) -> None:
  """Gives every device a few classes."""
  c.partition, c.alpha = 'dirichlet', 0.1


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.deadline = 'none'
  presets.apply(c, arg, skewed=skewed)
  return comparison.build(c, labels(), (0, 1, 2), 'whole')
