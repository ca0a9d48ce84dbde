"""Who waits for whom: synchronous, by tiers and asynchronous, against time.

relief compare asynchronous --workdir=runs/asynchronous --data_dir=DIR

MHEALTH, 24 devices of four tiers, all at work; five seeds. Speeds differ within
a tier (`fleet_spread`): devices that are equally fast arrive together, so that
a buffer is filled by one kind of device, and F1 goes up and down with who was
in the last one. Labels differ in when the server acts. A round is a step of
the server, so each has as many as take about the same simulated time as
FedAvg's 30:

    fedavg           waits for all
    fedavg_deadline  waits .7 medians of the devices' times, in which each takes
                     as many local steps as fit
    relief           waits for all, who train what fits into a deadline
    fedat_style      four tiers, each waits for itself
    fedbuff          acts on every six updates
    fedasync         acts on every update
    relief_async     trains as relief, acts on every six updates

F1 by tier is in each run's metrics.jsonl, `f1_by_tier` and `f1_own_by_tier`.
The variant `dsads` takes DSADS; `folds` tests on every person once, two at a
time, in place of five seeds on the same two. Also the variants of `presets`.

Rates are chosen on a person of the training set of fold 0, who is in no test
set there, in two thirds of the time:

relief sweep asynchronous:folds,tune --workdir=runs/tune --data_dir=DIR \
    --sweep.hparams.client_lr=.02,.05,.1
relief select runs/tune --by=f1_validation --out=values.json
relief compare asynchronous:folds --workdir=runs/asynchronous --data_dir=DIR \
    --config.values_file=values.json
"""

from relief_jax import config as config_lib
from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

SKIP = {'fill': 'skip'}
BUFFER = {'buffer': 6}
METHODS = {
  'fedavg': {'method': 'fedavg', **SKIP},
  'fedavg_deadline': {
    'method': 'fedavg',
    **SKIP,
    'online': {'pace': {'wait': 0.7, 'late': 'partial'}},
  },
  'relief': comparison.MID,
  'fedat_style': {'method': 'fedat_style', **SKIP},
  'fedbuff': {'method': 'fedbuff', **SKIP, 'fedbuff': BUFFER},
  'fedasync': {'method': 'fedasync', **SKIP},
  'relief_async': {
    **comparison.MID,
    'method': 'relief_async',
    'relief_async': BUFFER,
  },
}
# Steps of the server in the time of ten rounds of FedAvg, measured where a tier
# is equally fast, and how many of them lie between two evaluations.
STEPS = {
  'fedavg': (10, 1),
  'fedavg_deadline': (18, 2),
  'relief': (16, 2),
  'fedat_style': (48, 4),
  'fedbuff': (46, 2),
  'fedasync': (300, 20),
  'relief_async': (72, 6),
}
TENS = 3


def smoke(c):
  """Shrinks to the small world, with the labels' rounds as they are there."""
  presets.smoke(c)
  c.data.channels = ''
  c.data.folds = min(c.data.folds, 2)


def dsads(c):
  """Takes DSADS, whose sensors are in their usual order."""
  c.dataset, c.data.channels = 'dsads', ''
  c.data.width = c.data.stride = 125


def folds(c):
  """Tests on two people at a time, so that everybody is tested on once."""
  c.data.split, c.data.folds = 'folds', 5 if c.dataset == 'mhealth' else 4


def tune(c):
  """Tests on a person of the training set as well, to choose values by."""
  c.data.validation_subjects = (8,)


def labels(tens):
  """Maps each label to keys of a run, with its rounds.

  Args:
    tens: of rounds of FedAvg; 0 for the rounds of all.
  """
  found = {}
  for label, keys in METHODS.items():
    steps, every = STEPS[label]
    rounds = {
      'rounds': tens * steps,
      'rounds_per_call': every,
      'eval_every': every,
    }
    found[label] = {**keys, **(rounds if tens else {})}
  return found


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.dataset, c.data.channels = 'mhealth', worlds.MHEALTH['mag']
  c.data.width, c.data.stride = 128, 64
  c.clients, c.hparams.client_lr = 24, 0.1
  c.target_f1 = 0.5
  c.fleet_spread = 0.3
  c.devices = 1  # of each worker process
  presets.apply(c, arg, smoke=smoke, dsads=dsads, folds=folds, tune=tune)
  names = (arg or '').split(',')
  tens = TENS
  if 'tune' in names:
    tens = 2
  if 'smoke' in names:
    tens = 0
  if 'folds' in names:
    seeds = (0,) if 'tune' in names else ()
    return comparison.build(c, labels(tens), seeds, vary='data.fold')
  seeds = (0, 1) if 'smoke' in names else (0, 1, 2, 3, 4)
  return comparison.build(c, labels(tens), seeds)
