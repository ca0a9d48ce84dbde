"""The large study: backbones x presets x deadlines x methods on DSADS.

python -m experiments.compare --config=experiments/configs/study.py \
    --workdir=runs/study --data_dir=DIR

python -m experiments.compare --config=experiments/configs/study.py:subjects12 \
    --workdir=runs/study12 --data_dir=DIR

24 clients, 60 rounds, seeds 0 to 2, evaluation every five rounds. Methods
without a budget do not depend on the deadline and run once. The variant
`subjects12` holds out persons 1 and 2 and keeps the main four methods. Also
`smoke`, `cnn` and `lora` (one backbone), `synthetic`.
"""

from experiments.configs import common, compare
from relief_jax import config as config_lib

RULES = ('random', 'round_robin', 'magnitude', 'aged', 'knapsack', 'static')
PLAIN = {
  'fedavg': {'method': 'fedavg'},
  'fedavg_skip': {'method': 'fedavg', 'fill': 'skip'},
  'fedprox': {'method': 'fedprox'},
  'cohort_mean': {'method': 'cohort_mean'},
  'local_only': {'method': 'local_only'},
  'centralized': {'method': 'centralized'},
}
BUDGETED = {
  'relief': {'method': 'relief', 'relief': {'rule': 'greedy'}},
  **{
    f'relief_{rule}': {'method': 'relief', 'relief': {'rule': rule}}
    for rule in RULES
  },
}
MAIN = ('fedavg', 'fedavg_skip', 'cohort_mean', 'relief')
PRESETS = {
  'paper': {'modality_dropout': 0.0, 'fusion_norm': False},
  'best': {'modality_dropout': 0.3, 'fusion_norm': True},
}


def labels(backbones=('cnn', 'lora'), chosen=None):
  """Every label of the study, `backbone/preset/method[_deadline]`."""
  found = {}
  for backbone in backbones:
    for preset, options in PRESETS.items():
      shared = {'backbone': backbone, **options}
      at = f'{backbone}/{preset}/'
      for name, keys in PLAIN.items():
        if not chosen or name in chosen:
          found[at + name] = {**shared, **keys}
      for name, keys in BUDGETED.items():
        for deadline in ('tight', 'full'):
          if not chosen or name in chosen:
            found[f'{at}{name}_{deadline}'] = {
              **shared,
              **keys,
              'deadline': deadline,
            }
  return found


def get_config(arg=None):
  """The config.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.dataset, c.clients, c.rounds = 'dsads', 24, 60
  c.rounds_per_call = c.eval_every = 5
  c.devices = 1  # of each worker process
  chosen, backbones, seeds = None, ('cnn', 'lora'), (0, 1, 2)
  names = [name for name in (arg or '').split(',') if name]
  if 'subjects12' in names:
    chosen = MAIN
  if 'cnn' in names or 'lora' in names:
    backbones = tuple(b for b in backbones if b in names)
  if 'smoke' in names:
    seeds = (0,)
  common.apply(
    c,
    arg,
    subjects12=lambda c: c.data.update(test_subjects=(1, 2)),
    cnn=lambda c: None,
    lora=lambda c: None,
    synthetic=lambda c: c.update(dataset='synthetic'),
  )
  return compare.comparison(c, labels(backbones, chosen), seeds)
