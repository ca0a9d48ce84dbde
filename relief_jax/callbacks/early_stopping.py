"""Stops a run that gets no better."""

from typing import Any

from relief_jax.errors import InputError
from relief_jax.scoring import metrics
from relief_jax.storage.callback import Callback
from relief_jax.storage.result import Result

MODES = ('max', 'min')


class EarlyStopping(Callback):
  """Stops a run whose metric has not improved for some evaluations.

  Decided by the run's records alone, so that a run that was interrupted and
  resumed stops where it would have. summary.json has `status` 'stopped' and
  the reason; `resume` goes on.

  Choose the metric with care: `f1` is that of the test persons, and a run that
  stops by it has seen them. `f1_validation` is of persons who are there to
  choose by (`config.data.validation_subjects`).

  Args:
    metric: its key in the record; a nested one with dots, `f1_by_tier.low`.
    patience: evaluations without improvement, at least 1.
    min_delta: what counts as one is more than this.
    mode: 'max' where larger is better, else 'min'; '': by the metric, 'min' of
      a perplexity, an RMSE and a loss.

  Raises:
    InputError: a value that means nothing.
  """

  def __init__(
    self,
    metric: str = 'f1_validation',
    patience: int = 3,
    min_delta: float = 0.0,
    mode: str = '',
  ):
    mode = mode or ('max' if metrics.largest(metric) else 'min')
    if mode not in MODES:
      raise InputError(f'mode={mode!r}', "'max' or 'min'", 'correct it')
    if patience < 1 or not min_delta >= 0:
      raise InputError(
        f'patience={patience}, min_delta={min_delta}',
        'a patience of at least 1 and a min_delta of at least 0',
        'correct them',
      )
    self._metric, self._patience = metric, patience
    self._min_delta, self._sign = min_delta, 1 if mode == 'max' else -1

  def on_evaluation(self, run: Result, record: dict[str, Any]) -> str | None:
    """Asks to stop where the last `patience` evaluations were no better.

    Raises:
      InputError: no evaluation has such a metric.
    """
    values = [_value(row, self._metric) for row in run.history]
    best, since = None, 0
    for value in values:
      if value is None:
        since += 1
      elif best is None or self._sign * (value - best) > self._min_delta:
        best, since = value, 0
      else:
        since += 1
    if best is None:
      main = metrics.of(record).name
      raise InputError(
        f'no {self._metric!r} to stop by in round {record["round"]}',
        f'a metric of every evaluation, such as {main}',
        f'name another; {main}_validation needs '
        '--config.data.validation_subjects',
      )
    if since < self._patience:
      return None
    return (
      f'{self._metric} no better than {best:.4g} in {since} evaluations'
      + (f' by more than {self._min_delta:g}' if self._min_delta else '')
    )


def _value(record: dict[str, Any], key: str) -> float | None:
  """Looks up a number, None where the record has none."""
  found: Any = record
  for part in key.split('.') if key not in record else [key]:
    if not isinstance(found, dict):
      return None
    found = found.get(part)
  return found if isinstance(found, int | float) else None
