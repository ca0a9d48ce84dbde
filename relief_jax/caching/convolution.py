"""Computes (max, +) convolutions, which divide memory between groups."""

import numpy as np

Array = np.ndarray


def is_concave(table: Array) -> bool:
  """Tells whether no step of a table is larger than the one before."""
  steps = np.diff(table)
  return bool(
    (np.diff(steps) <= 1e-12 * max(np.abs(table).max(), 1e-300)).all()
  )


def max_convolution(first: Array, second: Array) -> tuple[Array, Array]:
  """Computes F[b] = max over a <= b of first[a] + second[b - a].

  Of two concave tables in O(C), the steps merged; of one in O(C log C), since
  the best a then never falls as b grows; else in O(C^2). All are exact.

  Args:
    first: [C + 1].
    second: [C + 1].

  Returns:
    F [C + 1], and [C + 1] int, an a of each.
  """
  if is_concave(second):
    if is_concave(first):
      return _merged(first, second)
    return _divided(first, second)
  if is_concave(first):
    found, place = _divided(second, first)
    return found, np.arange(len(place)) - place
  return _plain(first, second)


def _plain(first: Array, second: Array) -> tuple[Array, Array]:
  found, place = np.empty(len(first)), np.empty(len(first), int)
  for b in range(len(first)):
    sums = first[: b + 1] + second[b::-1]
    place[b] = sums.argmax()
    found[b] = sums[place[b]]
  return found, place


def _merged(first: Array, second: Array) -> tuple[Array, Array]:
  steps = np.concatenate([np.diff(first), np.diff(second)])
  mine = np.arange(len(steps)) < len(first) - 1
  order = np.argsort(-steps, kind='stable')[: len(first) - 1]
  start = first[0] + second[0]
  found = np.concatenate([[start], start + np.cumsum(steps[order])])
  return found, np.concatenate([[0], np.cumsum(mine[order])])


def _divided(first: Array, second: Array) -> tuple[Array, Array]:
  """Divides and conquers; `second` is concave."""
  found, place = np.empty(len(first)), np.empty(len(first), int)
  waiting = [(0, len(first) - 1, 0, len(first) - 1)]
  while waiting:
    low, high, least, most = waiting.pop()
    if low > high:
      continue
    b = (low + high) // 2
    a = np.arange(least, min(most, b) + 1)
    sums = first[a] + second[b - a]
    at = int(sums.argmax())
    found[b], place[b] = sums[at], a[at]
    waiting += [(low, b - 1, least, a[at]), (b + 1, high, a[at], most)]
  return found, place
