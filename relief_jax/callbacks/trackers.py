"""Sends records to Weights & Biases or MLflow, which are optional extras."""

import importlib
import time
from types import ModuleType
from typing import Any

from relief_jax.errors import InputError
from relief_jax.keys import flatten
from relief_jax.storage import board, records
from relief_jax.storage.callback import Callback
from relief_jax.storage.result import Result

_LONGEST = 500  # characters of a parameter that every store of MLflow takes


def _optional(name: str, extra: str) -> ModuleType:
  """Imports a package of an extra.

  Raises:
    InputError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != name:  # it is there and lacks something else
      raise
    raise InputError(
      f'no package {name}',
      f'the extra {extra!r} of relief_jax',
      f"pip install 'relief_jax[{extra}]'",
    ) from None


def _params(run: Result) -> dict[str, Any]:
  """Gives the config as flat plain values."""
  return flatten(records.clean(run.config))


class WandB(Callback):
  """Sends config, records and summary to Weights & Biases.

  A run that is resumed begins a new one there, unless `id` and
  `resume='allow'` are given.

  Args:
    project: of the run.
    **options: of `wandb.init`, such as `name`, `group`, or `mode='offline'`,
      which writes below `dir` and needs no account.

  Raises:
    InputError: the package is not installed.
  """

  def __init__(self, project: str, **options: Any):
    self._wandb = _optional('wandb', 'wandb')
    self._options = {'project': project, **options}

  def on_start(self, run: Result) -> None:
    """Begins the run there."""
    self._run = self._wandb.init(config=_params(run), **self._options)

  def on_evaluation(self, run: Result, record: dict[str, Any]) -> None:
    """Logs the numbers of the record under the round."""
    del run
    self._run.log(board.scalars(record), step=record['round'])

  def on_end(self, run: Result) -> None:
    """Writes status and totals, and ends the run there."""
    self._run.summary.update(_outcome(run))
    self._run.finish(exit_code=int(run.summary['status'] == records.DIVERGED))


class MLflow(Callback):
  """Sends config, records and summary to MLflow.

  Args:
    experiment: its name; it is made where it is not there.
    tracking_uri: of the server or store, None for MLflow's own choice.
    run_name: of the run.

  Raises:
    InputError: the package is not installed.
  """

  def __init__(
    self,
    experiment: str = 'relief_jax',
    tracking_uri: str | None = None,
    run_name: str | None = None,
  ):
    # Not the module's functions, which hold one active run per process.
    self._mlflow = _optional('mlflow', 'mlflow')
    self._client = self._mlflow.MlflowClient(tracking_uri)
    self._experiment, self._name = experiment, run_name

  def on_start(self, run: Result) -> None:
    """Begins the run there."""
    client, entities = self._client, self._mlflow.entities
    known = client.get_experiment_by_name(self._experiment)
    number = (
      known.experiment_id
      if known
      else client.create_experiment(self._experiment)
    )
    self._id = client.create_run(number, run_name=self._name).info.run_id
    values = [
      entities.Param(key, str(value)[:_LONGEST])
      for key, value in _params(run).items()
    ]
    client.log_batch(self._id, params=values)

  def on_evaluation(self, run: Result, record: dict[str, Any]) -> None:
    """Logs the numbers of the record under the round."""
    del run
    now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
    values = [
      metric(key, value, now, record['round'])
      for key, value in board.scalars(record).items()
    ]
    self._client.log_batch(self._id, metrics=values)

  def on_end(self, run: Result) -> None:
    """Writes status and totals as tags, and ends the run there."""
    for key, value in _outcome(run).items():
      self._client.set_tag(self._id, key, str(value))
    failed = run.summary['status'] == records.DIVERGED
    self._client.set_terminated(self._id, 'FAILED' if failed else 'FINISHED')


def _outcome(run: Result) -> dict[str, Any]:
  """Picks what tells how a run ended."""
  keys = ('status', 'reason', 'stop_reason', 'rounds_to_target')
  return {k: run.summary[k] for k in keys if run.summary.get(k) is not None}
