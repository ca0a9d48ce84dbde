"""The two figures of a comparison: macro-F1 against rounds and against time."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker

from relief_jax.report import palette, tables
from relief_jax.storage import naming

PER_PANEL = len(palette.COLOURS)


def curve(runs: Sequence[tables.Run], axis: str):
  """Computes a label's mean curve.

  Args:
    runs: of one label.
    axis: 'round' or 'sim_seconds'. Seeds differ in their times: they are
      read off at the mean times, by linear interpolation.

  Returns:
    x, mean and half the 95 % interval (NaN with one seed), each [evaluations].
  """
  runs = [run for run in runs if run.metrics]
  length = min(len(run.metrics) for run in runs)
  points = [
    [(m[axis], 100 * m['f1']) for m in run.metrics[:length]] for run in runs
  ]
  at, f1 = np.moveaxis(np.array(points, float), -1, 0)
  x = at.mean(0)
  y = np.stack([np.interp(x, *one) for one in zip(at, f1, strict=True)])
  cells = [tables.interval(list(column)) for column in y.T]
  return x, np.array([c.mean for c in cells]), np.array([c.half for c in cells])


def figures(
  runs: Sequence[tables.Run],
  folder: pathlib.Path,
  baseline: str,
  numbers: str = 'seeds',
) -> list[pathlib.Path]:
  """Draws both figures of every group of labels.

  Args:
    runs: all of them.
    folder: made where it is not there.
    baseline: drawn in black in every panel.
    numbers: what a mean is over, 'seeds' or 'folds'.

  Returns:
    The files.

  Raises:
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  labels = tables.by_label(run for run in runs if run.metrics)
  groups: dict[str, dict[str, list[tables.Run]]] = {}
  for label, own in labels.items():
    groups.setdefault(tables.group_of(label), {})[label] = own
  files = []
  for group, members in groups.items():
    for axis in ('round', 'sim_seconds'):
      stem = 'f1_rounds' if axis == 'round' else 'f1_time'
      name = '_'.join(filter(None, [group.replace('/', '_'), stem]))
      files.append(folder / f'{naming.fit(name)}.png')
      head = ', '.join(filter(None, [group, _count(members, numbers)]))
      _draw(members, axis, files[-1], head, baseline)
  return files


def _panels(labels: list[str], base: str) -> list[list[str]]:
  """Divides labels among panels; the baseline is in all."""
  rest = [label for label in labels if label != base]
  first = [base] if base in labels else []
  size = PER_PANEL - 1
  count = max(1, math.ceil(len(rest) / size))
  size = math.ceil(len(rest) / count)
  return [first + rest[i * size : (i + 1) * size] for i in range(count)]


def _count(members, numbers: str) -> str:
  return f'{max(map(len, members.values()))} {numbers}'


def _draw(members, axis: str, path: pathlib.Path, head, baseline) -> None:
  base = tables.baseline_of(next(iter(members)), baseline)
  panels = _panels(list(members), base)
  curves = {label: curve(runs, axis) for label, runs in members.items()}
  figure, axes = palette.subplots(
    len(panels),
    1,
    figsize=(8, 4.2 * len(panels)),
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  last = axes[-1, 0]
  if axis == 'round':
    last.set_xlabel('round')
    last.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  else:
    ends = [x[-1] for x, _, _ in curves.values()]
    # A logarithmic axis has no place for the start.
    if min(ends) > 0 and max(ends) / min(ends) > 3:
      starts = [x[x > 0][0] for x, _, _ in curves.values() if (x > 0).any()]
      palette.logarithmic(last)
      last.set_xlim(0.8 * min(starts), 1.25 * max(ends))
      curves = {
        label: (x[x > 0], mean[x > 0], half[x > 0])
        for label, (x, mean, half) in curves.items()
      }
    last.set_xlabel('simulated time (s)')
  for here, labels in zip(axes[:, 0], panels, strict=True):
    _panel(here, labels, curves, base)
  last.set_ylim(bottom=max(0, last.get_ylim()[0]))  # shared by all
  sample = next(iter(members.values()))
  seeds = max(len(runs) for runs in members.values())
  dataset = sample[0].summary.get('dataset', '')
  head = ', '.join(filter(None, [str(dataset), head]))
  band = ', band: 95 % interval' if seeds > 1 else ''
  figure.suptitle(f'{head}{band}', fontsize=11)
  figure.savefig(path, dpi=150)


def _panel(here, labels: list[str], curves, base: str) -> None:
  """Draws one panel; its legend is in the order of the curves' ends."""
  base_line, *others = zip(palette.COLOURS, palette.STYLES, strict=True)
  left = iter(others)
  handles = {}
  for label in labels:
    colour, style = base_line if label == base else next(left)
    x, mean, half = curves[label]
    (handles[label],) = here.plot(
      x, mean, color=colour, linestyle=style, linewidth=1.8
    )
    if np.isfinite(half).all():
      low, high = np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100)
      here.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
      for edge in (low, high):
        here.plot(x, edge, color=colour, alpha=0.4, linewidth=0.6)
  ranked = sorted(labels, key=lambda label: -curves[label][1][-1])
  palette.legend(
    here,
    [handles[label] for label in ranked],
    [f'{x.rpartition("/")[2]}  {curves[x][1][-1]:.1f}' for x in ranked],
    loc='center left',
    bbox_to_anchor=(1.01, 0.5),
    frameon=False,
    handlelength=3.2,
    title='last F1 (%)',
    alignment='left',
  )
  here.set_ylabel('macro-F1 (%)')
  palette.tidy(here)
