"""The figures of a report on whole runs, from what they recorded.

A function that finds nothing to draw returns no chart.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker

from relief_jax.report import charts, frame, labels, palette, stats
from relief_jax.report.gather import Collection
from relief_jax.storage import naming


def divergence(collection: Collection) -> list[charts.Chart]:
  """Draws the divergence of updates per group of parameters (paper, Fig. 3)."""
  start = 'divergence.'
  every = collection.frame[
    collection.frame.metric.str.startswith(start) & (collection.frame.value > 0)
  ]
  names = every.metric.str.removeprefix(start)
  styles = {name: palette.style(i) for i, name in enumerate(names.unique())}

  def line_each(label):
    mean = every[every.label == label].groupby(['metric', 'round'], sort=False)
    shown = mean.value.mean().unstack('round').T
    height = max(3.2, 0.6 + 0.18 * len(shown.columns))
    figure, here = palette.subplots(figsize=(palette.WIDTH, height))
    palette.logarithmic_y(here)
    ends = []
    for metric, line in shown.items():
      name, line = str(metric).removeprefix(start), line.dropna()
      kind = styles[name] | {'linewidth': 1.1}
      here.plot(line, markevery=max(1, len(line) // 6), **kind)
      ends.append(
        palette.End(line.index[-1], line.iloc[-1], name, kind['color'])
      )
    here.set_title(naming.shorten(labels.short(label)), fontsize=10)
    here.set_xlabel('round')
    here.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    here.set_ylabel('divergence')
    palette.tidy(here)
    palette.name_ends(here, ends, 7)
    return figure

  def one(own):
    return (
      'How far the updates of those who trained a group differ, as the '
      f'method tracks it, mean over {collection.numbers}; logarithmic, every '
      'panel with its own axis.'
    ), {
      naming.file_name(labels.short(label)): line_each(label)
      for label in own
      if (every.label == label).any()
    }

  title = 'Divergence per group of parameters'
  return charts.per_group(collection, 'divergence', title, 4, one)


def differences(collection: Collection) -> list[charts.Chart]:
  """Draws ablations: every label against its baseline."""
  metric = collection.metric
  name = f'{metric.name}_difference'
  every = collection.values[collection.values.metric == name]

  def one(own):
    rows = [
      (label, some)
      for label in own
      if labels.short(label) != collection.baseline
      and len(some := every[every.label == label])
    ]
    if not rows:
      return '', {}
    rows.sort(key=lambda row: metric.sign * row[1].value.mean())
    figure, here = palette.subplots(
      figsize=(palette.WIDTH, 1.1 + 0.28 * len(rows))
    )
    here.axvline(0, color='black', linewidth=1)
    found = [
      palette.around(
        here, at, some, collection.styles[label], metric.scale, across=True
      )[1]
      for at, (label, some) in enumerate(rows)
    ]
    names = [naming.shorten(labels.short(label), 30) for label, _ in rows]
    here.set_yticks(range(len(rows)), names, fontsize=8)
    here.set_ylim(-0.6, len(rows) - 0.4)
    unit = ' (points)' if metric.percent else ''
    here.set_xlabel(f'{metric.title} minus that of {collection.baseline}{unit}')
    here.xaxis.set_major_locator(ticker.MaxNLocator(7))
    palette.tidy(here)
    return (
      f'Difference of the last {metric.title}'
      + (' in percentage points, ' if metric.percent else ', ')
      + f'paired by {collection.numbers[:-1]}. '
      + f'{stats.told(found, collection.numbers)} An '
      'interval that crosses the line is no proven difference.'
    ), {'': figure}

  title = f'Against {collection.baseline}'
  return charts.per_group(collection, 'differences', title, 24, one)


def sensitivity(collection: Collection) -> list[charts.Chart]:
  """Draws the main metric against every number that a sweep varied.

  A number that follows from the method, since it was chosen for each, is none.
  """
  metric = collection.metric
  vary = {'seed', 'data.fold'}
  keys = dict.fromkeys(
    key
    for run in collection.runs
    for key, value in run.values.items()
    if frame.is_number(value) and key not in vary
  )
  made = []
  for key in keys:
    rows = [
      (
        _rest(run.values, {key} | vary),
        _kind(run.values),
        run.values[key],
        run.fold,
        run.metrics[-1][metric.name],
      )
      for run in collection.runs
      if frame.is_number(run.values.get(key)) and metric.name in run.metrics[-1]
    ]
    some = pd.DataFrame(rows, columns=['rest', 'kind', 'x', 'fold', 'value'])
    values = sorted(some.x.unique())
    if (some.groupby('kind').x.nunique() < 2).all():
      continue
    lines = list(some.groupby('rest', sort=False))
    drawn = [one for one in lines if one[1].x.nunique() > 1]
    figure, here = palette.subplots(figsize=(palette.WIDTH, 3.5))
    log = palette.logarithmic(here, values[0], values[-1])
    place = np.log(values) if log else np.array(values)
    found = []
    if not drawn or len(lines) > len(palette.COLOURS):
      y = metric.scale * some.value
      here.plot(some.x, y, 'o', color='0.3', ms=4, alpha=0.6)
    else:
      found = _lines(here, collection, lines, log, values)
    if np.diff(place).min() > 0.08 * (place[-1] - place[0]):  # room for each
      here.set_xticks(values, [f'{value:g}' for value in values])
      here.xaxis.set_minor_locator(ticker.NullLocator())
    here.set_xlabel(labels.short(key.replace('.', '/')))
    here.set_ylabel(f'last {metric.label}')
    palette.tidy(here)
    told = f'mean. {stats.told(found, collection.numbers)}'
    told = told if found else 'a point per run.'
    made.append(
      charts.Chart(
        naming.file_name('sensitivity', key),
        f'Sensitivity to {key}',
        f'Last {metric.title} against {key}, {told}',
        {'': figure},
      )
    )
  return made


def _kind(values: Mapping) -> str:
  """Gives what a run sets that is no number: its method, mostly."""
  return str({k: v for k, v in values.items() if not frame.is_number(v)})


def _rest(values: Mapping, without: set[str]) -> str:
  """Names what else the sweep set."""
  return ', '.join(
    str(v) if k == 'method' else f'{k.rpartition(".")[2]}={v}'
    for k, v in values.items()
    if k not in without
  )


def _lines(here, collection, lines, log, values) -> list[bool]:
  """Draws a line per combination of what else was set, and names it."""
  found, ends, handles = [], [], {}
  known = {labels.short(x): kind for x, kind in collection.styles.items()}
  plain = [
    known.get(rest, palette.style(i)) for i, (rest, _) in enumerate(lines)
  ]
  step = 0.012 * (np.log(values[-1] / values[0]) if log else np.ptp(values))
  for i, ((rest, line), kind) in enumerate(zip(lines, plain, strict=True)):
    aside = step * (i - (len(lines) - 1) / 2)  # that intervals do not hide
    at, mean = [], []
    for x, some in line.groupby('x'):
      at.append(x * math.exp(aside) if log else x + aside)
      handles[rest], told = palette.around(
        here, at[-1], some, kind, collection.metric.scale
      )
      mean.append(handles[rest].get_ydata()[0])
      found.append(told)
    here.plot(
      at, mean, color=kind['color'], linestyle=kind['linestyle'], lw=1.4
    )
    ends.append(palette.End(at[-1], mean[-1], rest or 'all', kind['color']))
  if len(ends) > 1:
    palette.name_ends(here, ends)
  return found


# Labels that are named in the figure of F1, time and energy.
_NAMED = 48
_LETTERS = 7.5  # points


def pareto(collection: Collection) -> list[charts.Chart]:
  """Draws labels by score, time and energy, and which of them none beats."""
  metric = collection.metric
  costs = [
    frame.last(collection.frame, cost).groupby('label').value.mean()
    for cost in ('sim_seconds', 'joules')
  ]
  points = {
    label: (metric.scale * score, *(float(cost[label]) for cost in costs))
    for label, score in collection.rank.items()
    if all(label in cost for cost in costs)
  }
  if len(points) < 2:
    return []
  best = front(points)
  others = sorted(set(points) - set(best), key=lambda x: -points[x][0])
  named = [*best, *others][: max(len(best), _NAMED)]
  unit, scale = palette.time_unit(max(p[1] for p in points.values()))
  scored = {label: metric.sign * p[0] for label, p in points.items()}
  panels = {}
  for name, axis, title, factor in (
    ('time', 1, f'simulated time in all ({unit})', scale),
    ('energy', 2, 'simulated energy in all (J)', 1.0),
  ):
    x = {label: factor * p[axis] for label, p in points.items()}
    figure = _scatter(x, scored, best, named, collection)
    figure.axes[0].set_xlabel(title)
    panels[name] = figure
  rest = len(points) - len(named)
  return [
    charts.Chart(
      'pareto',
      f'{metric.short}, time and energy',
      f'Filled, bold: no other label is as good in {metric.short} for at most '
      'its time and its energy. Hollow: some other label is. '
      + (f'Grey: the {rest} worst of the others. ' if rest else '')
      + f'Line: the best {metric.short} for a cost.',
      panels,
    )
  ]


def _scatter(
  x: Mapping[str, float],
  y: Mapping[str, float],
  best: Sequence[str],
  named: Sequence[str],
  collection: Collection,
) -> palette.Figure:
  """Draws costs against scores, and the line of the best score for a cost.

  Args:
    x: cost of every label.
    y: its score.
    best: labels that none beats.
    named: labels with a name, `best` among them.
    collection: of the runs, with the looks of labels.
  """
  metric, styles = collection.metric, collection.styles
  high = palette.height_for(len(named), _LETTERS)
  figure, here = palette.subplots(figsize=(palette.WIDTH, high))
  palette.logarithmic(here, min(x.values()), max(x.values()))
  several = len(labels.grouped(named)) > 1
  ends = []
  for label in named:
    look = {k: styles[label][k] for k in ('color', 'marker')}
    first = label in best
    here.plot(
      x[label],
      y[label],
      linestyle='none',
      markersize=7 if first else 5,
      markerfacecolor=look['color'] if first else 'none',
      zorder=3 if first else 2.5,
      **look,
    )
    shown = label if several else labels.short(label)
    weight = 'bold' if first else 'normal'
    ends.append(palette.End(x[label], y[label], shown, look['color'], weight))
  rest = [label for label in x if label not in named]
  here.plot([x[i] for i in rest], [y[i] for i in rest], '.', color='0.75', ms=3)
  steps = pd.DataFrame(
    {'x': x, 'y': {k: metric.sign * v for k, v in y.items()}}
  )
  steps = steps.sort_values(['x', 'y'], ascending=[True, False])
  top = metric.sign * steps.y.cummax()
  here.step(steps.x, top, where='post', color='0.3', lw=0.8)
  here.set_ylabel(f'last {metric.label}')
  palette.tidy(here)
  palette.name_ends(here, ends, _LETTERS)
  return figure


def front(points: Mapping[str, tuple[float, ...]]) -> list[str]:
  """Finds the names that no other beats: first number large, others small.

  >>> front({'a': (2.0, 2.0), 'b': (1.0, 1.0), 'c': (1.0, 3.0)})
  ['b', 'a']

  The others count to three digits: nobody waits for less.

  >>> front({'a': (2.0, 1.0001), 'b': (1.0, 1.0)})
  ['a']
  """
  points = {
    name: (score, *(float(f'{cost:.3g}') for cost in costs))
    for name, (score, *costs) in points.items()
  }

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
