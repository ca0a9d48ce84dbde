"""The curves of the main metric against rounds, time, energy and bytes."""

import pathlib
import textwrap
from collections.abc import Sequence

from matplotlib import ticker

from relief_jax.report import charts, frame, labels, palette, stats
from relief_jax.report.gather import Collection

# Metric, name of the file, title and scale of each x axis.
AXES = {
  'round': ('rounds', 'round', 1.0),
  'sim_seconds': ('time', 'simulated time ({})', 1.0),
  'joules': ('energy', 'simulated energy (J)', 1.0),
  'up_bytes': ('bytes', 'sent by the devices (MB)', 1e-6),
}


def draw(
  axes, collection: Collection, own: Sequence[str], axis: str
) -> tuple[list[bool], list[palette.End]]:
  """Draws the mean of each label's runs, and an interval or every run.

  The names are left to `palette.name_ends`, when all panels are drawn.

  Args:
    axes: drawn on.
    collection: of runs.
    own: labels.
    axis: of `AXES`.

  Returns:
    Whether an interval was drawn, and the end, of each label with a curve.
  """
  metric = collection.metric
  lines = {
    label: frame.curves(collection.frame, label, axis, metric.name)
    for label in own
  }
  lines = {label: line for label, line in lines.items() if len(line[0])}
  if not lines:
    return [], []
  _, title, scale = AXES[axis]
  if axis == 'sim_seconds':
    unit, scale = palette.time_unit(max(x[-1] for x, *_ in lines.values()))
    title = title.format(unit)
  axes.set_xlabel(title)
  log = False
  if axis == 'round':
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
  else:
    firsts = [x[x > 0][0] for x, *_ in lines.values() if (x > 0).any()]
    ends = [x[-1] for x, *_ in lines.values()]
    if min(ends) > 0 and max(ends) > 3 * min(ends):
      log = palette.logarithmic(axes, scale * min(firsts), scale * max(ends))
  found, ended = [], []
  for label, (x, y, folds) in lines.items():
    kept = x > 0 if log else x >= 0  # a logarithmic axis has no place for 0
    x, y = scale * x[kept], metric.scale * y[:, kept]
    if not len(x):
      continue
    kind = collection.styles[label]
    band = stats.bootstrap(y, folds)
    found.append(band is not None)
    if band is not None:
      axes.fill_between(x, *band, color=kind['color'], alpha=0.12, lw=0)
    elif len(y) > 1:
      axes.plot(x, y.T, color=kind['color'], linewidth=0.6, alpha=0.5)
    mean = stats.units(y, folds).mean(0)
    axes.plot(x, mean, markevery=max(1, len(x) // 8), **kind)
    number = metric.text(mean[-1] / metric.scale).removesuffix(' %')
    name = f'{number} {labels.short(label)}'
    ended.append(palette.End(x[-1], mean[-1], name, kind['color']))
  axes.set_ylabel(metric.label)
  low, high = axes.get_ylim()
  axes.set_ylim(max(low, 0), min(high, 100) if metric.percent else high)
  palette.tidy(axes)
  return found, ended


def charts_of(collection: Collection) -> list[charts.Chart]:
  """Draws the main metric against all of `AXES`, a chart per group."""
  metric = collection.metric

  def one(own):
    made, found = {}, []
    for axis, (name, *_) in AXES.items():
      figure, here = palette.subplots(figsize=(palette.WIDTH, 3.5))
      some, ends = draw(here, collection, own, axis)
      if ends:
        palette.name_ends(here, ends)
        made[name], found = figure, some
    return (
      f'{metric.head} of the fleet on held-out windows, mean over '
      f'{collection.numbers}, of {charts.those(collection, own)}; at the '
      f'right the last one{", %" if metric.percent else ""}. '
      f'{stats.told(found, collection.numbers)}'
    ), made

  title = f'{metric.short} against rounds, time, energy and bytes'
  return charts.per_group(collection, metric.name, title, palette.LINES, one)


def save(collection: Collection, folder: pathlib.Path) -> None:
  """Writes the main metric against rounds and time, with the caption above.

  Args:
    collection: of runs.
    folder: made where it is not there.

  Raises:
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  data = collection.runs[0].summary.get('dataset', '')
  for chart in charts_of(collection):
    head = '\n'.join(textwrap.wrap(f'{data}. {chart.caption}', 88))
    for name in ('rounds', 'time'):
      if figure := chart.panels.get(name):
        figure.suptitle(head, fontsize=6)
        figure.savefig(folder / f'{chart.name}_{name}.png', dpi=150)
