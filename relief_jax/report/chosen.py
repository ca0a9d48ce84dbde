"""Tables of the columns that somebody asks for, to paste into a text."""

import math
from collections.abc import Sequence

import pandas as pd

from relief_jax.errors import InputError
from relief_jax.report import columns, labels, tables
from relief_jax.report.gather import Collection


def tables_of(
  collection: Collection,
  names: Sequence[str],
  intervals: Sequence[str] | None = None,
) -> list[tables.Table]:
  """Builds a table of chosen columns per group of labels.

  Rows are in descending order of the first column.

  Args:
    collection: of runs.
    names: of columns.
    intervals: those whose intervals are shown; None: all.

  Raises:
    InputError: an unknown name, or a column in which nobody has a number.
  """
  if others := sorted(set(intervals or ()) - set(names)):
    raise InputError(
      f'intervals={",".join(others)}',
      f'some of the columns {", ".join(names)}',
      'name them among the columns, too',
    )
  known = {column.name: column for column in columns.every(collection.metric)}
  if unknown := [name for name in names if name not in known]:
    raise InputError(
      f'columns={",".join(unknown)}',
      f'some of {", ".join(known)}',
      'name columns as table.csv and tables/*.csv do',
    )
  notes = [
    group.note
    for group in columns.groups(collection.metric)
    if group.note and any(column.name in names for column in group.columns)
  ]
  told = f'{tables.over(collection)}; {tables.base(collection)}.'
  more = tables.notes_of(collection.runs, collection.numbers)
  note = ' '.join([told, *notes, *more])
  found = tables.cells_of(collection)
  some = [known[name] for name in names]
  if empty := [  # a target that nobody reached is told
    column.name
    for column in some
    if column.kind != columns.MEDIAN
    and not any(row[column.name].number for row in found.values())
  ]:
    raise InputError(
      f'columns={",".join(empty)}',
      'columns in which some run has a number',
      'leave them out; the tables of a report show what there is',
    )
  if intervals is not None:
    found = {
      label: {
        name: cell if name in intervals else cell._replace(half=math.nan)
        for name, cell in row.items()
      }
      for label, row in found.items()
    }

  def rank(label: str) -> float:
    cell = found[label][names[0]]
    return -cell.mean if cell.number else math.inf

  made = []
  for group, own in labels.grouped(found).items():
    rows = {label: found[label] for label in sorted(own, key=rank)}
    shown, full = tables.texts(some, rows), tables.numbers(some, rows)
    shown.index = pd.Index(map(labels.short, rows), name='method')
    made.append(tables.Table('columns', group, shown, full, note))
  return made
