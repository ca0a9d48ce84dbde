"""Clients per second in a round of the sensor workload.

python -m benchmarks.round_throughput [--workload=sensor,flax,lora,lora_cached,
  transformer,transformer_lora]
  [--methods=cohort_mean] [--layout=one] [--devices=2] [--smoke]

One JSON line per workload and method. `lora` trains adapters on a random
frozen base instead of the whole model, `lora_cached` the same from features
computed once; `flax` the whole model as a user's chain of Flax modules;
`transformer` and `transformer_lora` (adapters of rank 8 on q and v) are the
preset `sensor`: 8 tokens a modality, d 64, 4 blocks, 4 heads.

64 clients; modalities of 9, 9, 9 and 1 channels, 128 samples; two convolutions
(kernel 5, stride 2, 32 and 64 filters), mean pool, fusion to 128, 12 classes;
5 local SGD steps of batch 32. Every device owns the first modality and each
other one with probability 0.45. Data is random: this measures speed only.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common, flax_cnn
from relief_jax import (
  algorithms,
  costs,
  simulate,
  world,
)
from relief_jax.cli import command
from relief_jax.engine import ambient, buckets, placement
from relief_jax.models import cnn, lora, transformer
from relief_jax.models.encoders import Spec
from relief_jax.settings import Setting
from relief_jax.types import Bank, Fleet, Population

WORKLOADS = {
  'sensor': cnn.cnn,
  'flax': flax_cnn.copy,
  'lora': lora.lora,
  'lora_cached': lora.lora,
  'transformer': transformer.transformer,
  'transformer_lora': transformer.transformer,
}

_WORKLOADS = flags.DEFINE_list('workload', 'sensor', ', '.join(WORKLOADS))
_METHODS = flags.DEFINE_list('methods', 'cohort_mean', 'methods')
_LAYOUT = flags.DEFINE_string('layout', 'auto', 'see config.layout')
_DEVICES = flags.DEFINE_integer('devices', 0, '0: one per core')
_CLIENTS = flags.DEFINE_integer('clients', 64, 'in the round')
_BUCKETS = flags.DEFINE_integer('buckets', 1, 'see config.buckets')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'timed rounds')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


def workload(clients: int, smoke: bool) -> tuple[Spec, Population]:
  """Builds the model's shapes, and clients with random windows."""
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


class Round(NamedTuple):
  """Holds a round that can be timed.

  Attributes:
    step: compiled when it is first called.
    args: of it, always the same state.
    layout: of its clients.
    flops: useful ones, of all devices together (`costs.step_flops`); with
      cached features those of the uncached model.
    facts: of the case.
  """

  step: Any
  args: tuple
  layout: placement.Layout
  flops: float
  facts: dict[str, Any]

  def call(self):
    """Runs the round."""
    return self.step(*self.args)


def make_round(name: str, method: str) -> Round:
  """Builds a workload's round, over the flags' clients, layout and devices."""
  spec, population = workload(_CLIENTS.value, _SMOKE.value)
  key = ambient.key(0)
  spec = spec._replace(patch=spec.width // 8)
  if name == 'transformer_lora':
    spec = spec._replace(lora=('q', 'v'))
  task = WORKLOADS[name](spec)
  if task.base:
    frozen = task.base(key)
    population = dataclasses.replace(population, frozen=frozen)
    if name == 'lora_cached':
      bank = world.cache_features(spec, frozen, population.bank)
      population = dataclasses.replace(population, bank=bank)
      task = WORKLOADS[name](spec._replace(cached=True))
  fleet = population.fleet
  names = ('client_lr', 'client_momentum', 'server_lr', 'ema', 'prox', 'rounds')
  hparams = dict.fromkeys((*names, 'dropout', 'deadline'), jnp.float32(0.0))
  hparams |= {'client_lr': jnp.float32(0.01), 'server_lr': jnp.float32(1.0)}
  hparams['deadline'] = jnp.float32(jnp.inf)
  layout = placement.parse_layout(_LAYOUT.value, _DEVICES.value)
  together = layout.devices * max(layout.block, 1)
  owned = np.asarray(fleet.owned)
  fill = algorithms.facts(method).fill
  cut: tuple[buckets.Bucket, ...] = ()
  if _BUCKETS.value > 1 and fill == 'skip' and not layout.branch:
    cut = buckets.bucket(owned, task, _BUCKETS.value, together)
  setting = Setting(
    layout=layout,
    buckets=cut,
    clients=_CLIENTS.value,
    cohort=_CLIENTS.value,
    fill=fill,
    options=algorithms.facts(method).make(),
  )
  algorithm = algorithms.build(method, task, setting)
  state = algorithm.init(key, task.init(key))
  # Once: a call would copy the bank to the other devices every time.
  state, population = placement.replicate((state, population), layout)
  step = jax.jit(algorithm.step)
  args = key, state, population, hparams
  _, info = step(*args)
  modality = np.asarray(task.blocks.modality)
  run = (owned | (fill == 'input'))[np.asarray(info.client)]
  trained = np.asarray(info.trained) & ((modality < 0) | run[:, modality])
  samples = setting.steps * setting.batch
  flops = samples * float(costs.step_flops(task.work, run, trained).sum())
  facts = {
    'workload': name,
    'method': method,
    'layout': str(layout),
    'clients': _CLIENTS.value,
    'buckets': max(len(cut), 1),
    'modalities_owned': float(owned.sum(1).mean()),
    'useful_gflop': flops / 1e9,
  }
  return Round(step, args, layout, flops, facts)


def main(argv):
  """Times every workload and method and prints a JSON line each."""
  del argv
  simulate.set_devices(_DEVICES.value)
  for name in _WORKLOADS.value:
    for method in _METHODS.value:
      one = make_round(name, method)
      seconds = common.times(one.call, _REPEATS.value)
      rate = _CLIENTS.value / seconds['median_seconds']
      common.emit(
        {
          'benchmark': 'round_throughput',
          **one.facts,
          **seconds,
          'clients_per_second': rate,
        }
      )


if __name__ == '__main__':
  command.launch(main)
