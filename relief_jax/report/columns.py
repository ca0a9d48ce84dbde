"""The columns of the tables: what a run's records say, as one number each.

They follow the metric that runs are compared by. Shares are from 0 to 1 here
and in files, percent in what people read. **Ours.**
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from relief_jax.report import frame as frames
from relief_jax.report import labels
from relief_jax.report.readings import (
  Ended,
  History,
  cost_at,
  last,
  score_at,
  to_target,
)
from relief_jax.scoring import metrics
from relief_jax.scoring.metrics import Metric

# Run and the baseline's of the same pair, if there is one -> number, if any.
Value = Callable[[History, History | None], float | None]
MEAN, MEDIAN, HELD = 'mean', 'median', 'held'


def elsewhere(run: History, base: History | None) -> float | None:
  """Stands for a value that is not computed from a history."""
  del run, base
  return None


class Column(NamedTuple):
  """Describes a column of a table.

  Attributes:
    name: in files.
    title: for people, unit included.
    value: of a run, in the unit of files.
    digits: behind the point; None for three significant ones.
    kind: `MEAN`; `MEDIAN` over the runs that have a number, told with how many
      these are, where the others would have a larger one; `HELD`, a mean in
      which some numbers may be `Ended`.
    scale: from the number to what people read.
  """

  name: str
  title: str
  value: Value = elsewhere
  digits: int | None = 1
  kind: str = MEAN
  scale: float = 1.0


class Group(NamedTuple):
  """Describes the columns of one table.

  Attributes:
    name: of its files.
    title: its heading.
    columns: of the table.
    note: below it.
  """

  name: str
  title: str
  columns: tuple[Column, ...]
  note: str = ''


def _last(metric: str, scale: float = 1.0) -> Value:
  def value(run: History, base: History | None) -> float | None:
    del base
    found = last(run, metric)
    return None if found is None else found * scale

  return value


def _per_round(run: History, base: History | None) -> float | None:
  del base
  seconds, rounds = last(run, 'sim_seconds'), run.index[-1]
  return None if seconds is None or not rounds else seconds / rounds


def _over(field: str, take: Callable[[pd.Series], float]) -> Value:
  """Builds a statistic of the last numbers by tier or by person."""

  def value(run: History, base: History | None) -> float | None:
    del base
    own = run[[name for name in run if name.startswith(f'{field}.')]]
    found = own.iloc[-1].dropna()
    return float(take(found)) if len(found) else None

  return value


def _target(cost: str) -> Value:
  return lambda run, base: to_target(run, cost)


def _equal(cost: str, rounds: int, metric: Metric) -> Value:
  """Builds the score at the cost of the baseline after so many rounds."""

  def value(run: History, base: History | None) -> float | None:
    spent = None if base is None else cost_at(base, cost, rounds)
    if spent is None:
      return None
    return score_at(run, cost, spent, metric.name)

  return value


def _against(value: Value, compare: Callable[[float, float], float]) -> Value:
  """Builds a comparison of a run's number with the baseline's."""

  def both(run: History, base: History | None) -> float | None:
    own = value(run, base)
    other = None if base is None else value(base, base)
    return None if own is None or other is None else compare(own, other)

  return both


def _minus(own: float, base: float) -> float:
  return own - base


def _times(own: float, base: float) -> float:
  """Computes how many times a number fits into the baseline's."""
  return base / own if own else math.nan


def _share(own: float, base: float) -> float:
  return own / base if base else math.nan


def _score(
  metric: Metric, end: str, title: str, value: Value, kind: str = MEAN
) -> Column:
  """Builds a column of a metric, in percent where people read it so.

  Args:
    metric: whose number it is.
    end: behind the metric's name, of the column's name.
    title: for people.
    value: of a run.
    kind: as of `Column`.
  """
  digits = 1 if metric.percent else None
  return Column(metric.name + end, title, value, digits, kind, metric.scale)


def _unit(metric: Metric) -> str:
  return ' %' if metric.percent else ''


_ENDS = (
  '',
  '_global',
  '_own',
  '_own_rare_owners',
  '_all',
  '_rare_only',
  '_without_rare',
)


def _scores(metric: Metric) -> tuple[Column, ...]:
  """Builds the last scores: the metric's, and the one beside it or before."""
  name = metric.name
  both = metrics.main_of(metric).pair
  return (
    *(
      _score(metric, end, f'{name}{end}{_unit(metric)}', _last(name + end))
      for end in _ENDS
    ),
    *(
      _score(one, '', f'{one.title}{_unit(one)}', _last(one.name))
      for one in both
      if one is not metric
    ),
    Column('test_loss', 'test loss, nats', _last('test_loss'), 3),
    *(
      _score(
        metric,
        f'{end}_difference',
        f'{name}{end} − base',
        _against(_last(name + end), _minus),
      )
      for end in ('', '_own_rare_owners')
    ),
  )


