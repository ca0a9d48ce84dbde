"""The figures of a report on whole runs, from what they recorded.

A function that finds nothing to draw returns no figure.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from relief_jax.report import charts, gather, palette, plots, tables
from relief_jax.report.gather import Collection, Found
from relief_jax.storage import naming


def _log(axes, values: Iterable[float]) -> bool:
  """Makes the x axis logarithmic if values span more than a factor of three."""
  values = list(values)
  if not values or min(values) <= 0 or max(values) / min(values) <= 3:
    return False
  palette.logarithmic(axes)
  return True


AXES = (
  ('round', 'round', 1.0),
  ('sim_seconds', 'simulated time (s)', 1.0),
  ('joules', 'simulated energy (J)', 1.0),
  ('up_bytes', 'sent by the devices (MB)', 1e-6),
)


def curves(collection: Collection) -> list[charts.Chart]:
  """Draws macro-F1 against rounds, simulated time, energy and bytes."""
  made = []
  for group in gather.groups(collection, charts.GROUPS):
    labels = gather.foremost(collection, charts.LINES + 1, group)
    figure, grid = palette.subplots(2, 2, figsize=(8.6, 6.6), sharey=True)
    handles = {}
    for here, (axis, title, scale) in zip(grid.flat, AXES, strict=True):
      drawn = {
        label: plots.curve(tables.mean_runs(one.run for one in own), axis)
        for label, own in labels.items()
      }
      ends = [x[-1] * scale for x, _, _ in drawn.values()]
      some = min(len(x) for x, _, _ in drawn.values()) > 3
      log = axis != 'round' and some and _log(here, ends)
      for i, (label, (x, mean, half)) in enumerate(drawn.items()):
        keep = x > 0 if log else x >= 0
        x, mean, half = x[keep] * scale, mean[keep], half[keep]
        if not len(x):
          continue
        kind = palette.style(i)
        (handles[label],) = here.plot(
          x, mean, markevery=max(1, len(x) // 8), **kind
        )
        if np.isfinite(half).all():
          here.fill_between(
            x, mean - half, mean + half, color=kind['color'], alpha=0.1, lw=0
          )
      here.set_xlabel(title)
      palette.tidy(here)
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(max(low, 0), min(high, 100))
    for here in grid[:, 0]:
      here.set_ylabel('macro-F1 (%)')
    charts.legend(figure, handles)
    several = max(map(len, labels.values())) > 1
    band = f' Bands: 95 % intervals over {collection.numbers}.'
    made.append(
      charts.Chart(
        naming.file_name(group, 'f1'),
        charts.titled('F1 against rounds, time, energy and bytes', group),
        'Macro-F1 of the fleet on held-out windows, mean over '
        f'{collection.numbers}, of {charts.those(collection, labels, group)}.'
        + (band if several else ''),
        figure,
      )
    )
  return made


def divergence(collection: Collection) -> list[charts.Chart]:
  """Draws the divergence of updates per group of parameters (paper, Fig. 3)."""
  made = []
  for group in gather.groups(collection, charts.GROUPS):
    labels = {
      label: own
      for label, own in gather.foremost(collection, charts.LINES, group).items()
      if _groups(own)
    }
    if not labels:
      continue
    rows = math.ceil(len(labels) / 2)
    figure, grid = palette.subplots(
      rows,
      min(2, len(labels)),
      figsize=(8.6, 0.9 + 2.6 * rows),
      sharex=True,
      sharey=True,
      squeeze=False,
    )
    handles: dict[str, Any] = {}
    for here, (label, own) in zip(grid.flat, labels.items(), strict=False):
      for i, name in enumerate(_groups(own)):
        x, y = _mean_by_round(own, name)
        if len(x):
          (handles[name],) = here.plot(x, y, **palette.style(i))
      here.set_title(naming.shorten(tables.short(label)), fontsize=10)
      palette.logarithmic_y(here)
      palette.tidy(here)
    for here in grid.flat[len(labels) :]:
      here.set_visible(False)
    for here in grid[-1]:
      here.set_xlabel('round')
    for here in grid[:, 0]:
      here.set_ylabel('divergence')
    charts.legend(figure, handles, short=False)
    made.append(
      charts.Chart(
        naming.file_name(group, 'divergence'),
        charts.titled('Divergence per group of parameters', group),
        'How far the updates of those who trained a group differ, as the '
        f'method tracks it, mean over {collection.numbers}; logarithmic.',
        figure,
      )
    )
  return made


def _groups(own: Sequence[Found]) -> list[str]:
  """Lists groups of parameters with a divergence that is no constant zero."""
  last = own[0].run.metrics[-1].get('divergence') or {}
  return [name for name, value in last.items() if value]


def _mean_by_round(own: Sequence[Found], name: str):
  values: dict[int, list[float]] = {}
  for one in own:
    for record in one.run.metrics:
      found = (record.get('divergence') or {}).get(name)
      if found:
        values.setdefault(record['round'], []).append(found)
  rounds = sorted(values)
  return np.array(rounds), np.array([np.mean(values[r]) for r in rounds])


def differences(collection: Collection) -> list[charts.Chart]:
  """Draws ablations: every label against its baseline."""
  cells = tables.table(collection.runs, collection.baseline)
  made = []
  for group in gather.groups(collection, charts.GROUPS):
    base = tables.baseline_of(
      f'{group}/x' if group else 'x', collection.baseline
    )
    rows = [
      (label, cells[label]['f1_difference'])
      for label in gather.foremost(collection, 24, group)
      if label != base and cells[label]['f1_difference'].number
    ]
    if not rows:
      continue
    rows.sort(key=lambda row: row[1].mean)
    figure, here = palette.subplots(figsize=(8.6, 1.1 + 0.32 * len(rows)))
    at = np.arange(len(rows))
    mean = np.array([cell.mean for _, cell in rows])
    half = np.nan_to_num([cell.half for _, cell in rows])
    here.axvline(0, color='black', linewidth=1)
    here.errorbar(mean, at, xerr=half, fmt='o', color=palette.BLUE, capsize=3)
    here.set_yticks(
      at, [naming.shorten(tables.short(label)) for label, _ in rows]
    )
    here.set_ylim(-0.6, len(rows) - 0.4)
    here.set_xlabel(
      f'macro-F1 minus that of {collection.baseline} (percentage points)'
    )
    palette.tidy(here)
    made.append(
      charts.Chart(
        naming.file_name(group, 'differences'),
        charts.titled(f'Against {collection.baseline}', group),
        'Difference of the last macro-F1, paired by '
        f'{collection.numbers[:-1]}, with its 95 % interval where there are '
        'several. An interval that crosses the line is no proven difference.',
        figure,
      )
    )
  return made


def sensitivity(collection: Collection) -> list[charts.Chart]:
  """Draws F1 against every number that a sweep varied."""
  vary = {'seed', 'data.fold'}
  keys = dict.fromkeys(
    key
    for one in collection.found
    for key, value in one.values.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
  )
  made = []
  for key in keys:
    if key in vary:
      continue
    lines: dict[str, dict[float, dict[tuple[int, int], float]]] = {}
    for one in collection.found:
      if not isinstance(one.values.get(key), int | float):
        continue
      rest = ', '.join(
        f'{k.rpartition(".")[2]}={v}' if k != 'method' else str(v)
        for k, v in one.values.items()
        if k not in vary | {key}
      )
      line = lines.setdefault(rest, {})
      f1 = 100 * one.run.metrics[-1]['f1']
      line.setdefault(one.values[key], {})[one.run.pair] = f1
    values = sorted({value for line in lines.values() for value in line})
    if len(values) < 2:
      continue
    scattered = max(map(len, lines.values())) < 2 or len(lines) > len(
      palette.COLOURS
    )
    figure, here = palette.subplots(figsize=(8.6, 4.2))
    log = _log(here, values)
    handles = {}
    if scattered:
      points = [
        (x, y)
        for line in lines.values()
        for x, ys in line.items()
        for y in ys.values()
      ]
      here.plot(*zip(*points, strict=True), 'o', color=palette.BLUE, ms=5)
    else:
      for i, (rest, line) in enumerate(lines.items()):
        x = sorted(line)
        cells = [tables.interval(tables.averaged(line[v])) for v in x]
        handles[rest or 'all'] = here.errorbar(
          _aside(x, values, log, i - (len(lines) - 1) / 2),
          [c.mean for c in cells],
          yerr=np.nan_to_num([c.half for c in cells]),
          capsize=3,
          elinewidth=1,
          **palette.style(i),
        )
    at = np.log(values) if log else np.array(values)
    if np.diff(at).min() > 0.06 * (at[-1] - at[0]):  # room for each
      here.set_xticks(values, [f'{value:g}' for value in values])
      here.xaxis.set_minor_locator(ticker.NullLocator())
    short = key.rpartition('.')[2]
    here.set_xlabel(short)
    here.set_ylabel('last macro-F1 (%)')
    palette.tidy(here)
    if len(handles) > 1:
      charts.legend(figure, handles)
    made.append(
      charts.Chart(
        naming.file_name('sensitivity', key),
        f'Sensitivity to {key}',
        f'Last macro-F1 against {key}, '
        + (
          'a point per run.'
          if scattered
          else f'mean and 95 % interval over {collection.numbers}.'
        ),
        figure,
      )
    )
  return made


def _aside(x: Sequence[float], values, log: bool, step: float) -> np.ndarray:
  """Moves a line a little to the side, so that its intervals can be told."""
  share = 0.008 * step
  if log:
    return np.array(x) * (values[-1] / values[0]) ** share
  return np.array(x) + share * (values[-1] - values[0])


def pareto(collection: Collection) -> list[charts.Chart]:
  """Draws the labels that none beats in F1, time and energy."""
  points = {}
  for label, own in gather.by_label(collection.found).items():
    costs = [
      [one.run.summary.get(k) for one in own]
      for k in ('sim_seconds_total', 'joules_total')
    ]
    if all(v is not None for row in costs for v in row):
      points[label] = (gather.f1_of(own), *map(_mean, costs))
  if len(points) < 2:
    return []
  figure, grid = palette.subplots(1, 2, figsize=(8.6, 4.6), sharey=True)
  best = front(points)
  number = {label: i + 1 for i, label in enumerate(best)}
  for here, axis, title in (
    (grid[0], 1, 'simulated time in all (s)'),
    (grid[1], 2, 'simulated energy in all (J)'),
  ):
    _log(here, [p[axis] for p in points.values()])
    here_too: dict[tuple[float, float], list[int]] = {}
    for label, p in points.items():
      inside = label in number
      place = round(p[axis], 9), round(p[0], 9)
      here.plot(
        p[axis],
        p[0],
        marker='o' if inside else 'x',
        color=palette.BLUE if inside else '0.55',
        markersize=7,
        linestyle='none',
      )
      if inside:
        here_too.setdefault(place, []).append(number[label])
    for place, numbers in here_too.items():
      here.annotate(
        ', '.join(map(str, sorted(numbers))),
        place,
        textcoords='offset points',
        xytext=(6, 5),
        fontsize=9,
      )
    line = sorted((p[axis], -p[0]) for p in points.values())
    x: list[float] = []
    y: list[float] = []
    for cost, minus_f1 in line:
      if not y or -minus_f1 > y[-1]:
        x.append(cost)
        y.append(-minus_f1)
    here.step(x, y, where='post', color='black', linewidth=1, linestyle='--')
    here.set_xlabel(title)
    palette.tidy(here)
  grid[0].set_ylabel('last macro-F1 (%)')
  listed = '; '.join(f'{i} {label}' for label, i in number.items())
  return [
    charts.Chart(
      'pareto',
      'F1, time and energy',
      'Dots: no other label has at least its F1 for at most its time and its '
      f'energy: {listed}. Crosses: some other label does. Dashed: the best F1 '
      'for a cost.',
      figure,
    )
  ]


def _mean(values: Sequence[Any]) -> float:
  return float(np.mean(values))


def front(points: dict[str, tuple[float, ...]]) -> list[str]:
  """Finds the names that no other beats: first number large, others small.

  >>> front({'a': (2.0, 2.0), 'b': (1.0, 1.0), 'c': (1.0, 3.0)})
  ['b', 'a']
  """

  def beaten(own, other):
    better = other[0] >= own[0] and all(
      o <= p for o, p in zip(other[1:], own[1:], strict=True)
    )
    return better and other != own

  kept = [
    name
    for name, own in points.items()
    if not any(beaten(own, other) for other in points.values())
  ]
  return sorted(kept, key=lambda name: points[name][1:])
