"""Federated systems: one file each, `(Task, Setting) -> Method`.

A few, whose round is no parallel one, give an Algorithm.
"""

from collections.abc import Callable

from relief_jax.algorithms import (
  centralized,
  cohort_mean,
  depthfl,
  elastic_fl,
  fedavg,
  feddrop,
  fedel,
  fedmfs_style,
  fedpmt,
  fedprox,
  fedrolex,
  fiarse,
  flism,
  harmony,
  heterofl,
  local_only,
  pmm,
  qqr_style,
  relief,
  tfedavg,
)
from relief_jax.errors import InputError
from relief_jax.rounds import parallel
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Task

Factory = Callable[[Task, Setting], Method | Algorithm]

ALGORITHMS: dict[str, Factory] = {
  'centralized': centralized.centralized,
  'cohort_mean': cohort_mean.cohort_mean,
  'depthfl': depthfl.depthfl,
  'elastic_fl': elastic_fl.elastic_fl,
  'fedavg': fedavg.fedavg,
  'feddrop': feddrop.feddrop,
  'fedel': fedel.fedel,
  'fedmfs_style': fedmfs_style.fedmfs_style,
  'fedpmt': fedpmt.fedpmt,
  'fedprox': fedprox.fedprox,
  'fedrolex': fedrolex.fedrolex,
  'fiarse': fiarse.fiarse,
  'flism': flism.flism,
  'harmony': harmony.harmony,
  'heterofl': heterofl.heterofl,
  'local_only': local_only.local_only,
  'pmm': pmm.pmm,
  'qqr_style': qqr_style.qqr_style,
  'relief': relief.relief,
  'tfedavg': tfedavg.tfedavg,
}

# What a method does with absent modalities where the config leaves it open:
# the others skip them.
DEFAULT_FILL = {
  'fedavg': 'input',
  'fedprox': 'input',
  'flism': 'input',
  'tfedavg': 'input',
}

# Methods in which a device never runs the encoder of a sensor that it lacks: a
# model that was trained so is not to be tested on filled windows.
SKIPPING = (
  'fedmfs_style',
  'harmony',
  'local_only',
  'pmm',
  'qqr_style',
  'relief',
)

# Methods whose model has an exit behind every layer (`types.Exits`).
EXITS = ('depthfl', 'fedel')

# Methods that choose what to train under `config.deadline`.
BUDGETED = (
  'depthfl',
  'elastic_fl',
  'feddrop',
  'fedel',
  'fedmfs_style',
  'fedpmt',
  'fedrolex',
  'fiarse',
  'heterofl',
  'relief',
)

# Methods that have no rounds on devices: an online world means nothing to them.
STATIC = ('centralized',)


def build(method: str | Factory, task: Task, setting: Setting) -> Algorithm:
  """Builds the round of a method.

  Args:
    method: in `ALGORITHMS`, or a factory like those there.
    task: the model.
    setting: the round.

  Raises:
    InputError: what the method cannot be combined with.
  """
  name = method if isinstance(method, str) else 'the method'
  factory = ALGORITHMS[method] if isinstance(method, str) else method
  found = factory(task, setting)
  if isinstance(found, Algorithm):
    return found
  return parallel.build(task, setting, found, name)


def resolve_fill(method: str, fill: str) -> str:
  """Settles what a method does with absent modalities.

  Args:
    method: in `ALGORITHMS`.
    fill: `input`, `skip`, or '' for the method's own.

  Returns:
    `input` or `skip`.

  Raises:
    InputError: filled inputs for a method that never runs them.
  """
  if fill == 'input' and method in SKIPPING:
    raise InputError(
      f'config.fill is input for {method!r}',
      "'skip': its devices never run the encoder of a sensor that they lack",
      'set --config.fill=skip',
    )
  return fill or DEFAULT_FILL.get(method, 'skip')
