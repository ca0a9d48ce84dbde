"""The columns of the tables: what a run's records say, as one number each.

F1 is read off between evaluations by linear interpolation, so that what is
compared does not depend on how often a run was evaluated. Scores are shares
from 0 to 1 here and in files, percent in what people read. **Ours.**
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from relief_jax.report import frame as frames
from relief_jax.report import labels
from relief_jax.scoring import metrics

# A run: rounds x metrics, of `frame.histories`.
History: TypeAlias = pd.DataFrame
# Run and the baseline's of the same pair, if there is one -> number, if any.
Value = Callable[[History, History | None], float | None]
MEAN, MEDIAN, HELD = 'mean', 'median', 'held'
PERCENT = 100.0


class Ended(float):
  """Holds the last F1 of a run that was over before the cost asked for."""


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


def curve(run: History, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
  """Takes two fields of the evaluations that have both.

  Args:
    run: finished.
    x: a field that never falls, such as round.
    y: another.
  """
  run = run.assign(round=run.index)
  if not {x, y} <= set(run):
    return np.zeros(0), np.zeros(0)
  at, value = run[[x, y]].dropna().to_numpy(float).T
  return at, value


def cost_at(run: History, cost: str, rounds: int) -> float | None:
  """Finds what a run has spent after some rounds.

  Args:
    run: finished.
    cost: sim_seconds or joules.
    rounds: between evaluations, too.

  Returns:
    Seconds or joules; None where the run has fewer rounds or no such cost.
  """
  at, spent = curve(run, 'round', cost)
  if not len(at) or not at[0] <= rounds <= at[-1]:
    return None
  return float(np.interp(rounds, at, spent))


def f1_at(run: History, cost: str, spent: float) -> float | None:
  """Finds the F1 of a run when it has spent so much.

  Args:
    run: finished.
    cost: sim_seconds or joules.
    spent: seconds or joules.

  Returns:
    F1; where the run was over before, its last one, `Ended`: the model then at
    hand could be used, and what more rounds would have brought is not known.
    None where the run has no such cost.
  """
  at, f1 = curve(run, cost, 'f1')
  if not len(at) or spent < at[0]:
    return None
  if spent > at[-1] and not math.isclose(spent, at[-1], rel_tol=1e-9):
    return Ended(f1[-1])
  return float(np.interp(spent, at, f1))


def to_target(run: History, cost: str) -> float | None:
  """Finds what a run has spent when its score first crosses the target.

  `target_f1` of an F1, `target` of another main metric.

  Args:
    run: finished.
    cost: round, sim_seconds or joules.

  Returns:
    Rounds, seconds or joules; None where it never does.
  """
  metric = next((m for m in metrics.MAIN.values() if m.name in run), metrics.F1)
  target = last(run, metrics.target_key(metric))
  at, score = curve(run, cost, metric.name)
  if target is None or not metric.reached(score, target).any():
    return None
  first = int(metric.reached(score, target).argmax())
  if not first:
    return float(at[0])
  share = (target - score[first - 1]) / (score[first] - score[first - 1])
  return float(at[first - 1] + share * (at[first] - at[first - 1]))


def last(run: History, metric: str) -> float | None:
  """Takes the last number of a metric; None where there is none."""
  found = run[metric].dropna() if metric in run else pd.Series()
  return float(found.iloc[-1]) if len(found) else None


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


def _over(metric: str, take: Callable[[pd.Series], float]) -> Value:
  """Builds a statistic of the last numbers by tier or by person."""

  def value(run: History, base: History | None) -> float | None:
    del base
    own = run[[name for name in run if name.startswith(f'{metric}.')]]
    found = own.iloc[-1].dropna()
    return float(take(found)) if len(found) else None

  return value


def _target(cost: str) -> Value:
  return lambda run, base: to_target(run, cost)


def _equal(cost: str, rounds: int) -> Value:
  """Builds the F1 at the cost of the baseline after so many rounds."""

  def value(run: History, base: History | None) -> float | None:
    spent = None if base is None else cost_at(base, cost, rounds)
    return None if spent is None else f1_at(run, cost, spent)

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


def _score(name: str, title: str, value: Value, kind: str = MEAN) -> Column:
  return Column(name, title, value, 1, kind, PERCENT)


_SCORES = (
  'f1',
  'f1_global',
  'f1_own',
  'f1_own_rare_owners',
  'f1_all',
  'f1_rare_only',
  'f1_without_rare',
  'accuracy',
)
_OTHERS = [metric for metric in metrics.OF.values() if metric is not metrics.F1]
_ENDS = ('', '_global', '_own', '_own_rare_owners', '_all', '_rare_only')
ACCURACY = (
  *(_score(name, f'{name} %', _last(name)) for name in _SCORES),
  Column('test_loss', 'test loss, nats', _last('test_loss'), 3),
  _score('f1_difference', 'f1 − base', _against(_last('f1'), _minus)),
  _score(
    'own_rare_owners_difference',
    'own rare owners − base',
    _against(_last('f1_own_rare_owners'), _minus),
  ),
  *(
    Column(
      metric.name + end, metric.short + end, _last(metric.name + end), None
    )
    for metric in _OTHERS
    for end in _ENDS
  ),
  *(
    Column(
      f'{metric.name}_difference',
      f'{metric.short} − base',
      _against(_last(metric.name), _minus),
      None,
    )
    for metric in _OTHERS
  ),
  _score('token_accuracy', 'token accuracy %', _last('token_accuracy')),
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
  Column('wall_seconds', 'wall s', _last('wall_seconds'), 0),
)
ROUNDS = (10, 30, 100)
EQUAL_COST = tuple(
  _score(
    f'f1_at_{name}_of_{rounds}_rounds',
    f'{unit} of {rounds} rounds',
    _equal(cost, rounds),
    HELD,
  )
  for name, unit, cost in (
    ('seconds', 's', 'sim_seconds'),
    ('joules', 'J', 'joules'),
  )
  for rounds in ROUNDS
)
FAIRNESS = (
  _score('f1_worst_tier', 'worst tier %', _over('f1_by_tier', pd.Series.min)),
  _score(
    'f1_worst_person', 'worst person %', _over('f1_by_person', pd.Series.min)
  ),
  _score(
    'f1_person_range', 'range over persons', _over('f1_by_person', np.ptp)
  ),
)
GROUPS = (
  Group('accuracy', 'Accuracy', ACCURACY),
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
    'F1 % at equal cost',
    EQUAL_COST,
    'F1 when a run has spent what the base spends in so many rounds, '
    'interpolated between evaluations. *: some runs, n/N where not all, were '
    'over before; there the last F1 stands, more rounds are not made up.',
  ),
  Group(
    'persons',
    'Tiers and persons',
    FAIRNESS,
    'Of the last macro-F1 of each tier and of each person tested on; the range '
    'is the best person’s minus the worst’s, in percentage points.',
  ),
)
COLUMNS = tuple(column for group in GROUPS for column in group.columns)


def numbers(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
  """Computes every column of every run, a row per number that there is.

  Args:
    frame: of `frame.tidy`.
    baseline: label within a group that the others are compared with.

  Returns:
    `label`, `seed`, `fold`, `metric` (the column), `value` and `ended`.
  """
  runs = frames.histories(frame)
  rows = []
  for name, run in runs.items():
    base = runs.get((labels.baseline_of(name[0], baseline), *name[1:]))
    for column in COLUMNS:
      value = column.value(run, base)
      if value is not None and math.isfinite(value):
        ended = isinstance(value, Ended)
        rows.append((*name, column.name, float(value), ended))
  return pd.DataFrame(rows, columns=[*frames.RUN, 'metric', 'value', 'ended'])
