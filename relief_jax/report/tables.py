"""The tables: cells from runs, and their text, CSV, LaTeX and Markdown.

A cell is a mean and half its 95 % t-interval over seeds or folds (`stats`), or
a median. Differences are taken seed by seed against the baseline of the group,
so that what a seed does to all methods alike cancels. Files of numbers hold
scores as shares from 0 to 1; text for people has percent.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from relief_jax.report import columns, device_charts, labels, stats
from relief_jax.report.columns import HELD, MEDIAN, Column
from relief_jax.report.gather import Collection, Run
from relief_jax.report.stats import Cell
from relief_jax.scoring.metrics import Metric, main_of
from relief_jax.storage import naming

# Label -> column name -> cell.
Cells = Mapping[str, Mapping[str, Cell]]
# Ends of the metric's columns, and other columns.
_SCORES = ('', '_difference', '_own', '_own_rare_owners', '_worst_person')
_COSTS = (
  'sim_seconds_per_round',
  'speed_up',
  'speed_up_to_target',
  'energy_share',
  'megabytes_up',
)


class Table(NamedTuple):
  """Holds a table, a row per label.

  Attributes:
    name: of its files.
    title: its heading.
    text: for people.
    numbers: for files, in full.
    note: below it.
  """

  name: str
  title: str
  text: pd.DataFrame
  numbers: pd.DataFrame
  note: str = ''

  def csv(self) -> str:
    """Formats the numbers."""
    return self.numbers.to_csv(lineterminator='\n')

  def tex(self) -> str:
    """Formats the text as a LaTeX tabular (package booktabs)."""
    form = 'l' * self.text.index.nlevels + 'r' * len(self.text.columns)
    found = self.text.to_latex(escape=True, column_format=form)
    note = self.note if self.note.isascii() else self.note.translate(_TEX)
    return f'% {" ".join(note.split())}\n{found.translate(_TEX)}'

  def markdown(self) -> str:
    """Formats the text as a Markdown table."""
    head = [str(name or '') for name in self.text.index.names]
    rule = ['---'] * len(head) + ['---:'] * len(self.text.columns)
    rows = [
      [naming.markdown(str(v)) for v in np.atleast_1d(np.array(name, object))]
      + list(row)
      for name, *row in self.text.itertuples()
    ]
    lines = [head + list(self.text.columns), rule, *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


# What pandas' escape leaves; [ and * would belong to the line break before.
_TEX = str.maketrans(
  {
    '±': r'$\pm$',
    '−': '$-$',
    '–': '--',
    '<': '$<$',
    '>': '$>$',
    '|': r'\textbar{}',
    '`': r'\textasciigrave{}',
    '[': '{[}',
    '*': '{*}',
    '’': "'",
  }
)


def cells(
  values: pd.DataFrame, total: Mapping[str, int], some: Iterable[Column]
) -> Cells:
  """Computes the cells of every label.

  Args:
    values: a row per run and column, of `columns.numbers`.
    total: runs of each label, also those without a number.
    some: columns.
  """
  groups = dict(list(values.groupby(['label', 'metric'], sort=False)))
  return {
    label: {
      column.name: _cell(column, groups.get((label, column.name)), count)
      for column in some
    }
    for label, count in total.items()
  }


def _cell(column: Column, own: pd.DataFrame | None, total: int) -> Cell:
  if own is None:
    return Cell(math.nan, math.nan, 0, total)
  if column.kind == MEDIAN:
    return Cell(float(own.value.median()), math.nan, len(own), total)
  mean, half = stats.interval(stats.units(own.value, own.fold))
  return Cell(mean, half, len(own), total, int(own.ended.sum()))


def cells_of(collection: Collection) -> Cells:
  """Computes the cells of all columns."""
  total = {label: len(runs) for label, runs in collection.by_label.items()}
  return cells(collection.values, total, columns.every(collection.metric))


def text(value: Cell, column: Column) -> str:
  """Formats a cell, and the number of its runs where not all have it.

  >>> some = Column('f1', 'F1 %')
  >>> text(Cell(1.25, 0.5, 3, 3), some), text(Cell(1.2, 0.5, 3, 3, 2), some)
  ('1.2 ± 0.5', '1.2 ± 0.5 *2/3')
  >>> text(Cell(0.01, math.nan, 1, 3), some._replace(scale=100, digits=0))
  '1 (1/3)'
  """
  count = f' ({value.number}/{value.total})'
  counted = column.kind == MEDIAN
  if not value.number:
    return f'–{count}' if counted else '–'
  mean, half = value.mean * column.scale, value.half * column.scale
  digits = column.digits
  if digits is None:
    size = math.log10(abs(mean)) if mean else 0
    digits = max(0, 2 - math.floor(size))
  shown = f'{mean:,.{digits}f}'
  if math.isfinite(half):
    shown += f' ± {half:,.{digits}f}' if half else ' ± 0'
  if counted or value.number < value.total:
    shown += count
  if value.ended:
    shown += ' *'
    if value.ended < value.number:
      shown += f'{value.ended}/{value.number}'
  return shown


def texts(some: Sequence[Column], found: Cells) -> pd.DataFrame:
  """Formats columns for people, without those in which nobody has a number.

  What nobody reached stays.

  Args:
    some: columns.
    found: cells.
  """
  return pd.DataFrame(
    {
      column.title: [text(row[column.name], column) for row in found.values()]
      for column in some
      if column.kind == MEDIAN
      or any(row[column.name].number for row in found.values())
    },
    index=list(found),
    dtype=object,
  )


def numbers(some: Sequence[Column], found: Cells) -> pd.DataFrame:
  """Gives columns for files: mean, half the interval, runs that have one.

  Args:
    some: columns.
    found: cells.
  """
  made = {}
  for column in some:
    own = [row[column.name] for row in found.values()]
    made[column.name] = [cell.mean for cell in own]
    made[f'{column.name}_half95'] = [cell.half for cell in own]
    made[f'{column.name}_n'] = [cell.number for cell in own]
    if column.kind == HELD:
      made[f'{column.name}_ended'] = [cell.ended for cell in own]
  return pd.DataFrame(made, index=pd.Index(list(found), name='label'))


def significance(collection: Collection) -> dict[str, float]:
  """Maps each label to its p against its baseline.

  A paired t-test of the last main metric, two-sided, corrected after Holm
  within a group. Ours: with few seeds it finds large differences only.
  """
  every = collection.values
  pairs: dict[str, dict] = {}
  for row in every[every.metric == collection.metric.name].itertuples():
    pairs.setdefault(str(row.label), {})[row.fold, row.seed] = row.value
  found: dict[str, float] = {}
  for members in labels.grouped(pairs).values():
    base = labels.baseline_of(members[0], collection.baseline)
    others = [label for label in members if label != base]
    p = [stats.paired_p(pairs[x], pairs.get(base, {})) for x in others]
    found |= dict(zip(others, stats.holm(p), strict=True))
  return found


def show_p(value: float) -> str:
  """Formats a p-value.

  >>> show_p(0.0004), show_p(0.0312), show_p(float('nan'))
  ('< 0.001', '0.031', '–')
  """
  if math.isnan(value):
    return '–'
  return '< 0.001' if value < 1e-3 else f'{value:.3f}'


def tables_of(collection: Collection) -> list[Table]:
  """Builds all tables; those without a column are left out."""
  found = cells_of(collection)
  head = over(collection)
  against = base(collection)
  made = [
    headline(collection, collection.notes),
    *(_fairness(collection, head, *test) for test in device_charts.TESTS),
  ]
  for group in columns.groups(collection.metric):
    shown = texts(group.columns, found)
    note = f'{head}; {against}. {group.note}'.strip()
    full = numbers(group.columns, found)
    made.append(Table(group.name, group.title, shown, full, note))
  return [table for table in made if len(table.text.columns)]


def base(collection: Collection) -> str:
  """Names what differences and ratios are against, for below a table."""
  return f'base is {collection.baseline}, paired by {collection.numbers[:-1]}'


def over(collection: Collection) -> str:
  """Says what the data are and what a mean is over, for below a table."""
  data = data_sets(collection.runs)
  return (
    f'Data: {data}. Mean ± half the 95 % t-interval over {collection.numbers}'
  )


def headline(collection: Collection, notes: Sequence[str] = ()) -> Table:
  """Builds a table of few columns of all groups, p beside the difference.

  Args:
    collection: of runs.
    notes: for below it, beside those on its columns.
  """
  found = cells_of(collection)
  metric = collection.metric
  known = {column.name: column for column in columns.every(metric)}
  names = [metric.name + end for end in _SCORES]
  others = [one.name for one in main_of(metric).pair if one is not metric]
  some = [known[name] for name in (*names, *others, *_COSTS)]
  tested = significance(collection)
  p = pd.Series({label: tested.get(label, math.nan) for label in found})
  shown, full = texts(some, found), numbers(some, found)
  shown.insert(min(2, shown.shape[1]), 'p', p.map(show_p))
  full.insert(6, 'p_holm', p)
  told = [
    f'{over(collection)}; {base(collection)}.',
    'Times, joules and bytes are simulated. To target: the median over the '
    'runs that reach it, with how many of all these are. p: paired t-test '
    f'of {metric.short} against the base, corrected after Holm '
    'within a group.',
    *notes_of(collection.runs, collection.numbers),
    *notes,
  ]
  note = ' '.join(filter(None, told))
  return Table('headline', 'Headline', shown, full, note)


def _fairness(collection, head, end, where, windows) -> Table:
  """Computes mean, worst tenth and Gini over the devices of one test."""
  metric = collection.metric
  devices = _devices(metric)
  rows = [
    (run.label, run.fold, column.name, float(function(scores)), False)
    for run in collection.runs
    if len(scores := device_charts.device_scores(run, metric.name + end))
    for column, function in devices.items()
  ]
  names = ['label', 'fold', 'metric', 'value', 'ended']
  values = pd.DataFrame(rows, columns=names)
  count = values[values.metric == 'mean'].label.value_counts(sort=False)
  found = cells(values, count.to_dict(), devices)
  points = ' Deviation is in percentage points.' if metric.percent else ''
  return Table(
    f'fairness{end}',
    f'Fairness over devices{where}',
    texts(list(devices), found),
    numbers(list(devices), found),
    f'{head}, of the last {metric.title} of every device on {windows}, with '
    f'the sensors that it owns.{points}',
  )


def _devices(metric: Metric) -> dict[Column, Callable[[np.ndarray], Any]]:
  """Builds the columns on the scores of devices, [n] each."""
  digits, scale = (1 if metric.percent else None), metric.scale
  unit = ' %' if metric.percent else ''
  worst = functools.partial(stats.worst_tenth, sign=metric.sign)
  return {
    Column('mean', f'mean{unit}', digits=digits, scale=scale): np.mean,
    Column(
      'worst_tenth', f'worst tenth{unit}', digits=digits, scale=scale
    ): worst,
    Column('worst', f'worst{unit}', digits=digits, scale=scale): metric.worst,
    Column('deviation', 'deviation', digits=digits, scale=scale): np.std,
    Column('gini', 'Gini', digits=3): stats.gini,
  }


def data_sets(runs: Sequence[Run]) -> str:
  """Joins the titles of the data sets that runs are on, with their limits."""
  titles = {run.summary.get('dataset') for run in runs}
  return '; '.join(sorted(str(title) for title in titles if title))


def notes_of(runs: Sequence[Run], numbers: str) -> list[str]:
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
  persons: dict[int, list] = {}
  for run in runs:
    seeds.setdefault((run.label, run.fold), set()).add(run.seed)
    world = run.summary.get('world') or {}
    if tested := (world.get('subjects') or {}).get('test'):
      persons[run.fold] = tested
  counts = sorted({len(own) for own in seeds.values()})
  if counts and counts[-1] > 1:
    few = ' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    found.append(f'A fold counts once, as the mean over its {few} seeds.')
  if persons:
    listed = '; '.join(
      f'fold {fold}: {", ".join(map(str, persons[fold]))}'
      for fold in sorted(persons)
    )
    found.append(f'Persons tested on: {listed}.')
  return found
