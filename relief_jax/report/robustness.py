"""Tables and heat maps of a robustness grid (`configs/robustness.py`).

The tables hold the mean and half the 95 % interval over seeds of three
macro-F1s: `complete` with every sensor at test, `missing` the mean over the
sensors with each of them missing in turn, and `worst` the least of these. The
figure is the difference of each method to FedAvg in the same world, seed by
seed, one heat map a method.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from relief_jax import datasets
from relief_jax.errors import InputError
from relief_jax.report import frame, palette, tables
from relief_jax.report.columns import Column
from relief_jax.report.gather import Run
from relief_jax.scoring import metrics

_GROUP = re.compile(r'missing(\d+)_noisy(\d+)/(\w+)')
_AXES = ['missing_percent', 'noisy_percent', 'method']
SCORES = ('complete', 'missing', 'worst')
SHOWN = ('complete', 'missing')  # in the heat maps


def grid(runs: Sequence[Run]) -> pd.DataFrame:
  """Reads the last scores of the runs of a grid.

  Args:
    runs: finished ones.

  Returns:
    A row per run and score: `label`, `seed`, `fold`, `metric` (of `SCORES`),
    `value`, and where it is in the grid, `_AXES`.

  Raises:
    InputError: labels of another comparison, or runs without F1.
  """
  for run in runs:
    if _GROUP.fullmatch(run.label) is None:
      raise InputError(
        f'a run labelled {run.label!r}',
        'labels of a grid, such as missing30_noisy20/relief',
        'name the --workdir of experiments/configs/robustness.py',
      )
  every = frame.tidy(runs)
  if not (every.metric == 'f1_all').any():
    raise InputError(
      'runs that have no f1_all',
      'runs on data of classes, scored by F1',
      'name the --workdir of experiments/configs/robustness.py',
    )
  whole = frame.last(every, 'f1_all').set_index(frame.RUN).value
  without = frame.last(every, 'f1_without.').groupby(frame.RUN).value
  wide = pd.DataFrame(
    {'complete': whole, 'missing': without.mean(), 'worst': without.min()}
  )
  found = wide.rename_axis(columns='metric').stack().rename('value')
  found = found.reset_index().assign(ended=False)
  found[_AXES] = found.label.str.extract(_GROUP)
  found.attrs['data'] = sorted({str(r.summary.get('dataset')) for r in runs})
  return found.astype(dict.fromkeys(_AXES[:2], int))


def methods(found: pd.DataFrame) -> list[str]:
  """Names the methods of a grid."""
  return list(dict.fromkeys(found.method))


def differences(found: pd.DataFrame, baseline: str) -> pd.DataFrame:
  """Compares with the baseline in the same world, paired by seed and fold.

  Args:
    found: the grid.
    baseline: a method.

  Returns:
    The values minus the baseline's, of runs that have it.
  """
  same = [*_AXES[:2], 'seed', 'fold', 'metric']
  base = found[found.method == baseline].set_index(same).value
  other = base.reindex(pd.MultiIndex.from_frame(found[same])).to_numpy()
  return found.assign(value=found.value - other).dropna(subset='value')


def write_tables(found: pd.DataFrame, folder: pathlib.Path) -> None:
  """Writes robustness.csv (shares) and robustness.md (percent).

  Args:
    found: the grid.
    folder: that is there.
  """
  ranked = found.sort_values(_AXES, kind='stable')
  places = ranked.drop_duplicates('label').set_index('label')[_AXES]
  total = ranked[ranked.metric == SCORES[0]].label.value_counts(sort=False)
  some = [Column(name, name, scale=metrics.F1.scale) for name in SCORES]
  cells = tables.cells(ranked, total.to_dict(), some)
  index = pd.MultiIndex.from_frame(places.loc[list(cells)])
  table = tables.Table(
    'robustness',
    'Robustness',
    tables.texts(some, cells).set_axis(index, axis=0),
    tables.numbers(some, cells).set_axis(index, axis=0),
  )
  (folder / 'robustness.csv').write_text(table.csv(), encoding='utf-8')
  (folder / 'robustness.md').write_text(
    f'{datasets.remark(found.attrs["data"])}\n\nmacro-F1, missing and noisy '
    f'sensors in %.\n\n{table.markdown()}\n',
    encoding='utf-8',
  )


def draw(found: pd.DataFrame, baseline: str, path: pathlib.Path) -> None:
  """Draws heat maps of differences to the baseline, a row of maps per score.

  Args:
    found: the grid.
    baseline: a method.
    path: of the picture.
  """
  names = [m for m in methods(found) if m not in (baseline, 'fm')]
  every = differences(found, baseline)
  every = every[every.method.isin(names) & every.metric.isin(SHOWN)]
  maps = 100 * every.pivot_table(
    'value', ['metric', 'method', _AXES[0]], _AXES[1]
  )
  bound = max(1.0, float(np.nanmax(np.abs(maps), initial=0.0)))
  noisy, missing = list(maps.columns), sorted(set(every[_AXES[0]]))
  figure, axes = palette.subplots(
    len(SHOWN),
    len(names),
    figsize=(1.7 * len(names) + 1.2, 2.3 * len(SHOWN)),
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  for row, col in np.ndindex(axes.shape):
    here: Any = axes[row, col]
    places = [(SHOWN[row], names[col], share) for share in missing]
    values = maps.reindex(places).to_numpy()
    image = here.imshow(values, cmap='PuOr_r', vmin=-bound, vmax=bound)
    for i, j in np.argwhere(np.isfinite(values)):
      here.text(
        j,
        i,
        f'{values[i, j]:+.1f}',
        ha='center',
        va='center',
        fontsize=8,
        color='white' if abs(values[i, j]) > 0.6 * bound else 'black',
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