_joules = _last('joules')
COST = (
  Column('sim_seconds_per_round', 's/round', _per_round, None),
  Column('speed_up', 'speed-up', _against(_per_round, _times), 2),
  Column(
    'rounds_to_target', 'rounds to target', _target('round'), None, MEDIAN
  ),
  Column(
    'sim_seconds_to_target',
    's to target',
    _target('sim_seconds'),
    None,
    MEDIAN,
  ),
  Column(
    'speed_up_to_target',
    'speed-up to target',
    _against(_target('sim_seconds'), _times),
    2,
    MEDIAN,
  ),
  Column('joules_to_target', 'J to target', _target('joules'), None, MEDIAN),
  Column('joules', 'J', _joules, None),
  Column('energy_share', 'J / base', _against(_joules, _share), 2),
  Column('megabytes_up', 'MB up', _last('up_bytes', 1e-6), None),
  Column('epsilon', 'epsilon', _last('epsilon'), None),
  Column('wall_seconds', 'wall s', _last('wall_seconds'), 0),
)
ROUNDS = (10, 30, 100)


def _equal_cost(metric: Metric) -> tuple[Column, ...]:
  """Builds the scores at equal cost."""
  return tuple(
    _score(
      metric,
      f'_at_{name}_of_{rounds}_rounds',
      f'{unit} of {rounds} rounds',
      _equal(cost, rounds, metric),
      HELD,
    )
    for name, unit, cost in (
      ('seconds', 's', 'sim_seconds'),
      ('joules', 'J', 'joules'),
    )
    for rounds in ROUNDS
  )


def _fairness(metric: Metric) -> tuple[Column, ...]:
  """Builds what the worst tier and person get."""
  name, unit = metric.name, _unit(metric)
  of_tiers, of_persons = f'{name}_by_tier', f'{name}_by_person'
  return (
    _score(
      metric, '_worst_tier', f'worst tier{unit}', _over(of_tiers, metric.worst)
    ),
    _score(
      metric,
      '_worst_person',
      f'worst person{unit}',
      _over(of_persons, metric.worst),
    ),
    _score(
      metric, '_person_range', 'range over persons', _over(of_persons, np.ptp)
    ),
  )


def groups(metric: Metric) -> tuple[Group, ...]:
  """Lists the tables of runs.

  Args:
    metric: that they are compared by.
  """
  points = ', in percentage points' if metric.percent else ''
  return (
    Group('accuracy', 'Scores', _scores(metric)),
    Group(
      'cost',
      'Costs',
      COST,
      'Times, joules and bytes are simulated; wall s is the machine’s. To '
      'target: where the score first crosses it between two evaluations, the '
      'median over the runs that reach it, with how many of all these are.',
    ),
    Group(
      'equal_cost',
      f'{metric.label_short} at equal cost',
      _equal_cost(metric),
      f'{metric.short} when a run has spent what the base spends in so many '
      'rounds, interpolated between evaluations. *: some runs, n/N where not '
      f'all, were over before; there the last {metric.short} stands, more '
      'rounds are not made up.',
    ),
    Group(
      'persons',
      'Tiers and persons',
      _fairness(metric),
      f'Of the last {metric.title} of each tier and of each person tested on; '
      f'the range is from the best person’s to the worst’s{points}.',
    ),
  )


def every(metric: Metric) -> tuple[Column, ...]:
  """Lists the columns of all tables.

  Args:
    metric: as of `groups`.
  """
  return tuple(column for group in groups(metric) for column in group.columns)


def numbers(frame: pd.DataFrame, baseline: str, metric: Metric) -> pd.DataFrame:
  """Computes every column of every run, a row per number that there is.

  Args:
    frame: of `frame.tidy`.
    baseline: label within a group that the others are compared with.
    metric: that runs are compared by.

  Returns:
    `label`, `seed`, `fold`, `metric` (the column), `value` and `ended`.
  """
  runs, some = frames.histories(frame), every(metric)
  rows = []
  for name, run in runs.items():
    base = runs.get((labels.baseline_of(name[0], baseline), *name[1:]))
    for column in some:
      value = column.value(run, base)
      if value is not None and math.isfinite(value):
        ended = isinstance(value, Ended)
        rows.append((*name, column.name, float(value), ended))
  return pd.DataFrame(rows, columns=[*frames.RUN, 'metric', 'value', 'ended'])
