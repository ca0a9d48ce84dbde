"""The columns of the tables: what a run's records say, as one number each.

F1 is read off between evaluations by linear interpolation, so that what is
compared does not depend on how often a run was evaluated. **Ours.**
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
  """Holds one finished run.

  Attributes:
    label: what is compared.
    seed: of the run, or its fold.
    summary: its `summary.json`.
    metrics: the lines of its `metrics.jsonl`.
    repeat: its seed, where `seed` is a fold that is run with several.
  """

  label: str
  seed: int
  summary: dict
  metrics: list[dict]
  repeat: int = 0

  @property
  def pair(self) -> tuple[int, int]:
    """The fold and seed by which runs of different labels are paired."""
    return self.seed, self.repeat


class Ended(float):
  """Holds the last F1 of a run that was over before the cost asked for."""


# Run and the baseline's of the same pair, if there is one -> number, if any.
Value = Callable[[Run, Run | None], float | None]
MEAN, MEDIAN, HELD = 'mean', 'median', 'held'


class Column(NamedTuple):
  """Describes a column of the table.

  Attributes:
    name: in `table.csv`.
    title: for people, unit included.
    value: of a run.
    digits: behind the point; None for three significant ones.
    kind: `MEAN`; `MEDIAN` over the runs that have a number, told with how many
      these are, where the others would have a larger one; `HELD`, a mean in
      which some numbers may be `Ended`.
  """

  name: str
  title: str
  value: Value
  digits: int | None = 1
  kind: str = MEAN


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


def is_number(value: Any) -> bool:
  """Tells numbers from what else a record holds."""
  return isinstance(value, int | float) and not isinstance(value, bool)


def curve(run: Run, x: str, y: str) -> tuple[list[float], list[float]]:
  """Takes two fields of the evaluations that have both.

  Args:
    run: finished.
    x: a field that never falls, such as round.
    y: another.
  """
  found = [
    (row[x], row[y])
    for row in run.metrics
    if is_number(row.get(x)) and is_number(row.get(y))
  ]
  return [one for one, _ in found], [other for _, other in found]


def cost_at(run: Run, cost: str, rounds: int) -> float | None:
  """Finds what a run has spent after some rounds.

  Args:
    run: finished.
    cost: sim_seconds or joules.
    rounds: between evaluations, too.

  Returns:
    Seconds or joules; None where the run has fewer rounds or no such cost.
  """
  at, spent = curve(run, 'round', cost)
  if not at or not at[0] <= rounds <= at[-1]:
    return None
  return float(np.interp(rounds, at, spent))


def f1_at(run: Run, cost: str, spent: float) -> float | None:
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
  if not at or spent < at[0]:
    return None
  if spent > at[-1] and not math.isclose(spent, at[-1], rel_tol=1e-9):
    return Ended(f1[-1])
  return float(np.interp(spent, at, f1))


def to_target(run: Run, cost: str) -> float | None:
  """Finds what a run has spent when its F1 first crosses the target.

  Args:
    run: finished; the target is the `target_f1` of its summary.
    cost: round, sim_seconds or joules.

  Returns:
    Rounds, seconds or joules; None where it never does.
  """
  target = run.summary.get('target_f1')
  at, f1 = curve(run, cost, 'f1')
  first = next((i for i, v in enumerate(f1) if v >= (target or 0.0)), None)
  if target is None or first is None:
    return None
  if not first:
    return at[0]
  share = (target - f1[first - 1]) / (f1[first] - f1[first - 1])
  return at[first - 1] + share * (at[first] - at[first - 1])


def _last(key: str) -> Value:
  def value(run: Run, base: Run | None) -> float | None:
    del base
    found = run.metrics[-1].get(key) if run.metrics else None
    return None if found is None else 100 * found

  return value


def _over(key: str, take: Callable[[list[float]], float]) -> Value:
  """Builds a statistic of the last numbers by tier or by person, in %."""

  def value(run: Run, base: Run | None) -> float | None:
    del base
    last = run.metrics[-1] if run.metrics else {}
    found = [v for v in (last.get(key) or {}).values() if is_number(v)]
    return 100 * take(found) if found else None

  return value


def _range(values: list[float]) -> float:
  return max(values) - min(values)


def _total(key: str, scale: float = 1.0) -> Value:
  def value(run: Run, base: Run | None) -> float | None:
    del base
    found: Any = run.summary.get(key)
    if isinstance(found, dict):
      numbers = [v for v in found.values() if v is not None]
      found = sum(numbers) if numbers else None
    return None if found is None else found * scale

  return value


def _target(cost: str) -> Value:
  return lambda run, base: to_target(run, cost)


def _equal(cost: str, rounds: int) -> Value:
  """Builds the F1, %, at the cost of the baseline after so many rounds."""

  def value(run: Run, base: Run | None) -> float | None:
    spent = base and cost_at(base, cost, rounds)
    found = None if spent is None else f1_at(run, cost, spent)
    return None if found is None else type(found)(100 * found)

  return value


def _against(value: Value, compare: Callable[[float, float], float]) -> Value:
  """Builds a comparison of a run's number with the baseline's."""

  def both(run: Run, base: Run | None) -> float | None:
    own = value(run, base)
    other = value(base, base) if base else None
    return None if own is None or other is None else compare(own, other)

  return both


def _minus(own: float, base: float) -> float:
  return own - base


def _times(own: float, base: float) -> float:
  """Computes how many times a number fits into the baseline's."""
  return base / own if own else math.nan


