"""The one table that tables and figures read: all numbers of all runs.

A row per number that a run recorded: `label`, `seed`, `fold`, `round`, `metric`
and `value`. Numbers by tier, class or group are metrics with a dot, such as
`f1_by_tier.low`. Scores are shares from 0 to 1.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

RUN = ['label', 'seed', 'fold']
COLUMNS = [*RUN, 'round', 'metric', 'value']


def tidy(runs: Iterable[Any]) -> pd.DataFrame:
  """Builds the table.

  Args:
    runs: `gather.Run`s.

  Returns:
    `COLUMNS`; the `target_f1` or `target` of a run stands at its last round.
  """
  rows = []
  for run in runs:
    name = run.label, run.seed, run.fold
    for record in run.metrics:
      at = record['round']
      rows += [(*name, at, *found) for found in _numbers(record, '')]
    for key in ('target_f1', 'target'):
      target = run.summary.get(key)
      if run.metrics and is_number(target):
        rows.append((*name, run.metrics[-1]['round'], key, target))
  found = pd.DataFrame(rows, columns=COLUMNS)
  return found.drop_duplicates(COLUMNS[:-1], keep='last')


def is_number(value: Any) -> bool:
  """Tells numbers from what else a record holds."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values, at: str) -> Iterator[tuple[str, float]]:
  items = values.items() if isinstance(values, dict) else enumerate(values)
  for key, value in items:
    if isinstance(value, dict | list):
      yield from _numbers(value, f'{at}{key}.')
    elif is_number(value) and at + str(key) != 'round':
      yield f'{at}{key}', float(value)


def histories(frame: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
  """Splits the table by run: (label, seed, fold) -> rounds x metrics."""
  return {
    name: own.pivot(index='round', columns='metric', values='value')
    for name, own in frame.groupby(RUN, sort=False)
  }


def last(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
  """Takes the numbers of the last evaluation that has them, a row per run.

  Args:
    frame: tidy.
    metric: its name, or its beginning up to the dot.

  Returns:
    `COLUMNS` and `part`, what stands behind the dot.
  """
  some = frame[
    frame.metric.str.startswith(metric)
    if metric.endswith('.')
    else frame.metric == metric
  ]
  some = some.assign(part=some.metric.str.removeprefix(metric))
  return some.drop_duplicates([*RUN, 'metric'], keep='last')


def curves(
  frame: pd.DataFrame, label: str, axis: str, metric: str = 'f1'
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Reads the curves of a label's runs off at their mean x.

  Args:
    frame: tidy.
    label: what is compared.
    axis: 'round' or a cost; runs differ in their costs, so F1 is read off at
      the mean ones, by linear interpolation.
    metric: on the y axis.

  Returns:
    x [evaluations], y [runs, evaluations] and the fold of each run; as many
    evaluations as the shortest run has.
  """
  found, folds = [], []
  for (_, _, fold), own in histories(frame[frame.label == label]).items():
    own = own.reset_index()
    if {axis, metric} <= set(own):
      found.append(own[[axis, metric]].dropna().to_numpy())
      folds.append(fold)
  length = min(map(len, found), default=0)
  if not length:
    return np.zeros(0), np.zeros((0, 0)), np.zeros(0)
  points = np.stack([one[:length] for one in found])
  x, y = points[:, :, 0].mean(0), points[:, :, 1]
  if (np.diff(points[:, :, 0]) > 0).all():  # else a cost that stands still
    y = np.stack([np.interp(x, *one.T) for one in points])
  return x, y, np.array(folds)
