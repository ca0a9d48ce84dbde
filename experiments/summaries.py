"""The tables of a report: headline, quality, cost, fairness, significance.

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

from experiments import device_charts, gather, tables
from experiments.gather import Collection

# Labels that a page shows; the CSV has all.
SHOWN = 60
_HEADLINE = (
  'f1',
  'f1_difference',
  'f1_rare_owners',
  'sim_seconds_per_round',
  'speed_up',
  'speed_up_to_target',
  'energy_share',
  'megabytes_up',
)


class Table(NamedTuple):
  """Rows of text.

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
  """p of the paired t-test of the last macro-F1; NaN with fewer than two pairs.

  Args:
    own: runs of a label.
    base: of its baseline.
  """
  other = {run.seed: run.metrics[-1]['f1'] for run in base}
  pairs = [
    (run.metrics[-1]['f1'], other[run.seed]) for run in own if run.seed in other
  ]
  if len(pairs) < 2:
    return math.nan
  ours, theirs = np.array(pairs).T
  if not np.ptp(ours - theirs):  # the same difference everywhere
    return 1.0 if ours[0] == theirs[0] else 0.0
  return float(scipy.stats.ttest_rel(ours, theirs).pvalue)


def holm(values: Sequence[float]) -> list[float]:
  """p-values corrected for their number, after Holm; NaN stays.

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
  """Label -> corrected p against its baseline."""
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
  """A p-value to read.

  >>> show_p(0.0004), show_p(0.0312), show_p(float('nan'))
  ('< 0.001', '0.031', '–')
  """
  if math.isnan(value):
    return '–'
  return '< 0.001' if value < 1e-3 else f'{value:.3f}'


def tables_of(collection: Collection) -> list[Table]:
  """All of them; those without a row are left out."""
  cells = tables.table(collection.runs, collection.baseline)
  p = significance(collection)
  over = f'Mean ± half the 95 % interval over {collection.numbers}'
  base = f'base is {collection.baseline}, paired by {collection.numbers[:-1]}'
  simulated = 'times, joules and bytes are simulated'
  known = {c.name: c for c in tables.COLUMNS}
  columns = [known[name] for name in _HEADLINE]

  def with_p(cells, value, width=1):  # beside the difference
    return [*cells[: 2 * width], value, *cells[2 * width :]]

  found = [
    Table(
      'headline',
      'Headline',
      ['', *with_p([c.title for c in columns], 'p')],
      [
        [
          label,
          *with_p(
            [tables.text(row[c.name], c.digits) for c in columns],
            show_p(p.get(label, math.nan)),
          ),
        ]
        for label, row in cells.items()
      ],
      f'{over}; {base}; {simulated}. p: paired t-test of F1 against the base, '
      'corrected after Holm within a group.',
      [
        [
          label,
          *with_p(_numbers(row, columns), _raw(p.get(label, math.nan)), 2),
        ]
        for label, row in cells.items()
      ],
      ['label', *with_p(_names(columns), 'p_holm', 2)],
    ),
    *_fairness(collection, over),
  ]
  for name, title, some in (
    ('quality', 'Quality', tables.QUALITY),
    ('cost', 'Cost', tables.COST),
  ):
    found.append(
      Table(
        name,
        title,
        ['', *(c.title for c in some)],
        [
          [label, *(tables.text(row[c.name], c.digits) for c in some)]
          for label, row in cells.items()
        ],
        f'{over}; {base}; {simulated}, wall s is the machine’s.'
        if name == 'cost'
        else f'{over}; {base}.',
        [[label, *_numbers(row, some)] for label, row in cells.items()],
        ['label', *_names(some)],
      )
    )
  return found


def _names(columns) -> list[str]:
  return [n for c in columns for n in (c.name, f'{c.name}_half95')]


def _numbers(row, columns) -> list[str]:
  cells = [row[c.name] for c in columns]
  return [_raw(v) for cell in cells for v in (cell.mean, cell.half)]


def _raw(value: float) -> str:
  return '' if math.isnan(value) else repr(float(value))


def _fairness(collection: Collection, over: str) -> list[Table]:
  """Per device: mean, worst tenth, Gini; only runs that recorded devices."""
  columns = {
    'mean %': lambda v: v.mean(),
    'worst tenth %': device_charts.worst_tenth,
    'worst %': lambda v: v.min(),
    'deviation': lambda v: v.std(),
    'Gini': device_charts.gini,
  }
  rows, raw = [], []
  for label, own in gather.by_label(collection.found).items():
    values = [device_charts.device_f1([one]) for one in own if one.devices]
    if not values:
      continue
    cells = [
      tables.interval([float(function(v)) for v in values])
      for function in columns.values()
    ]
    digits = [3 if name == 'Gini' else 1 for name in columns]
    rows.append([label, *map(tables.text, cells, digits)])
    raw.append([label, *(_raw(v) for c in cells for v in (c.mean, c.half))])
  if not rows:
    return []
  return [
    Table(
      'fairness',
      'Fairness over devices',
      ['', *columns],
      rows,
      f'{over}, of the last macro-F1 of the devices, each with the sensors '
      'that it owns. Deviation is in percentage points.',
      raw,
      ['label', *(n for c in columns for n in (c, f'{c}_half95'))],
    )
  ]


def csv_of(table: Table) -> str:
  """As comma-separated values, numbers in full."""
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
  """As a LaTeX tabular (package booktabs)."""

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
