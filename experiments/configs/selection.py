"""Who takes part: four rules of selection, for FedAvg and RELIEF, on MHEALTH.

relief compare selection --workdir=runs/selection --data_dir=DIR

60 devices of four tiers, 12 of them in each of 30 rounds, a small model, seeds
0 and 1. Labels are METHOD/RULE: `random`, `round_robin`, `oort_style`,
`fedjoule_style` without a limit of energy, and `fedjoule_limit`, the same
within 45 J for all devices and rounds. What the rules do is in
docs/selection.md. The variant `synthetic` takes synthetic windows, a tiny model
and 0.41 J. Also the variants of `presets`.
"""

from relief_jax import config as config_lib
from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

METHODS = {
  'fedavg': {'method': 'fedavg', 'fill': 'skip'},
  'relief': comparison.MID,
}
LIMIT, LIMIT_SYNTHETIC = 45.0, 0.41  # joules
RULES = {
  'random': {'rule': 'random'},
  'round_robin': {'rule': 'round_robin'},
  'oort_style': {'rule': 'oort_style'},
  'fedjoule_style': {'rule': 'fedjoule_style'},
}


def synthetic(c):
  """Takes synthetic windows, unequally many on a device, and a tiny model."""
  c.dataset, c.data.channels, c.quantity_skew = 'synthetic', '', 0.5
  c.data.width = c.data.stride = 32
  c.data.test_subjects, c.data.own_share = (10, 11), 0.0
  c.model.filters, c.model.hidden, c.eval_every = (4, 8), 16, 10


def smoke(c):
  """Shrinks to the small world, three of its eight devices in a round."""
  presets.smoke(c)
  c.data.channels, c.clients_per_round = '', 3


def labels(limit):
  """Maps METHOD/RULE to the keys of a run.

  Args:
    limit: of `fedjoule_limit`, in joules.
  """
  rules = {**RULES, 'fedjoule_limit': {**RULES['fedjoule_style']}}
  rules['fedjoule_limit']['joules'] = limit
  return {
    f'{method}/{rule}': {**keys, 'selection': choice}
    for method, keys in METHODS.items()
    for rule, choice in rules.items()
  }


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.dataset, c.data.channels = 'mhealth', worlds.MHEALTH['mag']
  c.data.width, c.data.stride = 128, 64
  c.clients, c.clients_per_round, c.hparams.client_lr = 60, 12, 0.1
  c.rounds, c.rounds_per_call, c.eval_every = 30, 5, 5
  c.model.filters, c.model.hidden = (8, 16), 32
  c.target_f1 = 0.5
  c.devices = 1  # of each worker process
  presets.apply(c, arg, smoke=smoke, synthetic=synthetic)
  variants = (arg or '').split(',')
  seeds = (0,) if 'smoke' in variants else (0, 1)
  limit = LIMIT_SYNTHETIC if 'synthetic' in variants else LIMIT
  return comparison.build(c, labels(limit), seeds, baseline='random')
