"""This simulator on a public set-up as a user runs it: a config and files.

python -m benchmarks.peers.public_config [--setup=pfl_cifar10] [--smoke]

The same data in an .npz, the same model by `--config.backbone=FILE.py:NAME`;
world, costs, records and checks are those of `relief run`. Beside
`public_relief`, which calls the round itself, it tells what they cost.
"""

import pathlib
import tempfile

import ml_collections
import numpy as np

from benchmarks import turns
from benchmarks.peers import common, image_task
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.errors import InputError


def write(path: pathlib.Path, setup: common.Setup) -> None:
  """Writes the set-up's images, a subject a client, and ten to test on."""
  x, y = (v.reshape(-1, *v.shape[2:]) for v in common.data(setup))
  subject = np.repeat(np.arange(setup.clients), setup.samples)
  test = np.zeros(len(y) + setup.classes, bool)
  test[len(y) :] = True
  np.savez(
    path,
    x=np.concatenate([x, x[: setup.classes]]),
    y=np.concatenate([y, np.arange(setup.classes)]),
    subject=np.append(subject, np.full(setup.classes, setup.clients)),
    modality=['image'] * setup.shape[-1],
    official_test=test,
  )


def configured(
  path: pathlib.Path, setup: common.Setup, rounds: int
) -> ml_collections.ConfigDict:
  """Builds the config of the set-up.

  Args:
    path: of the data.
    setup: which.
    rounds: of the run.
  """
  c = config_lib.default('fedavg')
  c.dataset, c.data_path, c.data.split = 'npz', str(path), 'official'
  c.backbone = f'{image_task.__file__}:pfl_cnn'
  c.fleet, c.partition, c.fill = 'uniform', 'subject', 'skip'
  c.clients, c.clients_per_round = setup.clients, setup.cohort
  c.local_steps, c.batch = setup.steps, setup.batch
  c.client_optimizer, c.hparams.client_lr = 'sgd', setup.lr
  c.rounds, c.rounds_per_call, c.eval_every = rounds, 1, rounds
  c.devices = common.CORES.value
  return c


def main(argv) -> None:
  """Times a run's rounds and prints one JSON line."""
  del argv
  setup, rounds = common.chosen(), 1 + common.ROUNDS.value
  if len(setup.shape) != 3:
    raise InputError(
      f'--setup={common.SETUP.value}', 'one of images', 'set pfl_cifar10'
    )
  simulate.set_devices(common.CORES.value)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'images.npz'
    write(path, setup)
    run = simulate.Simulation(configured(path, setup, rounds))
  run.advance()  # before the first round: compiles, and tests once
  seconds = turns.timed(lambda: run.advance_rounds(1), common.ROUNDS.value)
  common.emit_setup(
    'relief_config',
    setup,
    seconds,
    parameters=int(run.task.work.size.sum()),
    layout=str(run.setting.layout),
  )


if __name__ == '__main__':
  command.launch(main)
