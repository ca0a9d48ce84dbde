"""Sensors that differ in how often and how well they deliver, and rebalancing.

relief compare qqr --workdir=runs/qqr --data_dir=DIR

In the spirit of https://arxiv.org/abs/2508.11159, whose set-up is not public:
20 devices with every sensor; a sensor is missing in a round at a rate of its
own, beta-distributed around .3 (quantity), and 40 % of all sensors measure with
noise of three deviations (quality). 60 rounds, seeds 0 to 2.

Every part of `qqr_style` alone and together, RELIEF with and without
confidence, and the oracle, which leaves the noisy sensors out: a world without
noise in which they are gone. Variants: those of presets.py, and `synthetic`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

OFF = {'confidence': False, 'align': 0.0}
METHODS = {
  'fedavg': {'method': 'fedavg', 'fill': 'skip'},
  'zf': {'method': 'fedavg', 'fill': 'input', 'fill_value': 'zero'},
  'cohort_mean': {'method': 'cohort_mean'},
  'pmm': {'method': 'pmm'},
  'quality1': {'method': 'qqr_style', 'qqr_style': {'align': 0.0}},
  'quality2': {'method': 'qqr_style', 'qqr_style': {'confidence': False}},
  'quality1_2': {'method': 'qqr_style'},
  'quality3': {'method': 'qqr_style', 'qqr_style': {**OFF, 'mix': True}},
  'quantity': {'method': 'qqr_style', 'qqr_style': {**OFF, 'substitute': True}},
  'relief': comparison.MID,
  'relief_confidence': {**comparison.MID, 'relief': {'confidence': True}},
  # The faulty sensors deliver nothing in place of noise.
  'oracle': {
    'method': 'cohort_mean',
    'sensor_faults': {'noise': 0.0, 'lost': 1.0},
  },
}


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.fleet, c.clients = 'uniform', 20
  c.online.missing.update(kind='each', rate=0.3, spread=0.3)
  c.sensor_faults.update(noise=3.0, share=0.4)
  presets.apply(c, arg, synthetic=lambda c: c.update(dataset='synthetic'))
  smoke = 'smoke' in (arg or '').split(',')
  return comparison.build(c, METHODS, (0,) if smoke else (0, 1, 2))
