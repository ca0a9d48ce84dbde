"""Every method under one deadline on DSADS, five seeds each.

python -m experiments.compare --config=experiments/configs/leaderboard.py \
    --workdir=runs/leaderboard --data_dir=DIR

24 devices of four unequal tiers, 60 rounds, seeds 0 to 4. Every method that
can choose what to train does so under the same deadline, at which a mid-tier
device affords one of its two encoders; the others train everything and are late
for it. Groups are `cnn` (all parameters) and `lora` (a frozen base; methods
that narrow or cut the encoders have nothing to do there). A method has the
options of its own config and the learning rate that all share. Also `smoke`,
`cnn`, `lora`, `synthetic`.
"""

from experiments.configs import common, compare
from experiments.configs.study import RATES
from relief_jax import algorithms

SEEDS = (0, 1, 2, 3, 4)
# As in their own configs: these choose among layers.
LAYERS = {'model': {'groups': 'layer'}}
OPTIONS: dict[str, dict] = {
  name: LAYERS for name in ('elastic_fl', 'fedel', 'fedpmt')
}
# At the rate of all others four of five seeds of the one diverge, and one of
# the other: their small sub-models multiply activations by up to 16.
OPTIONS |= {
  name: {'hparams': {'client_lr': 0.02}} for name in ('fedrolex', 'heterofl')
}
# FedAvg with coded updates, beside the methods of the registry.
CODECS = ('int4', 'ternary', 'top_k', 'sign')
FROZEN = ('fedavg', 'cohort_mean', 'relief')
# Made for sensors that fail from round to round: robustness.py.
ONLINE = ('pmm', 'qqr_style')


def labels(backbone: str):
  """label -> keys of a run, of one backbone's group."""
  every = sorted(set(algorithms.ALGORITHMS) - set(ONLINE))
  names = every if backbone == 'cnn' else FROZEN
  shared = {
    'backbone': backbone,
    'deadline': compare.MID['deadline'],
    'hparams': {'client_lr': RATES[backbone]},
  }
  found = {
    name: {**shared, 'method': name, **OPTIONS.get(name, {})} for name in names
  }
  for codec in CODECS if backbone == 'cnn' else ():
    found[f'fedavg_{codec}'] = {
      **shared,
      'method': 'fedavg',
      'uplink_codec': {'name': codec},
    }
  return {f'{backbone}/{label}': keys for label, keys in found.items()}


def get_config(arg=None):
  """The config.

  Raises:
    InputError: an unknown variant.
  """
  c = common.dsads()
  names = [name for name in (arg or '').split(',') if name]
  backbones = [b for b in ('cnn', 'lora') if b in names] or ['cnn', 'lora']
  common.apply(
    c,
    arg,
    cnn=lambda c: None,
    lora=lambda c: None,
    synthetic=lambda c: c.update(dataset='synthetic'),
  )
  methods = {}
  for backbone in backbones:
    methods |= labels(backbone)
  return compare.comparison(c, methods, (0,) if 'smoke' in names else SEEDS)
