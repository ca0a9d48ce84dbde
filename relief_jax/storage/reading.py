"""Reads what runs left: one directory as a `Result`, many as one table."""

import os
import pathlib
from typing import Any

import ml_collections
import pandas as pd

from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.keys import differing, flatten
from relief_jax.runs import simulation as simulation_lib
from relief_jax.runs.model import Model
from relief_jax.storage import axes, directory, identity, records, result
from relief_jax.storage.checkpoints import Checkpoints
from relief_jax.storage.result import Result


def load(folder: str | os.PathLike, data_dir: str | None = None) -> Result:
  """Loads a run from its directory; nothing is written there.

  The model is made when it is asked for: the world is built again from the
  config, since windows are scaled by the training data, and the newest
  checkpoint is read.

  Args:
    folder: the run directory.
    data_dir: where real data is looked for, None to search.

  Raises:
    InputError: no run there, or one of an older version. When the model is
      asked for: no checkpoint (a point of a sweep keeps none without
      `--keep_models`), or data that are not the run's.
  """
  place = pathlib.Path(paths.expand(folder, 'the folder of a run'))
  if not (place / 'metrics.jsonl').exists():
    raise InputError(
      f'no run in {place}',
      'a run directory, with metrics.jsonl',
      'check the path; of many runs below it read_runs makes one table',
    )
  stored = directory.read_config(place)
  config = records.config_from_dict(stored)
  history = records.read_metrics(place / 'metrics.jsonl')
  return Result(
    config,
    history,
    lambda: _summary(place),
    lambda: _model(place, config, history, data_dir),
    place,
  )


def _summary(place: pathlib.Path) -> dict[str, Any]:
  """Reads the summary; a run without one has not come to its end."""
  path = place / 'summary.json'
  if path.exists():
    return records.read_json(path)
  return {'status': records.INTERRUPTED}


def _model(
  place: pathlib.Path,
  config: ml_collections.ConfigDict,
  history: list[dict[str, Any]],
  data_dir: str | None,
) -> Model:
  """Builds the world of a run and puts its newest model there."""
  if not (place / 'checkpoints').is_dir():
    raise _no_model(place)
  config = config.copy_and_resolve_references()
  config.devices, config.layout, config.buckets = 1, 'one', 1
  path = place / identity.FILE
  known = records.read_json(path) if path.exists() else {}
  # Settings of JAX that were in force change no model that is there.
  if found := identity.other(config, data_dir, known | {'settings': {}}):
    raise InputError(
      f'{found}, since {place} was written',
      'the files that the run was made with: its model is built of them',
      'restore them, or load a model that was exported',
    )
  simulation = simulation_lib.Simulation(config, data_dir)
  with Checkpoints(place / 'checkpoints', read_only=True) as checkpoints:
    if checkpoints.newest is None:
      raise _no_model(place)
    snapshot = checkpoints.restore(simulation.snapshot())
  simulation.restore(snapshot, history)
  return simulation.model()


def _no_model(place: pathlib.Path) -> InputError:
  return InputError(
    f'{place} without a checkpoint',
    'a run that kept its model',
    f'run it again: relief run --config={place}/config.json --workdir=NEW, '
    'or a sweep with --keep_models',
  )


def read_runs(folder: str | os.PathLike) -> pd.DataFrame:
  """Reads all runs below a folder into one table, a row per evaluation.

  Of a comparison, a sweep, several of them, or a single run. Columns:

  - `run`: the run directory, from the folder;
  - `label`: what is compared: the same without seed or fold;
  - `status`: as in summary.json, `interrupted` where there is none;
  - `config.KEY`, as on the command line: method, seed, and every key in which
    the runs differ;
  - `round`, and the evaluation's scores and costs as in `Result.metrics`.

  Args:
    folder: that the runs are below.

  Raises:
    InputError: no evaluation of any run, or files that cannot be read.
  """
  place = pathlib.Path(paths.expand(folder, 'the folder of runs'))
  tables, configs = [], []
  for one in directory.run_folders(place):
    found = result.table(records.read_metrics(one / 'metrics.jsonl'))
    if found.empty:
      continue
    path = one.relative_to(place)
    facts = {
      'run': path.as_posix(),
      'label': axes.label_of(path),
      'status': _summary(one)['status'],
    }
    tables.append((facts, found))
    configs.append(flatten(records.read_json(one / 'config.json')))
  if not tables:
    raise InputError(
      f'no run below {place}', 'run directories with evaluations', 'check it'
    )
  first = ('method', 'seed')
  keys = [*first, *(key for key in differing(configs) if key not in first)]
  frames = []
  for (facts, found), config in zip(tables, configs, strict=True):
    values = {**facts, **{f'config.{k}': config.get(k) for k in keys}}
    given = pd.DataFrame([values] * len(found), index=found.index)
    frames.append(pd.concat([given, found], axis=1))
  return pd.concat(frames, ignore_index=True)
