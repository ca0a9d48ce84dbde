"""FedJAX on a public set-up: its FedAvg with its jit backend.

python -m benchmarks.peers.public_fedjax [--setup=pfl_cifar10] [--smoke]

One process; XLA shares each operation out over the cores. Its pmap backend
gives wrong results with the JAX versions it still runs on and is not used.
"""

import fedjax
import haiku as hk
import jax
import numpy as np
from fedjax.algorithms import fed_avg

from benchmarks import turns
from benchmarks.peers import common


def build(setup):
  """Builds the set-up's model as FedJAX wants it."""

  def forward(batch):
    if setup.model == 'linear':
      return hk.Linear(setup.classes)(batch['x'])
    return hk.Sequential(
      [
        hk.Conv2D(32, 3, padding='VALID'),
        jax.nn.relu,
        hk.Conv2D(64, 3, padding='VALID'),
        jax.nn.relu,
        hk.MaxPool((2, 2, 1), (2, 2, 1), padding='VALID'),
        hk.Flatten(),
        hk.Linear(128),
        jax.nn.relu,
        hk.Linear(setup.classes),
      ]
    )(batch['x'])

  return fedjax.create_model_from_haiku(
    hk.transform(forward),
    {
      'x': np.zeros((1,) + setup.shape, np.float32),
      'y': np.zeros(1, np.int32),
    },
    lambda batch, out: fedjax.metrics.unreduced_cross_entropy_loss(
      batch['y'], out
    ),
  )


def main(argv) -> None:
  """Times FedJAX's rounds and prints one JSON line."""
  del argv
  setup = common.chosen()
  x, y = common.data(setup)
  clients = fedjax.InMemoryFederatedData(
    {str(i): {'x': x[i], 'y': y[i]} for i in range(setup.clients)}
  )
  model = build(setup)
  fedjax.set_for_each_client_backend('jit')
  algorithm = fed_avg.federated_averaging(
    fedjax.model_grad(model),
    fedjax.optimizers.sgd(setup.lr),
    fedjax.optimizers.sgd(1.0),
    fedjax.ShuffleRepeatBatchHParams(
      batch_size=setup.batch, num_epochs=setup.epochs, seed=0
    ),
  )
  state = algorithm.init(model.init(jax.random.PRNGKey(0)))
  size = sum(v.size for v in jax.tree_util.tree_leaves(state.params))
  sampler = fedjax.client_samplers.UniformGetClientSampler(
    clients, num_clients=setup.cohort, seed=0
  )

  def one_round():
    nonlocal state
    state, info = algorithm.apply(state, sampler.sample())
    jax.block_until_ready((state.params, info))

  seconds = turns.timed(one_round, common.ROUNDS.value)
  common.emit_setup(
    'fedjax', setup, seconds, parameters=size, jax=jax.__version__
  )


if __name__ == '__main__':
  turns.launch(main)
