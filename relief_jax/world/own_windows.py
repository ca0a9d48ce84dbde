"""Holds every device's later windows back, for a test on its own data.

The last `data.own_share` of every run of every training person is kept from
training, with a gap of a window, and given to the devices that train on that
run. So a device is also tested on *its own* person, with
its own sensors, later in time: what a personal method is made for.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.world import splits
from relief_jax.world.partition import Split, no_overlap

# Steps of this share of a turn never come back to where they were.
_TURN = (5**0.5 - 1) / 2


def hold_back(windows: Windows, split: Split, share: float) -> Split:
  """Moves the end of every training run from `train` to `own`.

  Runs of fewer than 1 / share windows stay in `train`, and so do those that
  are too short for both sides and the gap (splits.by_time).

  Args:
    windows: of all persons.
    split: without own windows.
    share: of a run's training windows; 0 holds nothing back.

  Returns:
    Split; windows in the gap between the two sides are in neither.

  Raises:
    InputError: a raw sample would be in two sets.
  """
  if not share:
    return split
  train, own = splits.by_time(
    splits.select(windows, split.train), share, least=0
  )
  found = split._replace(train=split.train[train], own=split.train[own])
  for name in ('train', 'test', 'public', 'validation'):
    if not no_overlap(windows, found.own, getattr(found, name)):
      raise InputError(
        f'raw samples both in own test windows and in {name} windows',
        'windows that overlap inside one set only',
        'set --config.data.stride to the width, or --config.data.own_share=0',
      )
  return found


def deal(
  windows: Windows, parts: Sequence[NDArray], own: NDArray
) -> list[NDArray]:
  """Assigns later windows to the devices that train on the same run (**ours**).

  A run's later windows go to its devices in the proportions of their training
  windows there, neighbours to the same device. Where devices share training
  windows (`config.reuse`) they share later ones likewise.

  Args:
    windows: of all persons.
    parts: N arrays of training rows.
    own: [rows] ascending, of `hold_back`.

  Returns:
    N ascending int64 arrays; a device that trains on little may have none.
  """
  if not len(own):
    return [own] * len(parts)
  device = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
  rows = np.concatenate(parts)
  runs, run = np.unique(
    np.concatenate([windows.run[rows], windows.run[own]]), return_inverse=True
  )
  held, later = run[: len(rows)], run[len(rows) :]
  # One entry per run and device, by run: how many windows it trains on.
  pair, count = np.unique(held * len(parts) + device, return_counts=True)
  pair_run, pair_device = np.divmod(pair, len(parts))
  # Windows of a run that are trained on, each once.
  once = np.bincount(
    held[np.unique(rows, return_index=True)[1]], minlength=len(runs)
  )
  tail = np.bincount(later, minlength=len(runs))
  quota = count * tail[pair_run] / np.maximum(once[pair_run], 1)
  # Ends of the devices' shares on the line of each run; where the line begins
  # differs from run to run, so that fractions do not favour the same devices.
  ends = np.cumsum(quota)
  begin = np.searchsorted(pair_run, pair_run)
  offset = (pair_run * _TURN) % 1 - (ends - quota)[begin]
  last = np.floor(ends + offset + 1e-9).astype(np.int64)
  first = np.floor(ends - quota + offset + 1e-9).astype(np.int64)
  order = np.lexsort((windows.start[own], later))
  base = (np.cumsum(tail) - tail)[pair_run]
  size = last - first
  step = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
  place = np.repeat(first, size) + step
  place = np.repeat(base, size) + place % np.repeat(tail[pair_run], size)
  pairs = np.unique(
    np.stack([np.repeat(pair_device, size), own[order[place]]]), axis=1
  )
  ends = np.cumsum(np.bincount(pairs[0], minlength=len(parts)))
  return np.split(pairs[1], ends[:-1])
