"""Clients per second in the sensor workload.

python -m benchmarks.round_throughput [--layout=one] [--devices=2] [--smoke]

64 clients; modalities of 9, 9, 9 and 1 channels, 128 samples; two convolutions
(kernel 5, stride 2, 32 and 64 filters), mean pool, fusion to 128, 12 classes;
5 local SGD steps of batch 32. Every device owns the first modality and each
other one with probability 0.45. Data is random: this measures speed only.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import common
from relief_jax import algorithms, config, models, placement, simulate
from relief_jax.models.encoders import Spec
from relief_jax.recipe import Setting
from relief_jax.types import Bank, Fleet, Population

_METHOD = flags.DEFINE_list('methods', 'cohort_mean', 'methods')
_LAYOUT = flags.DEFINE_string('layout', 'auto', 'see config.layout')
_DEVICES = flags.DEFINE_integer('devices', 0, '0: one per core')
_CLIENTS = flags.DEFINE_integer('clients', 64, 'in the round')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'timed rounds')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


def workload(clients: int, smoke: bool) -> tuple[Spec, Population]:
  """The model's shapes, and clients with random windows."""
  rng = np.random.default_rng(0)
  width, windows = (32, 40) if smoke else (128, 4000)
  spec = Spec(
    modalities=('acc', 'gyro', 'mag', 'hr'),
    channels=(9, 9, 9, 1),
    width=width,
    classes=12,
    filters=(4, 8) if smoke else (32, 64),
  )
  x = {
    m: jnp.asarray(rng.normal(size=(windows, width, c)), jnp.float32)
    for m, c in zip(spec.modalities, spec.channels, strict=True)
  }
  fill = {m: jnp.zeros(v.shape[-1]) for m, v in x.items()}
  y = jnp.asarray(rng.integers(0, spec.classes, windows), jnp.int32)
  owned = rng.random((clients, 4)) < 0.45
  owned[:, 0] = True
  ones = jnp.ones(clients)
  fleet = Fleet(
    id=jnp.arange(clients, dtype=jnp.int32),
    owned=jnp.asarray(owned),
    tier=jnp.zeros(clients, jnp.int32),
    samples=jnp.full(clients, 40, jnp.int32),
    speed=1e9 * ones,
    uplink=1e7 * ones,
    downlink=1e7 * ones,
    watts=jnp.ones((clients, 4)),
    budget=1e12 * ones,
  )
  rows = jnp.asarray(rng.integers(0, windows, (clients, 40)), jnp.int32)
  return spec, Population(Bank(x, fill, y), fleet, rows, {})


def measure(method: str) -> dict:
  """Times one round of the workload."""
  spec, population = workload(_CLIENTS.value, _SMOKE.value)
  task = models.MODELS['cnn'](spec)
  fleet = population.fleet
  names = ('client_lr', 'client_momentum', 'server_lr', 'ema', 'prox', 'rounds')
  hparams = dict.fromkeys((*names, 'dropout', 'deadline'), jnp.float32(0.0))
  hparams |= {'client_lr': jnp.float32(0.01), 'server_lr': jnp.float32(1.0)}
  hparams['deadline'] = jnp.float32(jnp.inf)
  layout = placement.parse_layout(_LAYOUT.value, _DEVICES.value)
  setting = Setting(
    hparams=hparams,
    layout=layout,
    cohort=_CLIENTS.value,
    fill=algorithms.DEFAULT_FILL.get(method, 'skip'),
    options={
      **config.default().to_dict().get(method, {}),
      'clients': _CLIENTS.value,
    },
  )
  algorithm = algorithms.ALGORITHMS[method](task, setting)
  key = jax.random.key(0)
  state = algorithm.init(key, task.init(key))
  step = jax.jit(algorithm.step)
  seconds = common.times(lambda: step(key, state, population), _REPEATS.value)
  return {
    'benchmark': 'round_throughput',
    'workload': 'sensor',
    'method': method,
    'layout': str(layout),
    'clients': _CLIENTS.value,
    'modalities_owned': float(np.asarray(fleet.owned).sum(1).mean()),
    **seconds,
    'clients_per_second': _CLIENTS.value / seconds['median_seconds'],
  }


def main(argv):
  """One JSON line per method."""
  del argv
  simulate.set_devices(_DEVICES.value)
  for method in _METHOD.value:
    common.emit(measure(method))


if __name__ == '__main__':
  app.run(main)
