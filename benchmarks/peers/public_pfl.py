"""pfl-research on a public set-up, through its own training loop.

python -m benchmarks.peers.public_pfl [--setup=pfl_cifar10] [--smoke]

One process with a thread per core: its default on a machine without a GPU.
Nothing is evaluated.
"""

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

from benchmarks import turns
from benchmarks.peers import common, torch_models


class Model(torch.nn.Module):
  """Wraps the set-up's model with the two methods that pfl asks for."""

  def __init__(self, setup):
    super().__init__()
    self.net = torch_models.build(setup)

  def loss(self, x, y):
    """Computes the mean cross-entropy of a batch."""
    return torch.nn.functional.cross_entropy(self.net(x), y)

  def metrics(self, x, y):
    """Evaluates nothing."""
    del x, y
    return {}


class Clock(TrainingProcessCallback):
  """Times the rounds, one after another."""

  def __init__(self, rounds):
    self.clock, self.rounds = turns.Clock(), rounds

  def on_train_begin(self, *, model):
    """Starts to time the first round."""
    del model
    self.clock.start()
    return Metrics()

  def after_central_iteration(
    self, aggregate_metrics, model, *, central_iteration
  ):
    """Ends the time of a round, and starts that of the next one."""
    del aggregate_metrics, model, central_iteration
    self.clock.stop()
    if len(self.clock.seconds) < self.rounds:
      self.clock.start()
    return False, Metrics()


def main(argv) -> None:
  """Times pfl's rounds and prints one JSON line."""
  del argv
  torch.set_num_threads(common.CORES.value)
  setup, rounds = common.chosen(), common.ROUNDS.value + 1
  x, y = torch_models.tensors(*common.data(setup))

  def user(client):
    shuffled = torch.randperm(setup.samples)
    raw = [x[client][shuffled], y[client][shuffled]]
    return Dataset(raw_data=raw, user_id=str(client))

  users = FederatedDataset(
    user, get_user_sampler('random', list(range(setup.clients)))
  )
  net = Model(setup)
  central = torch.optim.SGD(net.parameters(), lr=1.0)
  clock = Clock(rounds)
  FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
      central_num_iterations=rounds,
      evaluation_frequency=rounds + 1,
      train_cohort_size=setup.cohort,
      val_cohort_size=None,
    ),
    backend=SimulatedBackend(training_data=users, val_data=users),
    model=PyTorchModel(net, torch.optim.SGD, central),
    model_train_params=NNTrainHyperParams(
      local_learning_rate=setup.lr,
      local_num_epochs=setup.epochs,
      local_batch_size=setup.batch,
    ),
    model_eval_params=NNEvalHyperParams(local_batch_size=setup.batch),
    callbacks=[clock],
  )
  common.emit_setup(
    'pfl',
    setup,
    clock.clock.seconds[1:],
    parameters=torch_models.parameters(net),
    torch=torch.__version__,
  )


if __name__ == '__main__':
  turns.launch(main)
