"""Who waits for whom: synchronous, by tiers and asynchronous, against time.

relief compare asynchronous --workdir=runs/asynchronous --data_dir=DIR

MHEALTH, 24 devices of four tiers, all at work; five seeds. Labels differ in
when the server acts. A round is a step of the server, so each has as many as
take about the same simulated time as FedAvg's 30:

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
"""

from experiments.configs.paper import RARE
from relief_jax import config as config_lib
from relief_jax.campaign import comparison
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
# Steps of the server in the time of ten rounds of FedAvg, measured.
STEPS = {
  'fedavg': 10,
  'fedavg_deadline': 18,
  'relief': 16,
  'fedat_style': 48,
  'fedbuff': 46,
  'fedasync': 300,
  'relief_async': 72,
}
TENS = 3


def smoke(c):
  """Shrinks to the small world, with the labels' rounds as they are there."""
  presets.smoke(c)
  c.data.channels = ''


def dsads(c):
  """Takes DSADS, whose sensors are in their usual order."""
  c.dataset, c.data.channels = 'dsads', ''
  c.data.width = c.data.stride = 125


def folds(c):
  """Tests on two people at a time, so that everybody is tested on once."""
  c.data.split, c.data.folds = 'folds', 5 if c.dataset == 'mhealth' else 4


def labels(tens):
  """Maps each label to keys of a run, with its rounds.

  Args:
    tens: of rounds of FedAvg; 0 for the rounds of all.
  """
  found = {}
  for label, keys in METHODS.items():
    each = STEPS[label] // 2
    rounds = {
      'rounds': tens * STEPS[label],
      'rounds_per_call': each,
      'eval_every': each,
    }
    found[label] = {**keys, **(rounds if tens else {})}
  return found


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.dataset, c.data.channels = 'mhealth', RARE['mhealth']['mag']
  c.data.width, c.data.stride = 128, 64
  c.clients, c.hparams.client_lr = 24, 0.1
  c.target_f1 = 0.5
  c.devices = 1  # of each worker process
  presets.apply(c, arg, smoke=smoke, dsads=dsads, folds=folds)
  names = (arg or '').split(',')
  small = 'smoke' in names
  if 'folds' in names:
    found = labels(0 if small else TENS)
    return comparison.build(c, found, (), vary='data.fold')
  seeds = (0, 1) if small else (0, 1, 2, 3, 4)
  return comparison.build(c, labels(0 if small else TENS), seeds)
