"""BlazeFL on a public set-up: its FedAvg with its pool of threads.

python -m benchmarks.peers.public_blazefl [--setup=pfl_cifar10] [--smoke]

Set OMP_NUM_THREADS=1: one worker per core, each on one thread. BlazeFL 3 wants
Python 3.14, where the threads may run free of the interpreter lock; 2.0.3 runs
from Python 3.12 on, with the lock, which PyTorch gives up inside operations.
"""

import torch
from blazefl.contrib.fedavg import (
  FedAvgBaseServerHandler,
  FedAvgThreadPoolClientTrainer,
)
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import turns
from benchmarks.peers import common, torch_models


class Models:
  """Selects the one model, as BlazeFL's model selector."""

  def __init__(self, setup):
    self.setup = setup

  def select_model(self, model_name):
    """Builds the set-up's model, whatever its name."""
    del model_name
    return torch_models.build(self.setup)


class Data:
  """Holds arrays in memory as BlazeFL's partitioned data set."""

  def __init__(self, setup):
    self.x, self.y = torch_models.tensors(*common.data(setup))

  def get_dataset(self, type_, cid):
    """Gives the data of one client."""
    del type_
    return TensorDataset(self.x[cid], self.y[cid])

  def set_dataset(self, type_, cid, dataset):
    """Refuses a data set: none needs to be set here."""
    raise NotImplementedError

  def get_dataloader(self, type_, cid, batch_size, generator=None):
    """Gives the shuffled batches of one client."""
    return DataLoader(
      self.get_dataset(type_, cid), batch_size, True, generator=generator
    )


class Trainer(FedAvgThreadPoolClientTrainer):
  """Trains without a progress bar."""

  def progress_fn(self, it):
    """Returns the futures as they are."""
    return it


def main(argv) -> None:
  """Times BlazeFL's rounds and prints one JSON line."""
  del argv
  torch.set_num_threads(1)
  setup, rounds = common.chosen(), common.ROUNDS.value + 1
  models, shards = Models(setup), Data(setup)
  server = FedAvgBaseServerHandler(
    model_selector=models,
    model_name=setup.model,
    dataset=shards,
    global_round=rounds,
    num_clients=setup.clients,
    sample_ratio=(setup.cohort + 0.5) / setup.clients
    if setup.cohort < setup.clients
    else 1.0,
    device='cpu',
    batch_size=setup.batch,
    seed=0,
  )
  trainer = Trainer(
    model_selector=models,
    model_name=setup.model,
    dataset=shards,
    device='cpu',
    num_clients=setup.clients,
    epochs=setup.epochs,
    batch_size=setup.batch,
    lr=setup.lr,
    seed=0,
    num_parallels=common.CORES.value,
  )

  def one_round():
    sampled = server.sample_clients()
    trainer.local_process(server.downlink_package(), sampled)
    for package in trainer.uplink_package():
      server.load(package)

  seconds = turns.timed(one_round, common.ROUNDS.value)
  common.emit_setup(
    'blazefl',
    setup,
    seconds,
    parameters=torch_models.parameters(server.model),
    torch=torch.__version__,
  )


if __name__ == '__main__':
  turns.launch(main)
