"""The tables of a campaign: files beside its runs, and the terminal."""

import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd
import rich.box
import rich.console
import rich.table

from relief_jax import datasets
from relief_jax.report import columns, labels, tables
from relief_jax.report.gather import Collection


def save(collection: Collection, folder: pathlib.Path) -> None:
  """Writes `table.csv` (numbers) and `table.md` (to read).

  Args:
    collection: of runs.
    folder: of the comparison.

  Raises:
    OSError: the folder cannot be written.
  """
  found, runs = tables.cells_of(collection), collection.runs
  full = tables.numbers(columns.every(collection.metric), found)
  own = collection.by_label
  full.insert(0, 'data', tables.data_sets(runs))
  full.insert(1, collection.numbers, [collection.count(x) for x in found])
  full.insert(2, 'runs', [len(own[label]) for label in found])
  full.to_csv(folder / 'table.csv')
  parts = [datasets.remark(run.summary.get('dataset') for run in runs)]
  for group in columns.groups(collection.metric):
    shown = tables.texts(group.columns, found)
    if len(shown.columns):
      table = tables.Table(group.name, group.title, shown, full)
      parts += [f'**{group.title}**', table.markdown(), group.note]
  parts.append(f'{tables.over(collection)}.')
  parts += [*tables.notes_of(runs, collection.numbers), *collection.notes]
  (folder / 'table.md').write_text(
    '\n\n'.join(filter(None, parts)) + '\n', encoding='utf-8'
  )


def show(
  collection: Collection,
  console: rich.console.Console,
  shown: Sequence[str] | None = None,
) -> None:
  """Prints the headline of every group of labels; `save` writes all columns.

  A table too wide for the console goes on in another below it.

  Args:
    collection: of runs.
    console: to print on.
    shown: labels; None for all.
  """
  made = tables.headline(collection)  # its notes are said before its runs
  every = list(made.text.index) if shown is None else shown
  for head, own in labels.grouped(every).items():
    for part in _fit(head, made.text.loc[own], console.width):
      console.print(part)
  console.print(made.note)


def _fit(title: str, shown: pd.DataFrame, width: int) -> list[rich.table.Table]:
  """Splits columns into tables that fit the width."""
  own = [labels.short(label) for label in shown.index]
  first = used = 4 + max(map(len, own))  # with both edges
  parts: list[list[str]] = [[]]
  for name, cell in shown.items():
    needed = 3 + max(len(str(name)), cell.str.len().max())
    if parts[-1] and used + needed > width:
      parts, used = [*parts, []], first
    parts[-1].append(str(name))
    used += needed
  made: list[rich.table.Table] = []
  for part in filter(None, parts):
    head = f'{title}, continued'.lstrip(', ') if made else title
    box = rich.box.SIMPLE_HEAD
    table = rich.table.Table(title=head, title_justify='left', box=box)
    table.add_column('', no_wrap=True)
    for name in part:
      table.add_column(name, justify='right', no_wrap=True)
    for label, row in zip(own, shown[part].to_numpy(), strict=True):
      table.add_row(label, *row)
    made.append(table)
  return made


def foremost(f1: Mapping[str, float], baseline: str, most=24, kept=8):
  """Selects the labels of a table that fit on a screen.

  Args:
    f1: of every label.
    baseline: label within a group, kept with those that it is the base of.
    most: labels that are all shown.
    kept: of more than that, the best by F1.
  """
  if len(f1) <= most:
    return list(f1)
  best = sorted(f1, key=lambda label: -f1[label])[:kept]
  best += [labels.baseline_of(label, baseline) for label in best]
  return [label for label in f1 if label in best]
