"""Flower on a public set-up: its message API and its simulation engine (Ray).

python -m benchmarks.peers.public_flower [--setup=pfl_cifar10] [--smoke]

Set OMP_NUM_THREADS=1: one actor per core, each on one thread. Start-up of Ray
is not counted; nothing is evaluated.
"""

import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import turns
from benchmarks.peers import common, flower_client, torch_models


def main(argv) -> None:
  """Times Flower's rounds and prints one JSON line."""
  del argv
  setup, rounds = common.chosen(), common.ROUNDS.value + 1
  model, clock = torch_models.build(setup), turns.Clock()
  client_app, server_app = ClientApp(), ServerApp()

  @client_app.train()
  def _(message, context):
    del context
    return flower_client.train(setup, message)

  def between(number, arrays):
    del arrays
    if number:
      clock.stop()
    if number < rounds:
      clock.start()

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
      evaluate_fn=between,
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
  common.emit_setup(
    'flower',
    setup,
    clock.seconds[1:],
    parameters=torch_models.parameters(model),
    torch=torch.__version__,
  )


if __name__ == '__main__':
  turns.launch(main)
