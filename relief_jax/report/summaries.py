"""The tables of a report: headline, accuracy, costs, fairness, significance.

Significance is a paired t-test of the last macro-F1 against the baseline, over
the seeds (or folds) that both have, two-sided; p-values of a group are
corrected after Holm. Ours: with few seeds it finds large differences only.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from relief_jax.report import columns, device_charts, gather, printed, tables
from relief_jax.report.gather import Collection

# Labels that a page shows; the CSV has all.
SHOWN = 60
_HEADLINE = (
  'f1',
  'f1_difference',
  'f1_own',
  'f1_own_rare_owners',
  'f1_worst_person',
  'sim_seconds_per_round',
  'speed_up',
  'speed_up_to_target',
  'energy_share',
  'megabytes_up',
)


class Table(NamedTuple):
  """Holds a table as rows of text.

  Attributes:
    name: of its files.
    title: its heading.
    head: of the columns; the first one is the label's.
    rows: as many cells each.
    note: below it.
    raw: rows of numbers for the CSV, where they say more than the text.
    raw_head: their columns.
  """

  name: str
  title: str
  head: list[str]
  rows: list[list[str]]
  note: str
  raw: list[list[str]] | None = None
  raw_head: list[str] | None = None


def paired_p(own: Sequence[tables.Run], base: Sequence[tables.Run]) -> float:
  """Computes p of the paired t-test of the last F1; NaN with under two pairs.

  The seeds of a fold make one pair.

  Args:
    own: runs of a label.
    base: of its baseline.
  """
  other = {run.pair: run.metrics[-1]['f1'] for run in base}
  differences = tables.averaged(
    {
      run.pair: run.metrics[-1]['f1'] - other[run.pair]
      for run in own
      if run.pair in other
    }
  )
  if len(differences) < 2:
    return math.nan
  if not np.ptp(differences):  # the same difference everywhere
    return 0.0 if differences[0] else 1.0
  return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def holm(values: Sequence[float]) -> list[float]:
  """Corrects p-values for their number, after Holm; NaN stays.

  >>> [round(p, 3) for p in holm([0.01, 0.04, float('nan')])]
  [0.02, 0.04, nan]
  """
  found = list(values)
  order = sorted(
    (i for i, p in enumerate(values) if not math.isnan(p)),
    key=lambda i: values[i],
  )
  worst = 0.0
  for rank, i in enumerate(order):
    worst = max(worst, min(1.0, values[i] * (len(order) - rank)))
    found[i] = worst
  return found


def significance(collection: Collection) -> dict[str, float]:
  """Maps each label to its corrected p against its baseline."""
  labels = tables.by_label(collection.runs)
  found: dict[str, float] = {}
  groups: dict[str, list[str]] = {}
  for label in labels:
    groups.setdefault(tables.group_of(label), []).append(label)
  for members in groups.values():
    base = tables.baseline_of(members[0], collection.baseline)
    others = [label for label in members if label != base]
    values = [paired_p(labels[label], labels.get(base, [])) for label in others]
    found |= dict(zip(others, holm(values), strict=True))
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
  """Builds all tables; those without a row are left out."""
  cells = tables.table(collection.runs, collection.baseline)
  data = tables.data_sets(collection.runs)
  over = (
    f'Data: {data}. Mean ± half the 95 % interval over {collection.numbers}'
  )
  base = f'base is {collection.baseline}, paired by {collection.numbers[:-1]}'
  notes = [
    *printed.notes(collection.runs, collection.numbers),
    *collection.notes,
  ]
  found = [
    _headline(collection, cells, [f'{over}; {base}.', *notes]),
    *_fairness(collection, over),
  ]
  for group in columns.GROUPS:
    some = printed.filled(group.columns, cells)
    if not some:
      continue
    found.append(
      Table(
        group.name,
        group.title,
        ['', *(c.title for c in some)],
        [
          [label, *(printed.shown(c, row) for c in some)]
          for label, row in cells.items()
        ],
        ' '.join([f'{over}; {base}.', group.note]).strip(),
        [
          [label, *printed.numbers_of(group.columns, row)]
          for label, row in cells.items()
        ],
        ['label', *printed.names(group.columns)],
      )
    )
  return found


def _headline(collection: Collection, cells, notes: list[str]) -> Table:
  """Builds a table of few columns of all groups, p beside the F1 difference."""
  p = significance(collection)
  known = {c.name: c for c in columns.COLUMNS}
  every = [known[name] for name in _HEADLINE]
  some = printed.filled(every, cells)

  def split(some, label, value, numbers):
    return [label, *numbers(some[:2]), value, *numbers(some[2:])]

  return Table(
    'headline',
    'Headline',
    split(some, '', 'p', lambda part: [c.title for c in part]),
    [
      split(
        some,
        label,
        show_p(p.get(label, math.nan)),
        lambda part, row=row: [printed.shown(c, row) for c in part],
      )
      for label, row in cells.items()
    ],
    ' '.join(
      [
        *notes[:1],
        'Times, joules and bytes are simulated. To target: the median over the '
        'runs that reach it, with how many of all these are. p: paired t-test '
        'of F1 against the base, corrected after Holm within a group.',
        *notes[1:],
      ]
    ),
    [
      split(
        every,
        label,
        printed.raw(p.get(label, math.nan)),
        lambda part, row=row: printed.numbers_of(part, row),
      )
      for label, row in cells.items()
    ],
    split(every, 'label', 'p_holm', printed.names),
  )


def _fairness(collection: Collection, over: str) -> list[Table]:
  """Computes mean, worst tenth and Gini over the devices that runs recorded."""
  measures = {
    'mean %': lambda v: v.mean(),
    'worst tenth %': device_charts.worst_tenth,
    'worst %': lambda v: v.min(),
    'deviation': lambda v: v.std(),
    'Gini': device_charts.gini,
  }
  rows, raw = [], []
  for label, own in gather.by_label(collection.found).items():
    values = {
      one.run.pair: device_charts.device_f1([one]) for one in own if one.devices
    }
    if not values:
      continue
    cells = [
      tables.interval(
        tables.averaged({k: float(function(v)) for k, v in values.items()})
      )
      for function in measures.values()
    ]
    digits = [3 if name == 'Gini' else 1 for name in measures]
    rows.append([label, *map(printed.text, cells, digits)])
    raw.append(
      [label, *(printed.raw(v) for c in cells for v in (c.mean, c.half))]
    )
  if not rows:
    return []
  return [
    Table(
      'fairness',
      'Fairness over devices',
      ['', *measures],
      rows,
      f'{over}, of the last macro-F1 of the devices, each with the sensors '
      'that it owns. Deviation is in percentage points.',
      raw,
      ['label', *(n for c in measures for n in (c, f'{c}_half95'))],
    )
  ]


def csv_of(table: Table) -> str:
  """Formats a table as comma-separated values, numbers in full."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(table.raw_head or table.head)
  writer.writerows(table.raw or table.rows)
  return file.getvalue()


_TEX = {
  '\\': r'\textbackslash{}',
  **{c: '\\' + c for c in '&%$#_{}'},
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '±': r'$\pm$',
  '−': '$-$',
  '–': '--',
  '<': '$<$',
  '>': '$>$',
  '|': r'\textbar{}',
  '`': r'\textasciigrave{}',
  # At the start of a row both would belong to the line break before.
  '[': '{[}',
  '*': '{*}',
  '\n': ' ',
  '’': "'",
}


def tex_of(table: Table) -> str:
  """Formats a table as a LaTeX tabular (package booktabs)."""

  def line(cells):
    return ' & '.join(''.join(_TEX.get(c, c) for c in cell) for cell in cells)

  note = ''.join(_TEX.get(c, c) for c in table.note)
  return '\n'.join(
    [
      '% ' + ' '.join((table.note if table.note.isascii() else note).split()),
      rf'\begin{{tabular}}{{l{"r" * (len(table.head) - 1)}}}',
      r'\toprule',
      line(table.head) + r' \\',
      r'\midrule',
      *(line(row) + r' \\' for row in table.rows),
      r'\bottomrule',
      r'\end{tabular}',
      '',
    ]
  )
