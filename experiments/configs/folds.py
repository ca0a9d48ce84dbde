"""Leave-subjects-out: every person is tested on once, then the mean over folds.

relief compare folds --workdir=runs/folds --data_dir=DIR

relief compare folds:central --workdir=runs/central --data_dir=DIR

A run per label and fold, DIR/LABEL/fold_K; the table is the mean over folds,
differences are paired by fold. Eight folds of DSADS are one person each;
`--config.data.folds=4` divides the persons among four,
`--config.seeds='(0,1)'` runs some folds only, `--config.seed=1` is another
seed for all of them, and `--config.repeats='(0,1)'` runs every fold with both
seeds, DIR/LABEL/fold_K_seed_S: they are averaged before folds are.

The variant `central` trains one model on the pooled windows of all training
persons, every sensor on, an epoch a round: what the data allow, to be held
against published models. Also the variants of `presets`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

METHODS = {
  'fedavg': {'method': 'fedavg'},
  'cohort_mean': {'method': 'cohort_mean'},
  'relief': comparison.MID,
}
CENTRAL = {'centralized': {'method': 'centralized'}}


def central(c):
  """Puts all data in one place, with every sensor, for an epoch a round."""
  c.clients, c.fleet, c.local_epochs = 1, 'uniform', 1
  c.rounds, c.rounds_per_call, c.eval_every = 10, 2, 2


def smoke(c):
  """Shrinks to two folds of the small world."""
  presets.smoke(c)
  c.data.folds = 2


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.data.split, c.data.folds = 'folds', 8
  presets.apply(c, arg, smoke=smoke, central=central)
  alone = 'central' in (arg or '').split(',')
  methods = CENTRAL if alone else METHODS
  return comparison.build(c, methods, (), next(iter(methods)), 'data.fold')
