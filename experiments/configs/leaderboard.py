"""Every method on persons that no device has seen: folds of DSADS or MHEALTH.

relief compare leaderboard --workdir=runs/leaderboard --data_dir=DIR \
    --workers=2

24 devices of four unequal tiers for 100 rounds. DSADS's eight persons form
four folds of two, each run with two seeds, which are averaged before the
folds are; `:mhealth` has five folds of two persons and one seed. Labels are
BACKBONE/NAME:

- NAME is a method as configured by default. A method that can choose what to
  train has one deadline, at which a mid-tier device cannot train all that it
  owns; the others have no budget (docs/budgets.md says which) and may be late.
  All skip absent sensors but `fedavg`, what is built on it (`fedprox`,
  `tfedavg`, the codecs) and `flism`: these fill them in, which is what RELIEF's
  paper accuses FedAvg of.
- `NAME_input`: the same for methods whose publications know no sensors, and run
  the whole model on whatever is there.
- `fedavg_skip`: FedAvg that skips, too. `fedprox_pull`: FedProx with a pull
  strong enough to matter; at its usual 0.01 it is FedAvg.
- `fedavg_CODEC`: FedAvg with coded updates.
- `centralized`: a bound for devices with the fleet's sensors;
  `centralized_complete`: for devices that own all.
- `lora/NAME_adapters`: adapters in the frozen encoders too, without which a
  budget has nothing to choose from.

All cut the model by layer, and its encoders have three. Learning rates are one
per backbone, unless a file says better ones, chosen on a validation person of
fold 0 that is in no test set there:

relief sweep leaderboard:tune --workdir=runs/tune --data_dir=DIR --workers=2 \
    --sweep.hparams.client_lr=.02,.05,.1
relief select runs/tune --by=f1_validation --out=values.json
relief compare leaderboard --workdir=runs/leaderboard --data_dir=DIR \
    --workers=2 --config.values_file=values.json

Variants: `dsads` (the default), `mhealth`, `tune`, `cnn`, `lora` (one
backbone), `synthetic`, `smoke`.
"""

from relief_jax import algorithms
from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

SEEDS = (0, 1)
# FedAvg with coded updates, beside the methods of the registry.
CODECS = ('int4', 'ternary', 'top_k', 'sign')
# Of adapters or experts only: lora.py, experts.py.
ADAPTED = tuple(
  name
  for name, factory in sorted(algorithms.ALGORITHMS.items())
  if algorithms.facts(factory).adapters or algorithms.facts(factory).experts
)
# Another place for the same steps, and a bill of another kind: docs/split.md.
SPLIT = tuple(
  name
  for name, factory in sorted(algorithms.ALGORITHMS.items())
  if algorithms.facts(factory).splits
)
# Made for sensors that fail from round to round: robustness.py.
ONLINE = ('pmm', 'qqr_style')
# Whose round is another one, against time: asynchronous.py.
ARRIVALS = tuple(
  name
  for name, factory in sorted(algorithms.ALGORITHMS.items())
  if algorithms.facts(factory).arrivals
)
# Budgeted methods whose publications know no modalities.
WHOLE = tuple(
  name
  for name, factory in sorted(algorithms.ALGORITHMS.items())
  if (facts := algorithms.facts(factory)).budgeted
  and not (facts.skips or facts.adapters or facts.experts)
)
# The least of .01, .1 and 1 that changes anything: on the validation person of
# DSADS, 30 rounds, F1 was 58.8, 58.6 and 56.0 %, so that none of them helps.
PULL = 1.0
FROZEN = {
  'fedavg': {'method': 'fedavg'},
  'fedavg_skip': {'method': 'fedavg', 'fill': 'skip'},
  'cohort_mean': {'method': 'cohort_mean'},
  'relief': {'method': 'relief'},
}
# The test persons of fold 0 are 1 and 5; MHEALTH's 1 and 6.
VALIDATION = (8,)


def cnn() -> dict[str, dict]:
  """Maps each label to keys of a run in which all parameters train."""
  others = {*ONLINE, *ADAPTED, *SPLIT, *ARRIVALS}
  names = sorted(set(algorithms.ALGORITHMS) - others)
  found: dict[str, dict] = {name: {'method': name} for name in names}
  for name in WHOLE:
    found[f'{name}_input'] = {'method': name, 'fill': 'input'}
  found['fedavg_skip'] = {'method': 'fedavg', 'fill': 'skip'}
  found['fedprox_pull'] = {'method': 'fedprox', 'hparams': {'prox': PULL}}
  found['centralized_complete'] = {
    'method': 'centralized',
    'centralized': {'sensors': 'complete'},
  }
  for codec in CODECS:
    found[f'fedavg_{codec}'] = {
      'method': 'fedavg',
      'uplink_codec': {'name': codec},
    }
  return dict(sorted(found.items()))


def lora() -> dict[str, dict]:
  """Maps each label to keys of a run with a frozen base."""
  inside = {'model': {'adapters': True}}
  return FROZEN | {
    f'{name}_adapters': {**keys, **inside} for name, keys in FROZEN.items()
  }


LABELS = {'cnn': cnn, 'lora': lora}


def labels(backbone: str) -> dict[str, dict]:
  """Lists every label of a backbone's group, with the keys that all share.

  Args:
    backbone: `cnn` or `lora`.
  """
  found = {}
  for label, keys in LABELS[backbone]().items():
    values = {'client_lr': presets.RATES[backbone], **keys.get('hparams', {})}
    found[f'{backbone}/{label}'] = {
      'backbone': backbone,
      **keys,
      'hparams': values,
    }
  return found


def mhealth(c) -> None:
  """Takes five folds of two persons, without channels that hold little."""
  c.dataset, c.data.folds = 'mhealth', 5
  c.data.channels = worlds.MHEALTH['mag']
  c.data.width, c.data.stride = 128, 64


def tune(c) -> None:
  """Shortens runs, tested on a person of the training set, to choose values."""
  c.data.validation_subjects = VALIDATION
  c.rounds, c.eval_every, c.rounds_per_call = 40, 20, 10


def smoke(c) -> None:
  """Shrinks to two folds of the small world."""
  presets.smoke(c)
  c.data.folds, c.synthetic.subjects = 2, 6
  c.model.filters = (4, 4, 8)
  if c.data.validation_subjects:
    c.data.validation_subjects = (6,)


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.rounds, c.rounds_per_call, c.eval_every = 100, 2, 2
  c.data.split, c.data.folds = 'folds', 4
  c.model.filters, c.model.groups = (16, 32, 64), 'layer'
  c.deadline = comparison.MID['deadline']
  names = [name for name in (arg or '').split(',') if name]
  none = dict.fromkeys(('dsads', *LABELS), lambda c: None)
  presets.apply(
    c,
    arg,
    **none,
    mhealth=mhealth,
    tune=tune,
    smoke=smoke,
    synthetic=lambda c: c.update(dataset='synthetic'),
  )
  methods = {}
  for backbone in [b for b in LABELS if b in names] or LABELS:
    methods |= labels(backbone)
  seeds: tuple[int, ...] = ()
  repeats = SEEDS if 'mhealth' not in names and 'smoke' not in names else ()
  if 'tune' in names:
    seeds, repeats = (0,), ()
  return comparison.build(c, methods, seeds, vary='data.fold', repeats=repeats)
