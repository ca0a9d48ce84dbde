"""Several methods and seeds side by side, 240 unequal devices.

relief compare compare --workdir=runs/compare [--data_dir=DIR] [--workers=2]

Variants: those of `presets`. Every key of a run can be set for all of them
(`--config.rounds=20`), `--config.seeds='(0,1)'` names the seeds,
`--config.only=fedavg,relief*` leaves labels out and `--config.values=FILE` sets
what `relief select` chose for every label. A comparison over folds may run
each with several seeds: `--config.repeats='(0,1)'`.
"""

from relief_jax import config as config_lib
from relief_jax.campaign import comparison
from relief_jax.config import presets

METHODS = {
  'fedavg': {'method': 'fedavg'},
  'fedavg_skip': {'method': 'fedavg', 'fill': 'skip'},
  'cohort_mean': {'method': 'cohort_mean'},
  'relief': comparison.MID,
  'relief_random': {**comparison.MID, 'relief': {'rule': 'random'}},
  'relief_tight': {**comparison.MID, 'deadline': 'tight'},
}


def smoke(c):
  """Shrinks to the small world, with all of its clients in every cohort."""
  presets.smoke(c)
  c.clients_per_round = 0


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.clients, c.clients_per_round = 240, 20
  c.rounds, c.rounds_per_call, c.eval_every = 25, 5, 5
  c.target_f1 = 0.5  # of the fleet, on persons it has never seen
  c.devices = 1  # of each worker process
  presets.apply(c, arg, smoke=smoke)
  seeds = (0, 1) if 'smoke' in (arg or '').split(',') else (0, 1, 2)
  return comparison.build(c, METHODS, seeds)
