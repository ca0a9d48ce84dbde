"""Describes one run of many, and what it shares with others."""

import json
import pathlib
from typing import NamedTuple


class Job(NamedTuple):
  """Describes one run.

  Attributes:
    label: what is compared.
    seed: of the run.
    workdir: its run directory.
    config: the run's config as plain JSON values.
    data_dir: where real data is looked for.
    values: what the run sets, by its dotted key.
    keep: a finished run leaves a checkpoint (`runner.Member`).
  """

  label: str
  seed: int
  workdir: str
  config: dict
  data_dir: str | None = None
  values: dict = {}
  keep: bool = True

  @property
  def name(self) -> str:
    """A name for people, such as 'relief seed 0'."""
    return f'{self.label} {pathlib.Path(self.workdir).name.replace("_", " ")}'


def over(vary: str) -> str:
  """Names the number in which the runs of a label differ, for people.

  >>> over('seed'), over('data.fold')
  ('seed', 'fold')
  """
  return vary.rpartition('.')[2]


# Keys that change values only and no program.
_VALUES = ('seed', 'hparams', 'deadline', 'target', 'target_f1', 'fold')


def structure(config: dict) -> str:
  """Names a config's structure: runs that may share a program have one name.

  Two with one name may still differ in shapes (persons held out, say): then
  they are compiled apart. Two of different names never share a program.

  Args:
    config: plain JSON values.

  >>> structure({'seed': 1, 'batch': 8}) == structure({'seed': 2, 'batch': 8})
  True
  """
  kept = {k: v for k, v in config.items() if k not in _VALUES}
  if isinstance(kept.get('data'), dict):
    kept['data'] = {k: v for k, v in kept['data'].items() if k not in _VALUES}
  return json.dumps(kept, sort_keys=True)


# Keys that change the training and not the world (`relief_jax.world`).
_TRAINING = (
  'hparams',
  'rounds',
  'rounds_per_call',
  'eval_every',
  'checkpoint_every',
  'target',
  'target_f1',
  'nonfinite',
  'mean',
  'trim',
  'faults',
)


def world(config: dict) -> str:
  """Names a config's world: data, devices and frozen base.

  Args:
    config: plain JSON values.

  >>> world({'seed': 1, 'rounds': 8}) == world({'seed': 1, 'rounds': 9})
  True
  """
  kept = {k: v for k, v in config.items() if k not in _TRAINING}
  return json.dumps(kept, sort_keys=True)
