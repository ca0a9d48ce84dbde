"""Experts: FedAvg with and without them, and devices that train two of eight.

relief compare experts --workdir=runs/experts --data_dir=DIR --workers=2
relief compare experts:transformer --workdir=runs/experts_blocks --data_dir=DIR
relief compare experts:text --workdir=runs/experts_text --data_dir=DIR
relief compare experts:skew --workdir=runs/experts_skew --data_dir=DIR
relief compare experts:limited --workdir=runs/experts_limited --data_dir=DIR

Eight people of DSADS, two of them held out; 24 devices, 60 rounds. `dense` is
FedAvg of the model without a mixture, `whole` of the model with all experts
everywhere; the others train two experts of a device, chosen by importance, by
use or at random, the last two with nothing else on the device or with aligned
experts. No deadline but of `limited`.

Variants: `transformer` has the experts in the last block of a transformer, not
behind the fusion of a cnn; `text` the same of Shakespeare's roles, the next
character, and `words` of made-up ones. `skew` deals windows to devices by class
and asks what alignment is worth: labels are LEVEL/NAME, where a level is a
Dirichlet draw of concentration 0.1, `strong`, or 0.5, `mild`, or `iid`.
`limited` gives every device its memory and all one deadline; who cannot hold
what a method must train sits out. Also `smoke`.
"""

import pathlib

from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

MOST = 2
# As good as without a skew.
IID = 10_000.0
LEVELS = {'strong': 0.1, 'mild': 0.5, 'iid': IID}
# With 64 units and 8 and 16 filters, batch 32, all experts take 2.9 to 3.2 MB,
# the blocks that every device trains 1.3: the lower tiers hold no whole model.
LIMITED = worlds.bounded(2.0, 2.4, 6, 8)
_HERE = pathlib.Path(__file__).as_posix()
TEXTS = ('shakespeare', 'synthetic_text')


def labels(place: dict) -> dict[str, dict]:
  """Maps each label to the keys of its run.

  Args:
    place: keys of `model` that put experts there.
  """
  mixed = {'model': place, 'fill': 'skip'}
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


def by_level(each: dict[str, dict]) -> dict[str, dict]:
  """Maps LEVEL/NAME to the keys of its run, of what alignment is about."""
  names = ('whole', 'importance', 'aligned')
  return {
    f'{level}/{name}': {**each[name], 'partition': 'dirichlet', 'alpha': alpha}
    for level, alpha in LEVELS.items()
    for name in names
  }


def transformer(c) -> None:
  """Takes a transformer, whose last block has the experts."""
  c.backbone = 'transformer'


def text(c) -> None:
  """Takes the roles of Shakespeare's plays, and the next character."""
  transformer(c)
  c.dataset, c.partition, c.data.split = 'shakespeare', 'subject', 'official'
  c.data.own_share, c.data.width = 0.0, 64
  c.model.transformer.preset = 'char'
  c.target_f1, c.target = 0.0, 10.0


def words(c) -> None:
  """Takes made-up words, whose text is there without a file."""
  text(c)
  c.dataset, c.synthetic.subjects = 'synthetic_text', 24


def limited(c) -> None:
  """Bounds the memory of devices, and the time of a round."""
  c.fleet, c.over_budget = f'{_HERE}:LIMITED', 'sit_out'
  c.deadline = '1.75*tight'
  c.model.hidden, c.model.filters = 64, (8, 16)


def smoke(c) -> None:
  """Shrinks to the small world, or to a few words, in seconds."""
  letters = c.dataset in TEXTS
  presets.smoke(c)
  c.model.transformer.blocks = 2
  if letters:
    c.dataset, c.data.width, c.synthetic.subjects = 'synthetic_text', 16, 12


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.deadline = 'none'
  presets.apply(
    c,
    arg,
    transformer=transformer,
    text=text,
    words=words,
    skew=lambda c: None,
    limited=limited,
    smoke=smoke,
  )
  blocks = c.backbone == 'transformer'
  place = {'experts': {'blocks': 1}} if blocks else {'fusion': 'experts'}
  each = labels(place)
  if 'skew' in (arg or '').split(','):
    each = by_level(each)
  return comparison.build(c, each, (0, 1, 2), 'whole')
