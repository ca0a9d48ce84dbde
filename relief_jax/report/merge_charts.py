"""The error of merged adapters over rounds."""

import numpy as np

from relief_jax.report import charts, frame, labels, palette
from relief_jax.report.gather import Collection

ERROR = 'merge_error'
_EXACT = 1e-5  # below this only rounding is left


def errors(collection: Collection) -> list[charts.Chart]:
  """Draws how far merged products are from their mean; [] where none is told.

  Args:
    collection: of runs with `merge_error` in their records.
  """

  def draw(own):
    figure, here = palette.subplots(figsize=(palette.WIDTH, 3.5))
    found = {}
    for label in own:
      x, y, _ = frame.curves(collection.frame, label, 'round', ERROR)
      if len(x):
        found[label] = x, y.mean(0)
    if not found:
      return '', {}
    # Rounding has no place on a logarithmic axis: it lies below all the rest.
    some = np.concatenate([mean[mean > _EXACT] for _, mean in found.values()])
    least = some.min(initial=1.0) / 10
    ends = []
    for label, (x, mean) in found.items():
      kind = collection.styles[label]
      shown = np.where(mean > _EXACT, mean, least)
      here.plot(x, shown, markevery=max(1, len(x) // 8), **kind)
      value = f'{mean[-1]:.1g}' if mean[-1] > _EXACT else 'exact'
      name = f'{value} {labels.short(label)}'
      ends.append(palette.End(x[-1], shown[-1], name, kind['color']))
    palette.logarithmic_y(here)
    here.set_xlabel('round')
    here.set_ylabel('relative error of the merge')
    palette.tidy(here)
    palette.name_ends(here, ends)
    return (
      'Norm of the difference between the products of the merged adapters and '
      'the mean of the devices’ products, in norms of that mean, averaged over '
      f'the rounds since the last evaluation and {collection.numbers}, of '
      f'{charts.those(collection, own)} that record it. Exact ones, off by '
      'rounding only, are drawn at a tenth of the least error of the others.'
    ), {'': figure}

  return charts.per_group(
    collection, ERROR, 'Error of merged adapters', palette.LINES, draw
  )
