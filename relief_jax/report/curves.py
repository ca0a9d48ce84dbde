"""The curves of F1 against rounds, time, energy and bytes: one drawer."""

import math
import pathlib
from collections.abc import Sequence

from matplotlib import ticker

from relief_jax.report import charts, frame, labels, palette, stats
from relief_jax.report.gather import Collection
from relief_jax.storage import naming

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
  lines = {label: frame.curves(collection.frame, label, axis) for label in own}
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
    x, y = scale * x[kept], 100 * y[:, kept]
    if not len(x):
      continue
    kind = collection.styles[label]
    band = stats.bootstrap(y, folds)
    found.append(band is not None)
    if band is not None:
      axes.fill_between(x, *band, color=kind['color'], alpha=0.12, lw=0)
    elif len(y) > 1:
      axes.plot(x, y.T, color=kind['color'], linewidth=0.6, alpha=0.5)
    mean = stats.mean(y, folds)
    axes.plot(x, mean, markevery=max(1, len(x) // 8), **kind)
    name = f'{mean[-1]:.1f} {labels.short(label)}'
    ended.append(palette.End(x[-1], mean[-1], name, kind['color']))
  axes.set_ylabel('macro-F1 (%)')
  low, high = axes.get_ylim()
  axes.set_ylim(max(low, 0), min(high, 100))
  palette.tidy(axes)
  return found, ended


def charts_of(
  collection: Collection, most: int = charts.LINES + 1
) -> list[charts.Chart]:
  """Draws F1 against all of `AXES`, a chart per group of labels.

  Args:
    collection: of runs.
    most: labels of a group that are drawn.
  """
  made = []
  for group in collection.groups(charts.GROUPS):
    own = collection.foremost(most, group)
    panels, found = {}, []
    for axis, (name, *_) in AXES.items():
      figure, here = palette.subplots(figsize=(palette.WIDTH, 3.5))
      some, ends = draw(here, collection, own, axis)
      if ends:
        palette.name_ends(here, ends)
        panels[name], found = figure, some
    made.append(
      charts.Chart(
        naming.file_name(group, 'f1'),
        charts.titled('F1 against rounds, time, energy and bytes', group),
        'Macro-F1 of the fleet on held-out windows, mean over '
        f'{collection.numbers}, of {charts.those(collection, own, group)}; at '
        'the right the last one, %. ' + stats.told(found, collection.numbers),
        panels,
      )
    )
  return [chart for chart in made if chart.panels]


def panels(own: Sequence[str], baseline: str) -> list[list[str]]:
  """Divides labels among panels of at most seven; the baseline is in all.

  Args:
    own: labels, those of neighbouring styles beside each other.
    baseline: one of them, or none.
  """
  rest = [label for label in own if label != baseline]
  first = [baseline] if baseline in own else []
  most = len(palette.COLOURS) - 1
  size = math.ceil(len(rest) / max(1, math.ceil(len(rest) / most)))
  return [
    first + rest[i : i + size] for i in range(0, max(len(rest), 1), size or 1)
  ]


def save(
  collection: Collection, own: Sequence[str], folder: pathlib.Path
) -> None:
  """Writes F1 against rounds and against time of every group of labels.

  Args:
    collection: of runs.
    own: labels that are drawn, all of them.
    folder: made where it is not there.

  Raises:
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for group, members in labels.grouped(own).items():
    base = labels.baseline_of(members[0], collection.baseline)
    ranked = sorted(members, key=lambda label: -collection.f1[label])
    parts = panels(ranked, base)
    for axis in ('round', 'sim_seconds'):
      name = naming.file_name(group, f'f1_{AXES[axis][0]}')
      figure, grid = palette.subplots(
        len(parts),
        1,
        (palette.WIDTH + 1, 3.6 * len(parts)),
        sharex=True,
        sharey=True,
        squeeze=False,
      )
      found, ends = zip(
        *(
          draw(here, collection, part, axis)
          for here, part in zip(grid[:, 0], parts, strict=True)
        ),
        strict=True,
      )
      for here, own_ends in zip(grid[:, 0], ends, strict=True):
        palette.name_ends(here, own_ends)
      data = collection.runs[0].summary.get('dataset', '')
      head = ', '.join(filter(None, [str(data), group]))
      told = stats.told(sum(found, []), collection.numbers).replace('. ', '.\n')
      figure.suptitle(f'{head}\n{told}'.strip(), fontsize=8)
      figure.savefig(folder / f'{name}.png', dpi=150)
