"""Tables of a comparison for people and as CSV: text, files, the terminal."""

import csv
import math
import pathlib
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table

from relief_jax import datasets
from relief_jax.report import tables
from relief_jax.report.columns import COLUMNS, GROUPS, HELD, MEDIAN, Column
from relief_jax.report.tables import Cell
from relief_jax.storage import naming


def text(value: Cell, digits: int | None, counted: bool = False) -> str:
  """Formats a cell, and the number of its runs where not all have it.

  Args:
    value: the cell.
    digits: behind the point; None for three significant ones.
    counted: tells how many runs have it in any case.

  >>> text(Cell(1.25, 0.5, 3, 3), 1), text(Cell(1.0, float('nan'), 1, 3), 0)
  ('1.2 ± 0.5', '1 (1/3)')
  >>> text(Cell(1.2, 0.5, 3, 3, 3), 1), text(Cell(1.2, 0.5, 3, 3, 2), 1)
  ('1.2 ± 0.5 *', '1.2 ± 0.5 *2/3')
  """
  count = f' ({value.number}/{value.total})'
  if not value.number:
    return f'–{count}' if counted else '–'
  if digits is None:
    size = math.log10(abs(value.mean)) if value.mean else 0
    digits = max(0, 2 - math.floor(size))
  shown = f'{value.mean:,.{digits}f}'
  if math.isfinite(value.half):
    shown += f' ± {value.half:,.{digits}f}' if value.half else ' ± 0'
  if counted or value.number < value.total:
    shown += count
  if value.ended:
    shown += ' *'
    if value.ended < value.number:
      shown += f'{value.ended}/{value.number}'
  return shown


def shown(column: Column, row: dict[str, Cell]) -> str:
  """Formats a row's cell of a column."""
  return text(row[column.name], column.digits, column.kind == MEDIAN)


def filled(
  some: Sequence[Column], cells: dict[str, dict[str, Cell]]
) -> list[Column]:
  """Leaves out columns in which no run has a number.

  What nobody reached stays.

  Args:
    some: columns.
    cells: from `table`.
  """
  return [
    column
    for column in some
    if column.kind == MEDIAN
    or any(row[column.name].number for row in cells.values())
  ]


def names(some: Sequence[Column]) -> list[str]:
  """Names the numbers of some columns in the head of a CSV file.

  Args:
    some: columns.
  """
  return [column.name + end for column in some for end in _ends(column)]


def numbers_of(some: Sequence[Column], row: dict[str, Cell]) -> list[str]:
  """Writes a row's numbers in full, '' for none, beneath `names`.

  Args:
    some: columns.
    row: of `table`.
  """
  found = []
  for column in some:
    own = row[column.name]
    values = {
      '': own.mean,
      '_half95': own.half,
      '_n': own.number,
      '_ended': own.ended,
    }
    found += [raw(values[end]) for end in _ends(column)]
  return found


def raw(value: float) -> str:
  """Writes a number in full, '' for NaN."""
  return '' if math.isnan(value) else repr(value)


def _ends(column: Column) -> list[str]:
  return ['', '_half95', '_n', *(['_ended'] if column.kind == HELD else [])]


def notes(runs: Sequence[tables.Run], numbers: str) -> list[str]:
  """Says what the mean is over: seeds within folds, the persons of each fold.

  Args:
    runs: of a table.
    numbers: what a mean is over, 'seeds' or 'folds'.

  Returns:
    Sentences for below the table.
  """
  if numbers != 'folds':
    return []
  found = []
  seeds: dict[tuple[str, int], set[int]] = {}
  for run in runs:
    seeds.setdefault((run.label, run.seed), set()).add(run.repeat)
  counts = sorted({len(own) for own in seeds.values()})
  if counts and counts[-1] > 1:
    found.append(
      f'A fold counts once, as the mean over its '
      f'{" to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds.'
    )
  persons: dict[int, list[int]] = {}
  for run in runs:
    world = run.summary.get('world') or {}
    if tested := (world.get('subjects') or {}).get('test'):
      persons[run.seed] = tested
  if persons:
    listed = '; '.join(
      f'fold {fold}: {", ".join(map(str, persons[fold]))}'
      for fold in sorted(persons)
    )
    found.append(f'Persons tested on: {listed}.')
  return found


