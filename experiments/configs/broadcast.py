"""A model sent once for all, against one device after another, under losses.

relief compare broadcast --workdir=runs/broadcast --data_dir=DIR

FedAvg on four unequal tiers of devices, whose blocks are sent by the link of
docs/updates.md; of the symbols of a round none, a fifth or two fifths are lost,
and a device listens to as many as 1.3 models have.
`rateless` sends the most divergent blocks first, `by_number` does not;
`unicast` gives every device the same by itself, `same_air` as much as all
devices together are sent by `rateless`: 1.3 models shared among them. Variants:
`smoke`, and `mhealth` (8 devices, 15 rounds, two folds of persons).
"""

from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

LOST = (0.0, 0.2, 0.4)
BUDGET = 1.3


def labels(devices: int) -> dict[str, dict]:
  """Maps each label to the keys of its run.

  Args:
    devices: of the fleet.
  """
  links: dict[str, dict] = {
    'rateless': {'kind': 'rateless'},
    'by_number': {'kind': 'rateless', 'protect': 'none'},
    'unicast': {'kind': 'unicast'},
    'same_air': {'kind': 'unicast', 'budget': BUDGET / devices},
  }
  return {
    f'lost{100 * lost:.0f}/{name}': {
      'broadcast': {'budget': BUDGET, 'erasure': lost, **keys}
    }
    for lost in LOST
    for name, keys in links.items()
  }


def mhealth(c) -> None:
  """Takes the smaller data set, as `fusion` does, for fewer rounds."""
  worlds.halves(c)
  c.rounds = 15


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.method, c.fill, c.deadline = 'fedavg', 'skip', 'none'
  presets.apply(c, arg, mhealth=mhealth)
  variants, every = (arg or '').split(','), labels(c.clients)
  if 'mhealth' in variants:
    return comparison.build(c, every, (), 'rateless', 'data.fold')
  seeds = (0,) if 'smoke' in variants else (0, 1, 2)
  return comparison.build(c, every, seeds, 'rateless')
