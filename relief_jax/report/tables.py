"""Runs of a comparison as statistics, a cell per label and column.

An interval is Student's t at 95 % over seeds. Differences are taken seed by
seed against the baseline of the group, so that what a seed does to all
methods alike cancels. In a sweep over folds the fold takes the seed's place;
folds share training persons, so their interval is too narrow. Where every fold
is run with several seeds, these are averaged first: they test the same persons,
and counting them as if they were more folds would feign certainty.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from relief_jax.report.columns import (
  COLUMNS,
  MEDIAN,
  Column,
  Ended,
  Run,
  is_number,
)
from relief_jax.storage import axes, records


class Cell(NamedTuple):
  """Holds a number of the table.

  Attributes:
    mean: over the seeds that have one, or the median where its column says so;
      NaN where none has.
    half: half the interval; NaN with fewer than two seeds and of a median.
    number: runs that have one.
    total: runs in all.
    ended: runs whose number is `columns.Ended`.
  """

  mean: float
  half: float
  number: int
  total: int
  ended: int = 0


def interval(values: Sequence[float], total: int | None = None) -> Cell:
  """Computes the mean and half the 95 % t-interval.

  >>> interval([1.0, 2.0, 3.0]).mean
  2.0
  >>> round(interval([1.0, 2.0, 3.0]).half, 3)
  2.484
  """
  count = len(values)
  mean = float(np.mean(values)) if count else math.nan
  half = math.nan
  if count > 1:
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * error
  return Cell(mean, half, count, count if total is None else total)


def averaged(values: Mapping[tuple[int, int], float]) -> list[float]:
  """Averages the seeds of every fold; of runs without folds nothing.

  Args:
    values: by `Run.pair`.

  >>> averaged({(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0})
  [2.0, 5.0]
  """
  folds: dict[int, list[float]] = {}
  for (fold, _), value in values.items():
    folds.setdefault(fold, []).append(value)
  return [math.fsum(own) / len(own) for own in folds.values()]


def mean_runs(runs: Iterable[Run]) -> list[Run]:
  """Averages the seeds of every fold, evaluation by evaluation, for figures.

  Args:
    runs: of any labels. Of those with several seeds in a fold the numbers in
      `metrics` become means, as many as the shortest of them has.
  """
  groups: dict[tuple[str, int], list[Run]] = {}
  for run in runs:
    groups.setdefault((run.label, run.seed), []).append(run)
  found = []
  for first, *others in groups.values():
    rows = [
      {
        key: math.fsum(row[key] for row in some) / len(some)
        for key in some[0]
        if all(is_number(row.get(key)) for row in some)
      }
      for some in zip(
        first.metrics, *(run.metrics for run in others), strict=False
      )
    ]
    found.append(first._replace(metrics=rows) if others else first)
  return found


def group_of(label: str) -> str:
  """Gives the part of a label before its last slash.

  >>> group_of('cnn/best/relief'), group_of('relief')
  ('cnn/best', '')
  """
  return label.rpartition('/')[0]


def best_groups(f1: dict[str, float], most: int) -> list[str]:
  """Selects the groups with the largest F1 in them, in their own order.

  Args:
    f1: of every label.
    most: groups.

  >>> best_groups({'a/x': 1.0, 'b/x': 3.0, 'c/x': 2.0, 'a/y': 4.0}, 2)
  ['a', 'b']
  """
  best: dict[str, float] = {}
  for label, value in f1.items():
    group = group_of(label)
    best[group] = max(best.get(group, value), value)
  kept = sorted(best, key=lambda group: -best[group])[:most]
  return [group for group in best if group in kept]


def baseline_of(label: str, baseline: str) -> str:
  """Gives the label that `label` is compared with.

  >>> baseline_of('cnn/best/relief', 'fedavg')
  'cnn/best/fedavg'
  """
  group = group_of(label)
  return f'{group}/{baseline}' if group else baseline


def cell(column: Column, runs: Sequence[Run], base: Sequence[Run]) -> Cell:
  """Computes a cell from the runs of a label and of its baseline."""
  other = {run.pair: run for run in base}
  values: dict[tuple[int, int], float] = {}
  for run in runs:
    value = column.value(run, other.get(run.pair))
    if value is not None and math.isfinite(value):
      values[run.pair] = value
  if column.kind == MEDIAN:
    middle = float(np.median([*values.values()])) if values else math.nan
    return Cell(middle, math.nan, len(values), len(runs))
  ended = sum(isinstance(value, Ended) for value in values.values())
  found = interval(averaged(values))
  return found._replace(number=len(values), total=len(runs), ended=ended)


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
  """Groups the runs by label, in the order in which labels come."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.label, []).append(run)
  return found


def data_sets(runs: Iterable[Run]) -> str:
  """Joins the titles of the data sets that runs are on, with their limits."""
  titles = {run.summary.get('dataset') for run in runs}
  return '; '.join(sorted(str(title) for title in titles if title))


def table(runs: Iterable[Run], baseline: str) -> dict[str, dict[str, Cell]]:
  """Computes the table: label -> column name -> cell."""
  labels = by_label(runs)
  return {
    label: {
      column.name: cell(
        column, own, labels.get(baseline_of(label, baseline), [])
      )
      for column in COLUMNS
    }
    for label, own in labels.items()
  }


def short(label: str) -> str:
  """Gives a label without its group."""
  return label.rpartition('/')[2]


def load(folder: pathlib.Path, label: str, seed: int) -> Run | None:
  """Reads a finished run, None where it is not finished.

  Args:
    folder: its run directory.
    label: what is compared.
    seed: of the run, or its fold; a seed within the fold is in the folder's
      name.

  Raises:
    InputError: a file of the run that cannot be read.
  """
  path = folder / 'summary.json'
  if not path.exists():
    return None
  summary = records.read_json(path)
  if summary.get('status') != records.COMPLETE:
    return None
  metrics = records.read_metrics(folder / 'metrics.jsonl')
  _, repeat = axes.numbers_of(folder.name) or (seed, 0)
  return Run(label, seed, summary, metrics, repeat)
