"""What the scripts of all sides share: the set-ups and made-up data.

This file runs in every side's environment: numpy and absl only.
"""

import datetime
import json
import os
import platform
import statistics
from typing import NamedTuple

import numpy as np
from absl import flags

SETUP = flags.DEFINE_string('setup', 'pfl_cifar10', 'one of SETUPS')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'timed rounds, after one dropped')
COHORT = flags.DEFINE_integer('cohort', 0, "clients per round, 0: set-up's")
CORES = flags.DEFINE_integer('cores', 2, 'workers, threads or devices used')
SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


class Setup(NamedTuple):
  """Describes a public federated benchmark; all clients have as much data.

  Attributes:
    model: `cnn` (3x3x32, 3x3x64, max-pool 2, dense 128, dense C) or `linear`.
    shape: of one input.
    clients: N in the population.
    samples: of each client.
    cohort: K clients per round.
    batch: B.
    epochs: E, local.
    lr: of the client.
    classes: C.
  """

  model: str
  shape: tuple[int, ...]
  clients: int
  samples: int
  cohort: int
  batch: int
  epochs: int
  lr: float
  classes: int = 10

  @property
  def steps(self) -> int:
    """Local steps of a client in one round."""
    return self.epochs * -(-self.samples // self.batch)


SETUPS = {
  'pfl_cifar10': Setup('cnn', (32, 32, 3), 1000, 50, 50, 10, 1, 0.1),
  'flute_lr_mnist': Setup('linear', (784,), 1000, 60, 10, 10, 1, 0.03),
  # Of its 3,400 clients a tenth: a round is the same, the memory is not.
  'flute_cnn_femnist': Setup('cnn', (28, 28, 1), 340, 200, 10, 20, 1, 0.1, 62),
  'blazefl_cifar10': Setup('cnn', (32, 32, 3), 100, 500, 100, 50, 5, 0.05),
}


def chosen() -> Setup:
  """Gives the set-up of the flags; a smoke run has few clients, one epoch."""
  setup = SETUPS[SETUP.value]
  if COHORT.value:
    setup = setup._replace(cohort=COHORT.value)
  if SMOKE.value:
    small = 2 * setup.batch
    setup = setup._replace(clients=6, samples=small, cohort=4, epochs=1)
  return setup


def data(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
  """Draws [N, samples, ...] float32 and [N, samples] int32, to time alone."""
  rng = np.random.default_rng(0)
  size = (setup.clients, setup.samples)
  x = rng.random(size + setup.shape, dtype=np.float32)
  x -= 0.5
  return x, rng.integers(0, setup.classes, size).astype(np.int32)


class Sensor(NamedTuple):
  """Holds the sensor workload of benchmarks/round_throughput.py, in numpy.

  Attributes:
    x: {modality: [windows, time, channels]}.
    y: [windows].
    owned: [N, M] bool.
    rows: [N, 40] windows of each client.
    filters: of the two convolutions (kernel 5, stride 2).
  """

  x: dict[str, np.ndarray]
  y: np.ndarray
  owned: np.ndarray
  rows: np.ndarray
  filters: tuple[int, int]
  hidden: int = 128
  classes: int = 12
  steps: int = 5
  batch: int = 32


def sensor(clients: int, smoke: bool) -> Sensor:
  """Draws the numbers of round_throughput: clients own the same sensors."""
  rng = np.random.default_rng(0)
  width, windows = (32, 40) if smoke else (128, 4000)
  x = {
    m: rng.normal(size=(windows, width, c)).astype(np.float32)
    for m, c in {'acc': 9, 'gyro': 9, 'mag': 9, 'hr': 1}.items()
  }
  y = rng.integers(0, 12, windows)
  owned = rng.random((clients, 4)) < 0.45
  owned[:, 0] = True
  rows = rng.integers(0, windows, (clients, 40))
  return Sensor(x, y, owned, rows, (4, 8) if smoke else (32, 64))


def emit(
  side: str, workload: str, clients: int, seconds: list[float], **facts
) -> None:
  """Prints one JSON line: a round's seconds, clients per second, machine."""
  median = statistics.median(seconds)
  case = {
    'benchmark': 'peers',
    'side': side,
    'workload': workload,
    'clients': clients,
    'min_seconds': min(seconds),
    'median_seconds': median,
    'clients_per_second': clients / median,
    **facts,
    'cores': CORES.value,
    'load_average': os.getloadavg()[0],
    'python': platform.python_version(),
    'date': datetime.date.today().isoformat(),
  }
  print(json.dumps(case), flush=True)


def emit_setup(side: str, setup: Setup, seconds: list[float], **facts) -> None:
  """Prints `emit`'s line for one of the public set-ups."""
  steps = {'local_steps': setup.steps, 'batch': setup.batch}
  emit(side, SETUP.value, setup.cohort, seconds, **steps, **facts)
