"""Flower on a public set-up: its message API and its simulation engine (Ray).

python -m benchmarks.peers.public_flower [--setup=pfl_cifar10] [--smoke]

Set OMP_NUM_THREADS=1: one actor per core, each on one thread. Start-up of Ray
is not counted; nothing is evaluated.
"""

import time

import torch
from absl import app
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers import common, flower_client, torch_models


def main(argv) -> None:
  """One JSON line."""
  del argv
  setup, rounds = common.chosen(), common.ROUNDS.value + 1
  model, ends = torch_models.build(setup), []
  client_app, server_app = ClientApp(), ServerApp()

  @client_app.train()
  def _(message, context):
    del context
    return flower_client.train(setup, message)

  def clock(number, arrays):
    del number, arrays
    ends.append(time.perf_counter())

  @server_app.main()
  def _(grid, context):
    del context
    strategy = FedAvg(
      fraction_train=(setup.cohort + 0.5) / setup.clients,
      fraction_evaluate=0.0,
      min_train_nodes=setup.cohort,
      min_available_nodes=setup.clients,
    )
    strategy.start(
      grid=grid,
      initial_arrays=ArrayRecord(model.state_dict()),
      num_rounds=rounds,
      evaluate_fn=clock,
    )

  run_simulation(
    server_app=server_app,
    client_app=client_app,
    num_supernodes=setup.clients,
    backend_config={
      'client_resources': {'num_cpus': 1, 'num_gpus': 0.0},
      'init_args': {'num_cpus': common.CORES.value},
    },
  )
  # The first end is that of the evaluation before round one.
  seconds = [b - a for a, b in zip(ends[1:], ends[2:], strict=False)]
  common.emit_setup(
    'flower',
    setup,
    seconds,
    parameters=torch_models.parameters(model),
    torch=torch.__version__,
  )


if __name__ == '__main__':
  app.run(main)
