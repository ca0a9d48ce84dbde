"""Draws unequal amounts of data, and lets devices share windows.

*Quantity skew*: the wished size of a client is log-normal, exp(sigma * Z) for a
standard normal Z; the partition then assigns every window in these shares.
FedLab's `lognormal_unbalance_split` (D. Zeng and others, arXiv:2107.11621)
draws sizes alike. That persons and runs keep their shares is **ours**.

*Reuse*: where clients outnumber the windows, the bank is partitioned several
times over, each time (a *lap*) over other clients. **Ours.**
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from relief_jax.errors import InputError

_TRIES = 30


def draw(
  clients: int, sigma: float, rng: np.random.Generator
) -> NDArray | None:
  """Draws the wished sizes of the clients, up to a factor.

  Args:
    clients: N.
    sigma: deviation of the logarithm; 0 draws nothing.
    rng: of the partition.

  Returns:
    [N] float64 above 0, or None: all alike.
  """
  return np.exp(sigma * rng.standard_normal(clients)) if sigma else None


def sizes(wish: NDArray, total: int, least: int = 1) -> NDArray:
  """Rounds proportions to whole numbers that add up to `total`.

  Each gets `least`, the rest goes by largest remainder.

  >>> sizes(np.array([1.0, 2.0, 5.0]), 10)
  array([2, 3, 5])

  Args:
    wish: [k] above 0.
    total: number to divide, at least k.
    least: for each, or what an even division gives where that is less.

  Returns:
    [k] int64, each at least `least`, which add up to `total`.
  """
  least = min(least, total // len(wish))
  rest = total - least * len(wish)
  quota = rest * (wish / wish.sum())
  result = quota.astype(np.int64)
  missing = rest - int(result.sum())
  most = np.argsort(result - quota, kind='stable')[:missing]
  result[most] += 1
  return result + least


def interleave(size: NDArray) -> NDArray:
  """Assigns the `size.sum()` windows of a row to clients, spread evenly.

  Client j's t-th window is wished at the place (t + 1/2) / size[j]; sorting
  these places makes any stretch of the row hold about everybody's share.

  >>> interleave(np.array([3, 1]))
  array([0, 0, 1, 0])

  Args:
    size: [k] ints of at least 1.

  Returns:
    [size.sum()] int64, clients from 0.
  """
  client = np.repeat(np.arange(len(size)), size)
  rank = np.arange(len(client)) - np.repeat(np.cumsum(size) - size, size)
  return client[np.argsort((rank + 0.5) / size[client], kind='stable')]


def deal(
  person: NDArray,
  run: NDArray,
  share: NDArray,
  wish: NDArray,
  least: int,
  stretches: bool,
) -> NDArray:
  """Assigns every person's windows to the person's clients by wished sizes.

  Args:
    person: [rows] int, from 0, ascending.
    run: [rows] int, the recording, its rows side by side and in time.
    share: [persons] clients of each; at most as many as windows.
    wish: [N] above 0; N is the sum of `share`.
    least: windows of every client, where there are so many.
    stretches: sort the clients within a run, so that each has a stretch of it;
      else its windows stay assigned one by one.

  Returns:
    [rows] int64, clients.
  """
  owner = np.empty(len(person), np.int64)
  ends = np.cumsum(np.bincount(person, minlength=len(share)))
  first = np.cumsum(share) - share
  low = 0
  for k, start, high in zip(share, first, ends, strict=True):
    size = sizes(wish[start : start + k], int(high - low), least)
    owner[low:high] = start + interleave(size)
    low = high
  if not stretches:
    return owner
  begin = np.append(True, (np.diff(run) != 0) | (np.diff(person) != 0))
  return owner[np.lexsort((owner, np.cumsum(begin)))]


def merge(size: NDArray, wish: NDArray) -> NDArray:
  """Assigns whole persons to fewer clients, near the wished sizes.

  The largest persons first: one to each client, the largest to the one that
  wishes most; every further one where it keeps the load per wish lowest.

  Args:
    size: [persons] windows.
    wish: [N] above 0, N at most the number of persons.

  Returns:
    [persons] int64, clients.
  """
  client = np.empty(len(size), np.int64)
  load = np.zeros(len(wish))
  eager = np.argsort(-wish, kind='stable')
  for place, person in enumerate(np.argsort(-size, kind='stable')):
    if place < len(wish):
      n = int(eager[place])
    else:
      n = int(((load + size[person]) / wish).argmin())
    client[person] = n
    load[n] += size[person]
  return client


def reuse_windows(
  deal: Callable[[int], list[NDArray]],
  clients: int,
  rows: int,
  mean: int,
) -> list[NDArray]:
  """Partitions the same windows several times, each time over other clients.

  No two clients of a lap share a window; clients of different laps may hold
  the same ones, also exactly the same where `deal` draws nothing. They then
  differ in device, sensors, feature shift and batches.

  Args:
    deal: clients of a lap -> their rows; may raise InputError.
    clients: N.
    rows: windows in all.
    mean: windows that the clients of a lap have on average, or more.

  Returns:
    N arrays of rows; of as few laps as a bounded search finds.

  Raises:
    InputError: none found; what `deal` said of the last try.
  """
  count = max(1, -(-clients * mean // rows))
  for _ in range(_TRIES):
    ends = np.arange(count + 1) * clients // count
    try:
      return [part for size in np.diff(ends) for part in deal(int(size))]
    except InputError as error:
      last = error
      if count == clients:
        break
      count = min(clients, count + max(1, count // 2))
  raise last