def _share(own: float, base: float) -> float:
  return own / base if base else math.nan


_F1S = (
  'f1',
  'f1_global',
  'f1_own',
  'f1_own_rare_owners',
  'f1_all',
  'f1_rare_only',
  'f1_without_rare',
)
ACCURACY = (
  *(Column(name, f'{name} %', _last(name)) for name in _F1S),
  Column('accuracy', 'accuracy %', _last('accuracy')),
  Column('f1_difference', 'f1 − base', _against(_last('f1'), _minus)),
  Column(
    'own_rare_owners_difference',
    'own rare owners − base',
    _against(_last('f1_own_rare_owners'), _minus),
  ),
)
COST = (
  Column(
    'sim_seconds_per_round', 's/round', _total('sim_seconds_per_round'), None
  ),
  Column(
    'speed_up',
    'speed-up',
    _against(_total('sim_seconds_per_round'), _times),
    2,
  ),
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
  Column('joules', 'J', _total('joules_total'), None),
  Column(
    'energy_share', 'J / base', _against(_total('joules_total'), _share), 2
  ),
  Column('megabytes_up', 'MB up', _total('up_bytes_total', 1e-6), None),
  Column('wall_seconds', 'wall s', _total('wall_seconds'), 0),
)
ROUNDS = (10, 30, 100)
EQUAL_COST = tuple(
  Column(
    f'f1_at_{name}_of_{rounds}_rounds',
    f'{unit} of {rounds} rounds',
    _equal(cost, rounds),
    kind=HELD,
  )
  for name, unit, cost in (
    ('seconds', 's', 'sim_seconds'),
    ('joules', 'J', 'joules'),
  )
  for rounds in ROUNDS
)
FAIRNESS = (
  Column('f1_worst_tier', 'worst tier %', _over('f1_by_tier', min)),
  Column('f1_worst_person', 'worst person %', _over('f1_by_person', min)),
  Column(
    'f1_person_range', 'range over persons', _over('f1_by_person', _range)
  ),
)
GROUPS = (
  Group('accuracy', 'Accuracy', ACCURACY),
  Group(
    'cost',
    'Costs',
    COST,
    'Times, joules and bytes are simulated; wall s is the machine’s. To '
    'target: where F1 first crosses it between two evaluations, the median '
    'over the runs that reach it, with how many of all these are.',
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
