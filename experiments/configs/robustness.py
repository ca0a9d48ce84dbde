"""Missing sensors x noisy sensors x methods in a world of streams, on DSADS.

relief compare robustness --workdir=runs/robustness --data_dir=DIR
relief robustness runs/robustness

16 devices with all three sensors, each with a buffer of 100 windows of which
ten are new every round. A sensor delivers nothing in a round with the missing
rate (.3, .5 or .7), independently; a share of all (device, sensor) pairs (none,
.2 or .4) measures with noise of three deviations. 25 rounds, seeds 0 to 2.

`fm` sees every sensor in every round, the others do not: `pm` skips what is
missing, `zf` puts physical zeros there, `fedavg` the mean of the training
windows. Variants: `smoke`, `synthetic`, `four_tiers`, where most devices never
had all sensors, and `folds`, which tests on every person once, two at a time,
in place of three seeds on the same two.
"""

from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

MISSING = (0.3, 0.5, 0.7)
NOISY = (0.0, 0.2, 0.4)
METHODS = {
  'fedavg': {'method': 'fedavg'},
  'pm': {'method': 'fedavg', 'fill': 'skip'},
  'zf': {'method': 'fedavg', 'fill_value': 'zero'},
  'cohort_mean': {'method': 'cohort_mean'},
  'pmm': {'method': 'pmm'},
  'qqr_style': {'method': 'qqr_style'},
  'relief': comparison.MID,
  'relief_confidence': {**comparison.MID, 'relief': {'confidence': True}},
}


def labels():
  """Maps each label to keys of a run."""
  found = {
    f'{worlds.unreliable_name(0, noisy)}/fm': {
      'method': 'fedavg',
      'fill': 'skip',
      **worlds.unreliable(0.0, noisy),
    }
    for noisy in NOISY
  }
  for missing in MISSING:
    for noisy in NOISY:
      for name, keys in METHODS.items():
        label = f'{worlds.unreliable_name(missing, noisy)}/{name}'
        found[label] = {**keys, **worlds.unreliable(missing, noisy)}
  return found


def folds(c):
  """Tests on two people at a time, so that everybody is tested on once."""
  c.data.split, c.data.folds = 'folds', 4


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.fleet, c.clients, c.rounds, c.eval_every = 'uniform', 16, 25, 5
  c.online.stream.update(buffer=100, arrive=10)
  presets.apply(
    c,
    arg,
    synthetic=lambda c: c.update(dataset='synthetic'),
    four_tiers=lambda c: c.update(fleet='four_tiers'),
    folds=folds,
  )
  names = (arg or '').split(',')
  if 'smoke' in names:
    c.online.stream.update(buffer=16, arrive=4)
  if 'folds' in names:
    return comparison.build(c, labels(), (), vary='data.fold')
  return comparison.build(c, labels(), (0,) if 'smoke' in names else (0, 1, 2))
