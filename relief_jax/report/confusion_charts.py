"""The report's confusion matrices."""

import numpy as np
from matplotlib import ticker

from relief_jax.report import charts, labels, palette
from relief_jax.report.gather import Collection, Run
from relief_jax.storage import naming, records

_LABELS = 4
# Classes up to which cells hold numbers, and are all named.
_FEW, _MANY = 12, 40


def confusions(collection: Collection) -> list[charts.Chart]:
  """Draws the answers to each true class, all runs of a label together."""
  panels = {}
  for label in collection.foremost(_LABELS):
    found = [one for run in collection.by_label[label] if (one := read(run))]
    if found and all(one['classes'] == found[0]['classes'] for one in found):
      counts = np.sum([one['counts'] for one in found], axis=0)
      name = naming.file_name(label)
      panels[name] = _draw(label, found[0]['classes'], counts)
  if not panels:
    return []
  return [
    charts.Chart(
      'confusion',
      'Which classes are confused',
      'A row per true class, its windows’ share of each answer in %, at the '
      'last evaluation, all runs of a label together; by the server’s model '
      'with every sensor on, of personal methods by each device’s own. Behind '
      'the name: F1 of the class in %.',
      panels,
    )
  ]


def read(run: Run) -> dict:
  """Reads a run's `confusion.json`; {} of a run without one."""
  path = run.folder / 'confusion.json'
  return records.read_json(path) if path.exists() else {}


def _draw(label: str, classes: list[str], counts: np.ndarray):
  num = len(classes)
  share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
  total = counts.sum(0) + counts.sum(1)
  f1 = 100 * 2 * np.diagonal(counts) / np.maximum(total, 1)
  figure, here = palette.subplots(
    figsize=(palette.WIDTH, 1.6 + 0.16 * min(max(num, 8), _MANY))
  )
  image = here.imshow(share, cmap='Blues', vmin=0, vmax=100, aspect='auto')
  if num <= _FEW:
    for i, j in np.argwhere(share >= 0.5):
      here.text(
        j,
        i,
        f'{share[i, j]:.0f}',
        ha='center',
        va='center',
        fontsize=7,
        color='white' if share[i, j] > 60 else 'black',
      )
  every = -(-num // _MANY)
  at = range(0, num, every)
  here.set_yticks(
    at,
    [f'{naming.shorten(classes[i], 22)}  {f1[i]:.0f}  {i + 1}' for i in at],
    fontsize=7,
  )
  along = at[:: -(-len(at) // 14)]
  here.set_xticks(along, [str(i + 1) for i in along], fontsize=7)
  here.set_xlabel('answer, by number', fontsize=8)
  here.set_title(naming.shorten(labels.short(label)), fontsize=10)
  bar = figure.colorbar(image, ax=here, location='bottom', aspect=40)
  bar.ax.xaxis.set_major_formatter(ticker.PercentFormatter(100))
  bar.ax.tick_params(labelsize=7)
  return figure
