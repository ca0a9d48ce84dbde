"""Ways of fusing sensors, where some are missing and some measure badly.

relief compare fusion --workdir=runs/fusion --data_dir=DIR
relief robustness runs/fusion --against=concat

FedAvg with every way of `config.model.fusion` but experts, in the worlds of
configs/robustness.py without its streams: in a round a sensor delivers nothing
with the missing rate (none, .3 or .5), and a share of all (device, sensor)
pairs (none, .2 or .4) measures with noise of three deviations. 16 devices with
all sensors, absent ones skipped. Held-out persons are measured as the data set
was; `f1_own` is of each device's own later windows, through its own sensors.
Variants: `smoke`, and `mhealth` (8 devices, 20 rounds, two folds of persons).
"""

from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

MISSING = (0.0, 0.3, 0.5)
NOISY = (0.0, 0.2, 0.4)
FUSIONS = ('concat', 'mean', 'attention', 'dual_health_style')


def labels() -> dict[str, dict]:
  """Maps each label to the keys of its run."""
  return {
    f'{worlds.unreliable_name(missing, noisy)}/{fusion}': {
      'model': {'fusion': fusion},
      **worlds.unreliable(missing, noisy),
    }
    for missing in MISSING
    for noisy in NOISY
    for fusion in FUSIONS
  }


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.method, c.fill, c.deadline = 'fedavg', 'skip', 'none'
  c.fleet, c.clients, c.rounds = 'uniform', 16, 25
  presets.apply(c, arg, mhealth=worlds.halves)
  variants = (arg or '').split(',')
  if 'mhealth' in variants:
    return comparison.build(c, labels(), (), 'concat', 'data.fold')
  seeds = (0,) if 'smoke' in variants else (0, 1, 2)
  return comparison.build(c, labels(), seeds, 'concat')
