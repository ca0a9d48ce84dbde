"""The report's heat maps of updates in pairs, Fig. 2 of the paper."""

from typing import Any

import matplotlib
import numpy as np

from relief_jax.report import charts, device_charts, gather, palette
from relief_jax.report.gather import Collection, Found
from relief_jax.storage import naming

_LABELS, _ROUNDS = 4, 5


def heat_maps(collection: Collection) -> list[charts.Chart]:
  """Draws a figure per round: a row per label, a column of maps per block."""
  labels = gather.foremost(collection, _LABELS)
  firsts = (
    next((o for o in own if o.cosines), None) for own in labels.values()
  )
  runs = [one for one in firsts if one]
  if not runs:
    return []
  rounds = sorted({row['round'] for one in runs for row in one.cosines})
  return [_of_round(runs, number) for number in rounds[:_ROUNDS]]


def _of_round(runs: list[Found], number: int) -> charts.Chart:
  found = [
    (one, row) for one in runs for row in one.cosines if row['round'] == number
  ]
  columns = max(len(row['cosines']) for _, row in found)
  figure, grid = palette.subplots(
    len(found),
    columns,
    figsize=(8.6, 0.7 + 8.6 / columns * len(found)),
    squeeze=False,
  )
  colours = matplotlib.colormaps['RdBu_r'].with_extremes(bad=palette.GREY)
  image: Any = None
  for line, (one, row) in zip(grid, found, strict=True):
    for here in line[len(row['cosines']) :]:
      here.set_visible(False)
    for here, (block, values) in zip(
      line, row['cosines'].items(), strict=False
    ):
      order, owners = arrange(one, row['client'], block)
      cosines = np.array(values, float)[np.ix_(order, order)]
      image = here.imshow(cosines, cmap=colours, vmin=-1, vmax=1)
      own, mixed = means(cosines, owners)
      here.set_title(
        f'{naming.shorten(one.run.label)}, {block}\n'
        f'owners {own}, with others {mixed}',
        fontsize=9,
      )
      here.set_xticks([])
      here.set_yticks([])
      if owners < len(order):
        for mark in (here.axhline, here.axvline):
          mark(owners - 0.5, color='black', linewidth=1.2)
    line[0].set_ylabel('devices, owners first')
  figure.colorbar(image, ax=grid, label='cosine', shrink=0.6, aspect=30)
  figure.suptitle(f'Round {number}', fontsize=11)
  return charts.Chart(
    f'cosines_round{number}',
    f'Updates of the fusion in pairs, round {number}',
    f'Cosine similarity of the updates of every two devices in round {number}, '
    'a panel per block of fusion columns. Owners of the sensor come first, a '
    'line parts them from the others; grey: the device did not move the block. '
    'In the headings: mean over pairs of owners, and over pairs of an owner '
    'and another device.',
    figure,
  )


def arrange(one: Found, client: list[int], block: str) -> tuple[list[int], int]:
  """Orders the places of the devices, those that own the block's sensor first.

  Args:
    one: the run.
    client: [K] ids.
    block: name of a group, its modality behind the last slash.

  Returns:
    The order, by tier within both parts, and how many own it.
  """
  fleet = one.run.summary['fleet']
  rank = {
    fleet['client'][place]: i
    for i, place in enumerate(device_charts.by_tier(one))
  }
  sensors = dict(zip(fleet['client'], fleet['owned'], strict=True))
  modality = block.rpartition('/')[2]
  owns = [modality in sensors[c].split('+') for c in client]
  order = sorted(
    range(len(client)), key=lambda i: (not owns[i], rank[client[i]])
  )
  return order, sum(owns)


def means(cosines: np.ndarray, owners: int) -> tuple[str, str]:
  """Averages the cosine of pairs of owners, and of an owner with another.

  >>> means(np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]), 2)
  ('0.50', '0.00')

  Args:
    cosines: [K, K], owners first.
    owners: how many.
  """

  def mean(values):
    values = values[np.isfinite(values)]
    return f'{values.mean():.2f}' if len(values) else '–'

  upper = np.triu_indices(owners, 1)
  return mean(cosines[upper]), mean(cosines[:owners, owners:].ravel())
