"""Runs of a comparison as statistics and tables.

An interval is Student's t at 95 % over seeds. Differences are taken seed by
seed against the baseline of the group, so that what a seed does to all
methods alike cancels. In a sweep over folds the fold takes the seed's place;
folds share training persons, so their interval is too narrow.
"""

import csv
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.box
import rich.console
import rich.table
import scipy.stats

from experiments import naming, records


class Run(NamedTuple):
  """One finished run.

  Attributes:
    label: what is compared.
    seed: of the run, or its fold.
    summary: its `summary.json`.
    metrics: the lines of its `metrics.jsonl`.
  """

  label: str
  seed: int
  summary: dict
  metrics: list[dict]


class Column(NamedTuple):
  """A column of the table.

  Attributes:
    name: in `table.csv`.
    title: for people, unit included.
    value: run -> number, or None where it has none.
    digits: behind the point; None for three significant ones.
    against: (own, baseline's) -> number, for columns that compare.
  """

  name: str
  title: str
  value: Callable[[Run], float | None]
  digits: int | None = 1
  against: Callable[[float, float], float] | None = None


def _last(key: str) -> Callable[[Run], float | None]:
  def value(run: Run) -> float | None:
    found = run.metrics[-1].get(key) if run.metrics else None
    return None if found is None else 100 * found

  return value


def _total(key: str, scale: float = 1.0) -> Callable[[Run], float | None]:
  def value(run: Run) -> float | None:
    found: Any = run.summary.get(key)
    if isinstance(found, dict):
      numbers = [v for v in found.values() if v is not None]
      found = sum(numbers) if numbers else None
    return None if found is None else found * scale

  return value


def _minus(own: float, base: float) -> float:
  return own - base


def _times(own: float, base: float) -> float:
  """How many times less than the baseline."""
  return base / own if own else math.nan


def _share(own: float, base: float) -> float:
  return own / base if base else math.nan


F1S = ('f1', 'f1_all', 'f1_rare_owners', 'f1_rare_only', 'f1_without_rare')
QUALITY = (
  *(Column(name, f'{name} %', _last(name)) for name in F1S),
  Column('accuracy', 'accuracy %', _last('accuracy')),
  Column('f1_difference', 'f1 − base', _last('f1'), against=_minus),
  Column(
    'rare_owners_difference',
    'rare owners − base',
    _last('f1_rare_owners'),
    against=_minus,
  ),
)
COST = (
  Column(
    'sim_seconds_per_round', 's/round', _total('sim_seconds_per_round'), None
  ),
  Column(
    'speed_up',
    'speed-up',
    _total('sim_seconds_per_round'),
    2,
    against=_times,
  ),
  Column(
    'sim_seconds_to_target',
    's to target',
    _total('sim_seconds_to_target'),
    None,
  ),
  Column(
    'speed_up_to_target',
    'speed-up to target',
    _total('sim_seconds_to_target'),
    2,
    against=_times,
  ),
  Column('joules', 'J', _total('joules_total'), None),
  Column('energy_share', 'J / base', _total('joules_total'), 2, against=_share),
  Column('megabytes_up', 'MB up', _total('up_bytes_total', 1e-6), None),
  Column('wall_seconds', 'wall s', _total('wall_seconds'), 0),
)
COLUMNS = QUALITY + COST


class Cell(NamedTuple):
  """A number of the table.

  Attributes:
    mean: over the seeds that have one; NaN where none has.
    half: half the interval; NaN with fewer than two seeds.
    number: seeds that have one.
    total: seeds in all.
  """

  mean: float
  half: float
  number: int
  total: int


def interval(values: Sequence[float], total: int | None = None) -> Cell:
  """Mean and half the 95 % t-interval.

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


def group_of(label: str) -> str:
  """What stands before the last slash of a label.

  >>> group_of('cnn/best/relief'), group_of('relief')
  ('cnn/best', '')
  """
  return label.rpartition('/')[0]


def best_groups(f1: dict[str, float], most: int) -> list[str]:
  """The groups with the largest F1 in them, in their own order.

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
  """The label that `label` is compared with.

  >>> baseline_of('cnn/best/relief', 'fedavg')
  'cnn/best/fedavg'
  """
  group = group_of(label)
  return f'{group}/{baseline}' if group else baseline


