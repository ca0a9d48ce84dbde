"""Fills gaps, holds values and finds runs, before the cut. **Ours.**"""

import numpy as np
from numpy.typing import NDArray


def interpolate(x: NDArray, limit: int) -> None:
  """Fills short stretches of NaN by straight lines, in place.

  >>> x = np.array([[0.0, np.nan, 2.0, np.nan, np.nan, 8.0]])
  >>> interpolate(x, limit=1)
  >>> x
  array([[ 0.,  1.,  2., nan, nan,  8.]])

  Args:
    x: [channels, samples].
    limit: the longest stretch that is filled, in samples; longer ones, and
      those at an end, stay.
  """
  for channel in x:
    missing = np.isnan(channel)
    if not missing.any() or limit < 1:
      continue
    begin, end = stretches(missing)
    short = (end - begin <= limit) & (begin > 0) & (end < len(channel))
    begin, size = begin[short], (end - begin)[short]
    if not len(begin):
      continue
    at = np.repeat(begin - np.cumsum(size) + size, size) + np.arange(size.sum())
    known = np.flatnonzero(~missing)
    channel[at] = np.interp(at, known, channel[known])


def hold(x: NDArray, limit: int) -> NDArray:
  """Repeats the last known value over NaN, for at most `limit` samples.

  >>> hold(np.array([np.nan, 60.0, np.nan, np.nan, np.nan]), limit=2)
  array([nan, 60., 60., 60., nan])

  Args:
    x: [samples].
    limit: samples that a value lasts.
  """
  place = np.arange(len(x))
  last = np.maximum.accumulate(np.where(np.isnan(x), -1, place))
  held = np.where(last >= 0, x[last], np.nan)
  return np.where(place - last <= limit, held, np.nan)


def runs(
  label: NDArray, valid: NDArray, breaks: NDArray | None = None
) -> tuple[NDArray, NDArray]:
  """Finds stretches of one label without a missing value.

  >>> runs(np.array([1, 1, 2, 2, 2]), np.array([1, 1, 1, 0, 1], bool))
  (array([0, 2, 4]), array([2, 1, 1]))

  Args:
    label: [samples] ints.
    valid: [samples] bool, samples that may be used.
    breaks: [samples] bool, whether time jumps before a sample.

  Returns:
    start and length [runs] int64.
  """
  change = np.ones(len(label), bool)
  change[1:] = (label[1:] != label[:-1]) | (valid[1:] != valid[:-1])
  if breaks is not None:
    change |= breaks
  start = np.flatnonzero(change)
  length = np.diff(np.append(start, len(label)))
  return start[valid[start]], length[valid[start]]


def stretches(mask: NDArray) -> tuple[NDArray, NDArray]:
  """Finds begin and end (exclusive) of stretches of True, [stretches] each."""
  edge = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
  return np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
