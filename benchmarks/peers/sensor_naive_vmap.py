"""The sensor workload in the obvious JAX: one vmap over clients, masks.

python -m benchmarks.peers.sensor_naive_vmap [--smoke]

Every client runs every encoder; absent ones are multiplied by zero. The
convolutions are im2col and matrix products differentiated by JAX, as
`lax.conv` under a vmap over kernels is slower by another order of magnitude.
"""

import os

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import turns
from benchmarks.peers import common
from relief_jax.cli import command
from relief_jax.types import PyTree

_CLIENTS = flags.DEFINE_integer('clients', 64, 'in the round')


def init(key, world: common.Sensor):
  """Draws parameters: {modality: …}, 'bias', 'w', 'b'."""
  one, two = world.filters
  params: PyTree = {}
  for i, (name, x) in enumerate(world.x.items()):
    a, b, c = jax.random.split(jax.random.fold_in(key, i), 3)
    params[name] = {
      'w1': 0.1 * jax.random.normal(a, (5 * x.shape[-1], one)),
      'b1': jnp.zeros(one),
      'w2': 0.1 * jax.random.normal(b, (5 * one, two)),
      'b2': jnp.zeros(two),
      'fusion': 0.1 * jax.random.normal(c, (two, world.hidden)),
    }
  params['bias'] = jnp.zeros(world.hidden)
  params['w'] = 0.1 * jax.random.normal(key, (world.hidden, world.classes))
  params['b'] = jnp.zeros(world.classes)
  return params


def conv(x, w):
  """Convolves with kernel 5 and stride 2: [B, L, c] -> [B, L', f]."""
  length = (x.shape[1] - 5) // 2 + 1
  taps = [x[:, i : i + 2 * length - 1 : 2] for i in range(5)]
  return jnp.concatenate(taps, -1) @ w


def loss(params, inputs, y, own):
  """Averages cross-entropy over a batch; absent modalities count zero."""
  z = params['bias']
  for m, (name, x) in enumerate(inputs.items()):
    p = params[name]
    x = jax.nn.relu(conv(x, p['w1']) + p['b1'])
    x = jax.nn.relu(conv(x, p['w2']) + p['b2'])
    z = z + own[m] * (x.mean(1) @ p['fusion'])
  scores = jax.nn.log_softmax(jax.nn.relu(z) @ params['w'] + params['b'])
  return -jnp.take_along_axis(scores, y[:, None], 1).mean()


def main(argv) -> None:
  """Times the rounds and prints one JSON line."""
  del argv
  world = common.sensor(_CLIENTS.value, common.SMOKE.value)
  x = {k: jnp.asarray(v) for k, v in world.x.items()}
  y, rows = jnp.asarray(world.y), jnp.asarray(world.rows)
  owned = jnp.asarray(world.owned, jnp.float32)

  def client(params, x, y, key, own, mine):
    def step(p, key):
      at = mine[jax.random.randint(key, (world.batch,), 0, mine.size)]
      inputs = {k: v[at] for k, v in x.items()}
      grads = jax.grad(loss)(p, inputs, y[at], own)
      return jax.tree.map(lambda a, g: a - 0.01 * g, p, grads), None

    end, _ = jax.lax.scan(step, params, jax.random.split(key, world.steps))
    return jax.tree.map(jnp.subtract, end, params)

  @jax.jit
  def one_round(params, key, x, y):
    keys = jax.random.split(key, len(owned))
    every = jax.vmap(client, (None, None, None, 0, 0, 0))
    deltas = every(params, x, y, keys, owned, rows)

    def mean(delta, weight):
      return jnp.tensordot(weight, delta, 1) / jnp.maximum(weight.sum(), 1)

    update = {
      k: jax.tree.map(
        lambda d, k=k: mean(
          d, owned[:, list(x).index(k)] if k in x else jnp.ones(len(owned))
        ),
        v,
      )
      for k, v in deltas.items()
    }
    return jax.tree.map(jnp.add, params, update)

  params, number = init(jax.random.key(0), world), 0

  def advance():
    nonlocal params, number
    number += 1
    params = jax.block_until_ready(
      one_round(params, jax.random.key(number), x, y)
    )

  seconds = turns.timed(advance, common.ROUNDS.value)
  common.emit(
    'naive_vmap',
    'sensor',
    _CLIENTS.value,
    seconds,
    modalities_owned=float(world.owned.sum(1).mean()),
    parameters=sum(v.size for v in jax.tree.leaves(params)),
    jax=jax.__version__,
    xla_flags=os.environ.get('XLA_FLAGS', ''),
  )


if __name__ == '__main__':
  command.launch(main)
