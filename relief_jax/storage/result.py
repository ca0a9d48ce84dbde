"""What came out of a run, or has so far: read from its directory or its end."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import pandas as pd

from relief_jax.runs.model import Model
from relief_jax.storage import model_file
from relief_jax.types import PyTree


class Result:
  """Holds what came out of a run; the model is read when it is asked for.

  Args:
    config: the resolved config.
    history: one record per evaluation, the first of round 0.
    summary: gives the content of summary.json.
    model: gives the model.
    folder: the run directory, None where nothing is written.

  Attributes:
    config: the resolved config.
    history: one record per evaluation, the first of round 0: scores, simulated
      costs so far, and `loss`, `divergence`, `trained_share` since the last.
    folder: the run directory, None where nothing is written.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    history: list[dict[str, Any]],
    summary: Callable[[], dict[str, Any]],
    model: Callable[[], Model],
    folder: pathlib.Path | None = None,
  ):
    self.config, self.history, self.folder = config, history, folder
    self._summary, self._model = summary, model

  def __repr__(self) -> str:
    place = '' if self.folder is None else f' in {self.folder}'
    at = f'round {self.history[-1]["round"]}' if self.history else 'its start'
    return f'<{self.config.method}{place}, at {at}>'

  @functools.cached_property
  def summary(self) -> dict[str, Any]:
    """Status, totals and speed, as in summary.json."""
    return self._summary()

  @functools.cached_property
  def model(self) -> Model:
    """The model at the end, or of the newest checkpoint.

    Raises:
      InputError: a directory without a checkpoint, or other data than the
        run's; see `reading.load`.
    """
    return self._model()

  @functools.cached_property
  def metrics(self) -> pd.DataFrame:
    """The history as a table, a row per evaluation, indexed by `round`.

    A score by tier, class, group or subset of sensors has a column for
    each, named `f1_by_tier.low`, `f1_by_class.walking`, `trained_share.shared`.

    >>> last = {'round': 5, 'f1': 0.5, 'f1_by_tier': {'low': 0.4}}
    >>> history = [{'round': 0, 'f1': 0.1}, last]
    >>> result = Result(ml_collections.ConfigDict(), history, dict, dict)
    >>> result.metrics.loc[5].to_dict()
    {'f1': 0.5, 'f1_by_tier.low': 0.4}
    """
    return table(self.history).set_index('round')

  @property
  def params(self) -> PyTree:
    """P of numpy arrays; [N, *P] for a personal method."""
    return self.model.params

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes, by number."""
    known = self.summary.get('world', {}).get('classes')  # not in older runs
    return self.model.classes if known is None else tuple(known)

  def predict(
    self,
    x: Mapping[str, np.ndarray],
    sensors: Sequence[str] | None = None,
    client: int | None = None,
  ) -> np.ndarray:
    """Predicts the class of windows, [B] int numbers into `classes`.

    Args: as `Model.scores`.

    Raises:
      InputError: sensors, shapes or a client that the model does not have.
    """
    return self.model.predict(x, sensors, client)

  def export(self, path: str | os.PathLike) -> None:
    """Writes the model as a .safetensors file, for `load_model`.

    Args:
      path: of the file.

    Raises:
      InputError: another ending.
      StorageError: the folder cannot be written.
    """
    model_file.export(self.model, path)


def table(history: Sequence[dict[str, Any]]) -> pd.DataFrame:
  """Builds a table of evaluations, a row each; nested scores are flattened.

  Args:
    history: records with a `round`.
  """
  rows = [
    {
      k: dict(enumerate(v)) if isinstance(v, list) else v
      for k, v in record.items()
    }
    for record in history
  ]
  return pd.json_normalize(rows) if rows else pd.DataFrame({'round': []})
