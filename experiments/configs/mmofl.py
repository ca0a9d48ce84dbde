"""MMO-FL's own world, and what its paper varies.

relief compare mmofl --workdir=runs/mmofl --data_dir=DIR

After https://arxiv.org/abs/2505.16138 as a replication has it: UCI-HAR, five
devices with every sensor, a buffer of 500 windows of which 20 are new in a
round, one epoch of batches of 64, plain SGD at .1 falling by 5 % a round down
to .001, Dirichlet 1 over classes, 100 rounds; with probability .5 one sensor,
drawn for all devices, is missing in a round. Seeds 0 to 9.

`fm` misses nothing, `pm` skips what is missing, `zf` puts zeros there. The
encoders are this project's, not the paper's (one of theirs is an LSTM), so no
figure from here is theirs. Variants: `dsads` (where UCI-HAR is not at hand;
with a smaller buffer, since a device has fewer windows there), `rates` (.3,
.5 and .7), `prototypes` (in 2 and 4 bits, built every 2 and 4 rounds), `skew`
(Dirichlet 1, 5 and 10), and `smoke`.
"""

from relief_jax import config as config_lib
from relief_jax.campaign import comparison
from relief_jax.config import presets

METHODS = {
  'fm': {'method': 'fedavg', 'fill': 'skip'},
  'pm': {'method': 'fedavg', 'fill': 'skip'},
  'zf': {'method': 'fedavg', 'fill': 'input', 'fill_value': 'zero'},
  'pmm': {'method': 'pmm'},
}
RATES = (0.3, 0.5, 0.7)
ALPHAS = (1.0, 5.0, 10.0)
PROTOTYPES = {
  'pmm_2bit': {'bits': 2},
  'pmm_4bit': {'bits': 4},
  'pmm_refresh2': {'refresh': 2},
  'pmm_refresh4': {'refresh': 4},
}


def missing(rate: float) -> dict:
  """Gives the keys by which one sensor of the fleet is missing at this rate."""
  kind = 'fleet' if rate else 'off'
  return {'online': {'missing': {'kind': kind, 'rate': rate}}}


def labels(names):
  """Maps each label to keys of a run, for the variants asked for."""
  if 'rates' in names:
    return {
      f'rate{100 * rate:.0f}/{label}': {
        **keys,
        **missing(0.0 if label == 'fm' else rate),
      }
      for rate in RATES
      for label, keys in METHODS.items()
    }
  found = {
    label: {**keys, **missing(0.0 if label == 'fm' else 0.5)}
    for label, keys in METHODS.items()
  }
  if 'prototypes' in names:
    for label, keys in PROTOTYPES.items():
      found[label] = {'method': 'pmm', 'pmm': keys, **missing(0.5)}
  if 'skew' in names:
    return {
      f'alpha{alpha:g}/{label}': {**keys, 'alpha': alpha}
      for alpha in ALPHAS
      for label, keys in found.items()
    }
  return found


def dsads(c):
  """Takes DSADS, where UCI-HAR is not at hand."""
  c.dataset = 'dsads'
  c.online.stream.update(buffer=250, arrive=20)


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = config_lib.default()
  c.dataset, c.fleet, c.clients = 'ucihar', 'uniform', 5
  c.data.split = 'official'
  c.data.width, c.data.stride = 128, 64
  c.partition, c.alpha = 'dirichlet', 1.0
  c.rounds, c.rounds_per_call, c.eval_every = 100, 5, 5
  c.local_epochs, c.batch = 1, 64
  c.hparams.client_lr, c.hparams.client_momentum = 0.1, 0.0
  c.hparams.lr_decay, c.hparams.lr_floor = 0.95, 0.001
  c.online.stream.update(buffer=500, arrive=20)
  c.devices = 1  # of each worker process
  none = dict.fromkeys(('rates', 'prototypes', 'skew'), lambda c: None)
  names = [name for name in (arg or '').split(',') if name]
  if 'dsads' in names or 'smoke' in names:
    c.data.split = 'subjects'
    c.data.width = c.data.stride = 125
  presets.apply(c, arg, dsads=dsads, **none)
  smoke = 'smoke' in names
  if smoke:
    c.online.stream.update(buffer=16, arrive=4)
    c.local_epochs, c.local_steps = 0, 2
  seeds = (0,) if smoke else tuple(range(10))
  return comparison.build(c, labels(names), seeds, baseline='pm')