def save(
  cells: dict[str, dict[str, Cell]],
  runs: Sequence[tables.Run],
  folder: pathlib.Path,
  numbers: str = 'seeds',
  note: str = '',
) -> None:
  """Writes `table.csv` (numbers) and `table.md` (to read).

  Args:
    cells: from `table`.
    runs: that it was made from.
    folder: of the comparison.
    numbers: what a mean is over, 'seeds' or 'folds'.
    note: about all runs, for below the table.

  Raises:
    OSError: the folder cannot be written.
  """
  data = tables.data_sets(runs)
  with open(folder / 'table.csv', 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['label', 'data', numbers, 'runs', *names(COLUMNS)])
    for label, own in tables.by_label(runs).items():
      seeds = len({run.seed for run in own})
      values = numbers_of(COLUMNS, cells[label])
      writer.writerow([label, data, seeds, len(own), *values])
  parts = [datasets.remark(run.summary.get('dataset') for run in runs)]
  for group in GROUPS:
    some = filled(group.columns, cells)
    if not some:
      continue
    lines = [
      '| | ' + ' | '.join(c.title for c in some) + ' |',
      '|---|' + '---:|' * len(some),
    ]
    for label, row in cells.items():
      lines.append(
        f'| {naming.markdown(label)} | '
        + ' | '.join(shown(c, row) for c in some)
        + ' |'
      )
    parts += [f'**{group.title}**', '\n'.join(lines), group.note]
  parts.append(f'Data: {data}. Mean ± half the 95 % interval over {numbers}.')
  parts += [*notes(runs, numbers), note]
  (folder / 'table.md').write_text(
    '\n\n'.join(filter(None, parts)) + '\n', encoding='utf-8'
  )


def show(
  cells: dict[str, dict[str, Cell]],
  runs: Sequence[tables.Run],
  console: rich.console.Console,
  baseline: str,
  numbers: str = 'seeds',
) -> None:
  """Prints the tables of every group of labels: accuracy, costs, fairness.

  A table too wide for the console goes on in another below it.

  Args:
    cells: from `table`, those to be shown.
    runs: that they were made from, or more.
    console: to print on.
    baseline: label within a group that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
  """
  groups: dict[str, list[str]] = {}
  for label in cells:
    groups.setdefault(tables.group_of(label), []).append(label)
  told: dict[str, None] = {}
  for head, labels in groups.items():
    for group in GROUPS:
      own = {label: cells[label] for label in labels}
      columns = filled(group.columns, own)
      title = ' '.join(filter(None, [head, group.title]))
      for some in _fit(columns, labels, cells, console.width):
        console.print(_rich(title, some, labels, cells))
        title += ', continued'
        told[group.note] = None
  for line in (
    f'Data: {tables.data_sets(runs)}. Mean ± half the 95 % t-interval over '
    f'{numbers}; base is {baseline}, '
    f'paired by {numbers[:-1]}.',
    *filter(None, told),
    *notes(runs, numbers),
  ):
    console.print(line)


def _fit(columns, labels, cells, width: int) -> list[list[Column]]:
  """Splits columns into tables that fit the width."""
  first = 3 + max(len(tables.short(label)) for label in labels)
  parts: list[list[Column]] = []
  used = width
  for column in columns:
    found = [column.title, *(shown(column, cells[label]) for label in labels)]
    needed = 3 + max(map(len, found))
    if not parts or used + needed > width:
      parts.append([])
      used = first
    parts[-1].append(column)
    used += needed
  return parts


def _rich(title: str, some, labels, cells) -> rich.table.Table:
  found = rich.table.Table(
    title=title, title_justify='left', box=rich.box.SIMPLE_HEAD
  )
  found.add_column('', no_wrap=True)
  for column in some:
    found.add_column(column.title, justify='right', no_wrap=True)
  for label in labels:
    found.add_row(tables.short(label), *(shown(c, cells[label]) for c in some))
  return found


def foremost(cells, baseline: str, most: int = 24, kept: int = 8):
  """Selects the rows of a table that fit on a screen.

  Args:
    cells: from `tables.table`.
    baseline: label within a group, kept with those that it is the base of.
    most: labels that are all shown.
    kept: of more than that, the best by F1.
  """
  if len(cells) <= most:
    return cells

  def rank(label):
    return -cells[label]['f1'].mean

  best = sorted(cells, key=rank)[:kept]
  best += [tables.baseline_of(label, baseline) for label in best]
  return {label: row for label, row in cells.items() if label in best}
