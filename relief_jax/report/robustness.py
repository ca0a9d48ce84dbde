"""Tables and heat maps of a robustness grid (`configs/robustness.py`).

The tables hold the mean and half the 95 % interval
over seeds of three macro-F1s in percent: `complete` with every sensor at test,
`missing` the mean over the sensors with each of them missing in turn, and
`worst` the least of these. The figure is the difference
of each method to
FedAvg in the same world, seed by seed, one heat map a method.
"""

import pathlib
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from relief_jax import datasets
from relief_jax.errors import InputError
from relief_jax.report import palette, tables

_GROUP = re.compile(r'missing(\d+)_noisy(\d+)/(\w+)')


SCORES: dict[str, Callable[[dict], float]] = {
  'complete': lambda record: record['f1_all'],
  'missing': lambda record: statistics.fmean(record['f1_without'].values()),
  'worst': lambda record: min(record['f1_without'].values()),
}


# That the heat maps are of.
SHOWN = ('complete', 'missing')


Grid = dict[tuple[int, int, str], dict[tuple[int, int], tables.Run]]


def grid(runs: Sequence[tables.Run]) -> Grid:
  """Maps (missing %, noisy %, method) and `Run.pair` to runs.

  Args:
    runs: finished ones.

  Raises:
    InputError: labels of another comparison.
  """
  found: Grid = {}
  for run in runs:
    match = _GROUP.fullmatch(run.label)
    if match is None:
      raise InputError(
        f'a run labelled {run.label!r}',
        'labels of a grid, such as missing30_noisy20/relief',
        'name the --workdir of experiments/configs/robustness.py',
      )
    key = int(match[1]), int(match[2]), match[3]
    found.setdefault(key, {})[run.pair] = run
  return found


def cell(runs: Sequence[tables.Run], score: str) -> tables.Cell:
  """Computes the mean and interval of a score in percent."""
  value = SCORES[score]
  return tables.interval(
    tables.averaged({run.pair: 100 * value(run.metrics[-1]) for run in runs})
  )


def difference(found: Grid, key, baseline: str, score: str) -> tables.Cell:
  """Compares a method with the baseline in the same world, paired by seed.

  Args:
    found: the grid.
    key: of the method.
    baseline: a method.
    score: of `SCORES`.
  """
  missing, noisy, _ = key
  base = found.get((missing, noisy, baseline), {})
  value = SCORES[score]
  return tables.interval(
    tables.averaged(
      {
        pair: 100 * (value(run.metrics[-1]) - value(base[pair].metrics[-1]))
        for pair, run in found[key].items()
        if pair in base
      }
    )
  )


def write_tables(found: Grid, folder: pathlib.Path) -> None:
  """Writes robustness.csv and robustness.md.

  Args:
    found: the grid.
    folder: that is there.
  """
  head = ['missing_percent', 'noisy_percent', 'method', 'seeds']
  head += [f'{name}{end}' for name in SCORES for end in ('', '_half')]
  lines, rows = [','.join(head)], []
  for key in sorted(found):
    runs = list(found[key].values())
    cells = [cell(runs, name) for name in SCORES]
    numbers = [f'{v:.4f}' for c in cells for v in (c.mean, c.half)]
    lines.append(','.join([*map(str, key), str(len(runs)), *numbers]))
    text = ' | '.join(f'{c.mean:.1f} ± {c.half:.1f}' for c in cells)
    rows.append(f'| {key[0]} | {key[1]} | {key[2]} | {text} |')
  (folder / 'robustness.csv').write_text(
    '\n'.join(lines) + '\n', encoding='utf-8'
  )
  title = f'| missing % | noisy % | method | {" | ".join(SCORES)} |'
  rule = '| --- ' * (3 + len(SCORES)) + '|'
  used = [
    run.summary.get('dataset') for own in found.values() for run in own.values()
  ]
  lines = [datasets.remark(used), '', title, rule, *rows]
  (folder / 'robustness.md').write_text(
    '\n'.join(lines) + '\n', encoding='utf-8'
  )


def draw(found: Grid, baseline: str, path: pathlib.Path) -> None:
  """Draws heat maps of differences to the baseline, a row of maps per score.

  Args:
    found: the grid.
    baseline: a method.
    path: of the picture.
  """
  names = [m for m in methods(found) if m not in (baseline, 'fm')]
  missing = sorted({k[0] for k in found if k[2] == baseline})
  noisy = sorted({k[1] for k in found if k[2] == baseline})
  maps = np.full((len(SHOWN), len(names), len(missing), len(noisy)), np.nan)
  for at in np.ndindex(maps.shape):
    key = missing[at[2]], noisy[at[3]], names[at[1]]
    if key in found:
      maps[at] = difference(found, key, baseline, SHOWN[at[0]]).mean
  bound = max(1.0, float(np.nanmax(np.abs(maps), initial=0.0)))
  figure, axes = palette.subplots(
    len(SHOWN),
    len(names),
    figsize=(1.7 * len(names) + 1.2, 2.3 * len(SHOWN)),
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  for row, col in np.ndindex(len(SHOWN), len(names)):
    here: Any = axes[row, col]
    values = maps[row, col]
    image = here.imshow(values, cmap='PuOr_r', vmin=-bound, vmax=bound)
    for i, j in np.ndindex(values.shape):
      if np.isfinite(values[i, j]):
        dark = abs(values[i, j]) > 0.6 * bound
        here.text(
          j,
          i,
          f'{values[i, j]:+.1f}',
          ha='center',
          va='center',
          fontsize=8,
          color='white' if dark else 'black',
        )
    here.set_xticks(range(len(noisy)), noisy)
    here.set_yticks(range(len(missing)), missing)
    here.spines[:].set_visible(False)
    if not row:
      here.set_title(names[col], fontsize=9)
    if not col:
      here.set_ylabel(f'{SHOWN[row]} at test\nmissing (%)', fontsize=9)
  figure.supxlabel('noisy sensors (%)', fontsize=9)
  bar = figure.colorbar(image, ax=axes, shrink=0.8)
  bar.set_label(f'macro-F1 − {baseline} (points)')
  figure.savefig(path, dpi=150)


def methods(found: Grid) -> list[str]:
  return list(dict.fromkeys(key[2] for key in found))