def cell(column: Column, runs: Sequence[Run], base: Sequence[Run]) -> Cell:
  """One number of the table, from the runs of a label and of its baseline."""
  own = {run.seed: column.value(run) for run in runs}
  if column.against is None:
    return interval([v for v in own.values() if v is not None], len(runs))
  other = {run.seed: column.value(run) for run in base}
  paired = [
    column.against(mine, theirs)
    for seed, mine in own.items()
    if mine is not None and (theirs := other.get(seed)) is not None
  ]
  return interval([v for v in paired if math.isfinite(v)], len(runs))


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
  """Runs of every label, in the order in which labels come."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.label, []).append(run)
  return found


def table(runs: Iterable[Run], baseline: str) -> dict[str, dict[str, Cell]]:
  """Label -> column name -> cell."""
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


def text(value: Cell, digits: int | None) -> str:
  """A cell to read; how many seeds have it, where not all do.

  >>> text(Cell(1.25, 0.5, 3, 3), 1), text(Cell(1.0, float('nan'), 1, 3), 0)
  ('1.2 ± 0.5', '1 (1/3)')
  """
  if not value.number:
    return '–'
  if digits is None:
    size = math.log10(abs(value.mean)) if value.mean else 0
    digits = max(0, 2 - math.floor(size))
  shown = f'{value.mean:,.{digits}f}'
  if math.isfinite(value.half):
    shown += f' ± {value.half:,.{digits}f}' if value.half else ' ± 0'
  if value.number < value.total:
    shown += f' ({value.number}/{value.total})'
  return shown


def save(
  cells: dict[str, dict[str, Cell]],
  folder: pathlib.Path,
  numbers: str = 'seeds',
  remark: str = '',
) -> None:
  """Writes `table.csv` (numbers) and `table.md` (to read).

  Args:
    cells: from `table`.
    folder: of the comparison.
    numbers: what a mean is over, 'seeds' or 'folds'.
    remark: put above the tables to read.

  Raises:
    OSError: the folder cannot be written.
  """
  with open(folder / 'table.csv', 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    names = [n for c in COLUMNS for n in (c.name, f'{c.name}_half95')]
    writer.writerow(['label', numbers, *names])
    for label, row in cells.items():
      values = []
      for column in COLUMNS:
        values += [row[column.name].mean, row[column.name].half]
      shown = ['' if math.isnan(n) else repr(n) for n in values]
      writer.writerow([label, row[COLUMNS[0].name].total, *shown])
  parts = [remark] if remark else []
  for columns in (QUALITY, COST):
    lines = [
      '| | ' + ' | '.join(c.title for c in columns) + ' |',
      '|---|' + '---:|' * len(columns),
    ]
    for label, row in cells.items():
      shown = [text(row[c.name], c.digits) for c in columns]
      lines.append(f'| {naming.markdown(label)} | ' + ' | '.join(shown) + ' |')
    parts.append('\n'.join(lines))
  note = f'Mean ± half the 95 % interval over {numbers}.'
  (folder / 'table.md').write_text(
    '\n\n'.join([*parts, note]) + '\n', encoding='utf-8'
  )


def show(
  cells: dict[str, dict[str, Cell]],
  console: rich.console.Console,
  baseline: str,
  numbers: str = 'seeds',
) -> None:
  """Prints the tables of every group: first quality, then cost.

  A table too wide for the console goes on in another below it.
  """
  groups: dict[str, list[str]] = {}
  for label in cells:
    groups.setdefault(group_of(label), []).append(label)
  for group, labels in groups.items():
    for name, columns in (('Macro-F1', QUALITY), ('Cost', COST)):
      title = ' '.join(filter(None, [group, name]))
      for some in _fit(columns, labels, cells, console.width):
        console.print(_rich(title, some, labels, cells))
        title += ', continued'
  console.print(
    f'Mean ± half the 95 % t-interval over {numbers}; base is {baseline}, '
    f'paired by {numbers[:-1]}. Times, joules and bytes are simulated; wall s '
    'is this machine.',
    highlight=False,
  )


def short(label: str) -> str:
  """A label without its group."""
  return label.rpartition('/')[2]


def _fit(columns, labels, cells, width: int) -> list[list[Column]]:
  """Splits columns into tables that fit the width."""
  names = 3 + max(len(short(label)) for label in labels)
  tables: list[list[Column]] = [[]]
  used = names
  for column in columns:
    shown = [text(cells[label][column.name], column.digits) for label in labels]
    needed = 3 + max(len(cell) for cell in [column.title, *shown])
    if tables[-1] and used + needed > width:
      tables.append([])
      used = names
    tables[-1].append(column)
    used += needed
  return tables


def _rich(title: str, columns, labels, cells) -> rich.table.Table:
  shown = rich.table.Table(
    title=title, title_justify='left', box=rich.box.SIMPLE_HEAD
  )
  shown.add_column('', no_wrap=True)
  for column in columns:
    shown.add_column(column.title, justify='right', no_wrap=True)
  for label in labels:
    row = [text(cells[label][c.name], c.digits) for c in columns]
    shown.add_row(short(label), *row)
  return shown


def load(folder: pathlib.Path, label: str, seed: int) -> Run | None:
  """A finished run, None where it is not.

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
  return Run(label, seed, summary, metrics)
