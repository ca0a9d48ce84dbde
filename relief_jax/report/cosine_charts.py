"""The report's heat maps of updates in pairs, Fig. 2 of the paper."""

from typing import Any

import matplotlib
import numpy as np

from relief_jax.report import charts, device_charts, palette
from relief_jax.report.gather import Collection, Run
from relief_jax.storage import naming

_LABELS, _ROUNDS = 4, 5


def heat_maps(collection: Collection) -> list[charts.Chart]:
  """Draws a figure per round: a row per label, a column of maps per block."""
  every = [
    (run, row)
    for run, rows in collection.firsts('cosines', _LABELS)
    for row in rows
  ]
  rounds = sorted({row['round'] for _, row in every})
  return [
    _of_round([one for one in every if one[1]['round'] == number], number)
    for number in rounds[:_ROUNDS]
  ]


def _of_round(found: list[tuple[Run, dict]], number: int) -> charts.Chart:
  columns = max(len(row['cosines']) for _, row in found)
  figure, grid = palette.subplots(
    len(found),
    columns,
    figsize=(
      palette.WIDTH,
      0.7 + (palette.WIDTH / columns + 0.35) * len(found),
    ),
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
        f'{naming.shorten(one.label, 24)}\n{block}\n'
        f'owners {own}, others {mixed}',
        fontsize=7,
      )
      here.set_xticks([])
      here.set_yticks([])
      if owners < len(order):
        for mark in (here.axhline, here.axvline):
          mark(owners - 0.5, color='black', linewidth=1.2)
    line[0].set_ylabel('devices, owners first', fontsize=8)
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
    {'': figure},
  )


def arrange(one: Run, client: list[int], block: str) -> tuple[list[int], int]:
  """Orders the places of the devices, those that own the block's sensor first.

  Args:
    one: the run.
    client: [K] ids.
    block: name of a group, its modality behind the last slash.

  Returns:
    The order, by tier within both parts, and how many own it.
  """
  fleet = one.summary['fleet']
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
