"""This simulator on a public set-up: FedAvg in its own round.

python -m benchmarks.peers.public_relief [--setup=pfl_cifar10] [--smoke]

One client at a time on every core's own virtual device, the whole round in one
program. Costs (seconds, joules, bytes) are simulated as always.
"""

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common as timing
from benchmarks import tracing, turns
from benchmarks.peers import common, image_task
from relief_jax import algorithms, costs, simulate
from relief_jax.cli import command
from relief_jax.engine import memory, placement
from relief_jax.optimizers import Optimizer
from relief_jax.settings import Setting
from relief_jax.types import Bank, Fleet, Population

_DEVICES = flags.DEFINE_integer(
  'devices', 0, 'virtual CPU devices, 0: one per core'
)
_LAYOUT = flags.DEFINE_string('layout', 'one', 'see config.layout')
_PLAIN = flags.DEFINE_bool(
  'plain', False, "XLA's own convolutions, for accelerators"
)
_PRODUCT = flags.DEFINE_integer(
  'product', 0, 'compare with the product of two matrices of this size'
)
_TOP = flags.DEFINE_integer('top', 0, 'also trace, and list so many operations')
_DRAW = flags.DEFINE_enum(
  'draw',
  'steps',
  ['epochs', 'steps'],
  'batches drawn with replacement, or whole shuffled epochs',
)


def population(setup: common.Setup) -> Population:
  """Builds equal devices with one camera each."""
  x, y = common.data(setup)
  total, n = setup.clients * setup.samples, setup.clients
  ones = jnp.ones(n)
  fleet = Fleet(
    id=jnp.arange(n, dtype=jnp.int32),
    owned=jnp.ones((n, 1), bool),
    tier=jnp.zeros(n, jnp.int32),
    samples=jnp.full(n, setup.samples, jnp.int32),
    speed=1e9 * ones,
    uplink=1e7 * ones,
    downlink=1e7 * ones,
    watts=jnp.ones((n, 4)),
    budget=1e12 * ones,
  )
  bank = Bank(
    {'image': jnp.asarray(x.reshape((total,) + setup.shape))},
    {'image': jnp.zeros(setup.shape[-1])},
    jnp.asarray(y.reshape(-1)),
  )
  rows = np.arange(total, dtype=np.int32).reshape(n, -1)
  return Population(bank, fleet, jnp.asarray(rows), {})


def share(task, setting, layout, seconds: float) -> dict[str, float]:
  """Compares a round's useful FLOP/s with those of a matrix product.

  Args:
    task: the model.
    setting: of the round.
    layout: of its clients.
    seconds: of the round.
  """
  every = jnp.ones((1, 1), bool), jnp.ones((1, task.num_blocks), bool)
  flops = float(costs.step_flops(task.work, *every).sum())
  flops *= setting.cohort * setting.steps * setting.batch
  product = timing.matrix_product(_PRODUCT.value, layout)
  best = timing.times(product.call, 5)['median_seconds']
  return {
    'useful_gflops': flops / seconds / 1e9,
    'product_gflops': product.flops / best / 1e9,
    'share': flops / seconds * best / product.flops,
  }


def main(argv) -> None:
  """Times this simulator's rounds and prints one JSON line."""
  del argv
  devices = _DEVICES.value or common.CORES.value
  simulate.set_devices(devices)
  setup = common.chosen()
  task = image_task.image_task(setup, _PLAIN.value)
  hparams = {
    'client_lr': jnp.float32(setup.lr),
    'server_lr': jnp.float32(1.0),
    'deadline': jnp.float32(jnp.inf),
  }
  layout = placement.parse_layout(_LAYOUT.value, devices)
  setting = Setting(
    clients=setup.clients,
    layout=layout,
    cohort=setup.cohort,
    steps=setup.steps,
    epochs=setup.epochs if _DRAW.value == 'epochs' else 0,
    batch=setup.batch,
    client_optimizer=Optimizer('sgd'),  # as all other sides have it
  )
  algorithm = algorithms.build('fedavg', task, setting)
  key = jax.random.key(0)
  state = algorithm.init(key, task.init(key))
  state, people = placement.replicate((state, population(setup)), layout)
  size = sum(v.size for v in jax.tree.leaves(algorithm.params(state)))
  number = 0
  jitted = jax.jit(algorithm.step, donate_argnums=1)
  step = jitted.lower(key, state, people, hparams).compile()

  def one_round():
    nonlocal state, number
    number += 1
    state, info = step(jax.random.key(number), state, people, hparams)
    jax.block_until_ready((state, info))
    if not np.isfinite(info.loss).all():
      raise FloatingPointError('the loss is not finite')

  seconds = turns.timed(one_round, common.ROUNDS.value)
  facts: dict[str, Any] = {}
  if _TOP.value:
    facts['trace'] = tracing.profile(step, one_round, _TOP.value)
  if _PRODUCT.value:
    facts |= share(task, setting, layout, statistics.median(seconds))
  common.emit_setup(
    'relief',
    setup,
    seconds,
    parameters=size,
    draw=_DRAW.value,
    layout=str(layout),
    plain=_PLAIN.value,
    total_seconds=sum(seconds),
    peak_memory_mbytes=memory.peak() / 1e6,
    device_kind=jax.devices()[0].device_kind,
    jax=jax.__version__,
    **facts,
  )


if __name__ == '__main__':
  command.launch(main)
