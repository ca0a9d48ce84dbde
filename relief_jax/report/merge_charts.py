"""The error of merged adapters over rounds."""

from relief_jax.report import charts, frame, labels, palette
from relief_jax.report.gather import Collection

ERROR = 'merge_error'
_LEAST = 1e-9  # an exact merge leaves rounding only: drawn as no less


def errors(collection: Collection) -> list[charts.Chart]:
  """Draws how far merged products are from their mean; [] where none is told.

  Args:
    collection: of runs with `merge_error` in their records.
  """

  def draw(own):
    figure, here = palette.subplots(figsize=(palette.WIDTH, 3.5))
    ends = []
    for label in own:
      x, y, _ = frame.curves(collection.frame, label, 'round', ERROR)
      if not len(x):
        continue
      kind = collection.styles[label]
      mean = y.mean(0).clip(_LEAST)
      here.plot(x, mean, markevery=max(1, len(x) // 8), **kind)
      name = f'{mean[-1]:.1g} {labels.short(label)}'
      ends.append(palette.End(x[-1], mean[-1], name, kind['color']))
    if not ends:
      return '', {}
    here.set_yscale('log')
    here.set_xlabel('round')
    here.set_ylabel('relative error of the merge')
    palette.tidy(here)
    palette.name_ends(here, ends)
    return (
      'Norm of the difference between the products of the merged adapters and '
      'the mean of the devices’ products, in norms of that mean, averaged over '
      f'the rounds since the last evaluation and {collection.numbers}, of '
      f'{charts.those(collection, own)} that record it. Where products are '
      'averaged exactly what is left is rounding.'
    ), {'': figure}

  return charts.per_group(
    collection, ERROR, 'Error of merged adapters', palette.LINES, draw
  )
