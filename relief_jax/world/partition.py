"""Partitions the persons' windows over devices and held-out sets. **Ours.**

Test persons are never on a device, so no raw sample is in both train and
test. Windows that overlap (stride < width) and come from the same run may
share raw samples *between devices*: two devices of one person then know a
little of each other's data, as two devices on one body would.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError, unknown
from relief_jax.scoring import targets
from relief_jax.world import quantity

KINDS = ('contiguous', 'subject', 'dirichlet')

_REDRAWS = 100


class Split(NamedTuple):
  """Holds the rows of the windows, disjoint by person; each ascending int64.

  Attributes:
    train: for the devices.
    test: of the held-out persons.
    public: to pretrain a frozen base, on no device; often empty.
    validation: of persons on no device, to choose hyperparameters by; often
      empty.
    own: later windows of the persons on the devices, which their devices are
      tested on (own_windows.py).
  """

  train: NDArray
  test: NDArray
  public: NDArray
  validation: NDArray = np.zeros(0, np.int64)
  own: NDArray = np.zeros(0, np.int64)


def split_subjects(
  windows: Windows,
  test_subjects: Sequence[int | str],
  public_subjects: int,
  rng: np.random.Generator,
) -> Split:
  """Splits the windows by whole persons.

  Args:
    windows: of all persons.
    test_subjects: the data set's numbers of the persons to test on, or the
      names of those that have one.
    public_subjects: how many of the others `rng` sets aside as public.
    rng: used only if `public_subjects` is above 0.

  Returns:
    Split; its three parts cover all windows.

  Raises:
    InputError: no test person, one that is not in the data, or nobody left to
      train on.
  """
  known = np.unique(windows.subject)
  number: dict[int | str, int] = {n: n for n in known.tolist()}
  number |= {v: n for n, v in windows.people.items() if n in number}
  unknown_ones = [s for s in test_subjects if s not in number]
  if unknown_ones or not test_subjects:
    people = [windows.people.get(n, n) for n in known.tolist()]
    lost = ''.join(f'; {note}' for note in windows.notes)
    raise InputError(
      f'test subjects {list(test_subjects)}{lost}',
      f'some of {people}, the subjects with windows',
      f'set --config.data.test_subjects="({people[-1]!r},)"',
    )
  test = np.unique([number[s] for s in test_subjects])
  others = np.setdiff1d(known, test)
  if not 0 <= public_subjects < len(others):
    raise InputError(
      f'{len(test)} test and {public_subjects} public of {len(known)} subjects',
      'at least one subject left for the devices',
      'lower --config.data.public_subjects or hold out fewer',
    )
  public = others[:0]
  if public_subjects:
    public = rng.choice(others, public_subjects, replace=False)
  is_test = np.isin(windows.subject, test)
  is_public = np.isin(windows.subject, public)
  return Split(
    train=np.flatnonzero(~is_test & ~is_public),
    test=np.flatnonzero(is_test),
    public=np.flatnonzero(is_public),
  )


def assign(
  kind: str,
  windows: Windows,
  rows: NDArray,
  clients: int,
  rng: np.random.Generator,
  alpha: float = 0.5,
  min_size: int = 1,
  sigma: float = 0.0,
) -> list[NDArray]:
  """Partitions training windows over clients; every row goes to exactly one.

  'contiguous': persons share the clients by their number of windows; every
    run of a person is cut into neighbouring stretches, one per client of the
    person. The remainder goes round, so that the clients of a person
    differ by at most one window.
  'subject': as 'contiguous', but the windows of a run go one by one to
    the person's clients: clients of a person differ by chance alone.
  Both: a client has one person's data only; with fewer clients than persons,
    whole persons are merged, sizes kept even.
  'dirichlet': every class is divided over all clients in shares drawn from
    Dirichlet(alpha), T.-M. H. Hsu, H. Qi, M. Brown, arXiv:1909.06335 as Q. Li
    and others draw it, arXiv:2102.02079; redrawn up to 100 times until every
    client has `min_size` windows. Persons are mixed.
  With `sigma` above 0 the sizes of the clients are in proportion to log-normal
  draws (`quantity.py`): among a person's clients, or for 'dirichlet' among all.

  Args:
    kind: one of the above.
    windows: what `rows` points into.
    rows: [rows] distinct ints, the training windows.
    clients: N.
    rng: used by 'dirichlet' and the sizes only.
    alpha: concentration of 'dirichlet'; small is uneven.
    min_size: least windows per client.
    sigma: deviation of the logarithm of a client's size, 0 for even sizes.

  Returns:
    N ascending int64 arrays, none empty.

  Raises:
    InputError: an unknown kind, more clients than windows, or sizes that
      leave a client short of `min_size`.
  """
  rows = np.sort(np.asarray(rows, np.int64))
  if not 1 <= clients <= len(rows):
    raise InputError(
      f'{clients} clients for {len(rows)} training windows',
      'at least one client, and a window for each',
      'lower --config.clients, cut more windows (--config.data.stride, '
      '--config.synthetic.windows_per_class), or let devices share them '
      '(--config.reuse=20)',
    )
  wish = quantity.draw(clients, sigma, rng)
  if kind == 'dirichlet':
    if windows.targets != targets.CLASSES:
      raise InputError(
        f'config.partition=dirichlet for data whose targets are '
        f'{windows.targets}',
        'classes: it divides each of them over the clients',
        'set --config.partition=subject',
      )
    owner = _dirichlet(windows.y[rows], wish, clients, rng, alpha, min_size)
  elif kind in ('contiguous', 'subject'):
    # In time, person by person and run by run.
    rows = rows[
      np.lexsort(
        (windows.start[rows], windows.run[rows], windows.subject[rows])
      )
    ]
    owner = _by_person(
      windows, rows, wish, clients, min_size, kind == 'subject'
    )
  else:
    raise unknown('partition', kind, KINDS)
  order = np.lexsort((rows, owner))
  size = np.bincount(owner, minlength=clients)
  if size.min() < min_size:
    raise InputError(
      f'{(size < min_size).sum()} of {clients} clients with less than '
      f'{min_size} windows, the smallest with {size.min()}',
      f'config.min_windows={min_size} for each',
      'lower --config.clients or --config.quantity_skew, or let devices share '
      'windows (--config.reuse=20)',
    )
  ends = np.cumsum(size)
  return np.split(rows[order], ends[:-1])


def pad_rows(
  parts: Sequence[NDArray], width: int = 0
) -> tuple[NDArray, NDArray]:
  """Stacks clients of different size.

  >>> pad_rows([np.array([4, 7]), np.array([5])])
  (array([[4, 7],
         [5, 5]], dtype=int32), array([2, 1], dtype=int32))

  Args:
    parts: N arrays of row numbers, one per client.
    width: W; 0 for the largest client's.

  Returns:
    rows [N, W] int32, padded by repeating the client's first row (0 for an
    empty client), and samples [N] int32, how many are real.
  """
  samples = np.fromiter(map(len, parts), np.int64, len(parts))
  flat = np.concatenate([*parts, [0]]).astype(np.int32)
  first = np.cumsum(samples) - samples
  first = np.where(samples > 0, flat[first], np.int32(0))
  # In place: for large fleets a table of indices would be twice the rows.
  rows = np.empty((len(parts), width or samples.max(initial=0)), np.int32)
  rows[:] = first[:, None]
  rows[np.arange(rows.shape[1]) < samples[:, None]] = flat[:-1]
  return rows, samples.astype(np.int32)


def no_overlap(windows: Windows, a: NDArray, b: NDArray) -> bool:
  """Tells whether no raw sample is in windows of both `a` and `b`.

  Args:
    windows: what the rows point into.
    a: [.] ints, rows.
    b: [.] ints, rows.
  """
  if not len(a) or not len(b):
    return True
  # One line for all persons, too far apart to touch.
  gap = int(windows.start.max()) + windows.width
  place = windows.subject.astype(np.int64) * 2 * gap + windows.start
  left, right = np.sort(place[a]), place[b]
  after = np.searchsorted(left, right)
  next_one = left[np.minimum(after, len(left) - 1)]
  last_one = left[np.maximum(after - 1, 0)]
  near = np.minimum(np.abs(next_one - right), np.abs(last_one - right))
  return bool((near >= windows.width).all())


def _by_person(
  windows: Windows,
  rows: NDArray,
  wish: NDArray | None,
  clients: int,
  least: int,
  interleave: bool,
) -> NDArray:
  """Gives the client of every row; rows are sorted by person, run and time."""
  _, person, sizes = np.unique(
    windows.subject[rows], return_inverse=True, return_counts=True
  )
  if clients < len(sizes):
    if wish is not None:
      return quantity.merge(sizes, wish)[person]
    return _merge(sizes, clients)[person]
  share = _apportion(sizes, clients)
  if wish is not None:
    run = windows.run[rows]
    return quantity.deal(person, run, share, wish, least, not interleave)
  first = np.cumsum(share) - share
  if interleave:
    rank = np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[person]
    return first[person] + rank % share[person]
  # Runs, in order, and whose they are.
  change = np.diff(windows.run[rows]) != 0
  change |= np.diff(person) != 0
  begin = np.append(0, np.flatnonzero(change) + 1)
  length = np.diff(np.append(begin, len(rows)))
  owner = person[begin]
  k = share[owner]
  # The windows that do not divide go to the next clients in turn, over all of
  # a person's runs: totals then differ by at most one.
  extra = length % k
  dealt = np.cumsum(extra) - extra
  newcomer = np.append(0, np.flatnonzero(np.diff(owner)) + 1)
  turn = (dealt - dealt[newcomer][owner]) % k
  run = np.repeat(np.arange(len(k)), length)
  rank = np.arange(len(rows)) - begin[run]
  stretch = _stretch(rank, length[run] // k[run], extra[run], turn[run], k[run])
  return first[person] + stretch


def _stretch(
  rank: NDArray, each: NDArray, extra: NDArray, turn: NDArray, k: NDArray
) -> NDArray:
  """Finds the neighbouring stretch of a run, of `k`, that holds window `rank`.

  Stretch j is `each` windows long, and one longer for the `extra` numbers
  from `turn` on, counted modulo `k`. All arguments [rows]. In closed form,
  since a table of runs by clients would not fit into memory for large fleets.
  """
  low = np.maximum(turn + extra - k, 0)  # long ones that went round to 0
  high = np.minimum(turn + extra, k)
  end_low = low * (each + 1)
  end_short = end_low + (turn - low) * each
  end_long = end_short + (high - turn) * (each + 1)
  short = np.maximum(each, 1)  # without a window where each is 0
  return np.select(
    [rank < end_low, rank < end_short, rank < end_long],
    [
      rank // (each + 1),
      low + (rank - end_low) // short,
      turn + (rank - end_short) // (each + 1),
    ],
    high + (rank - end_long) // short,
  )


def _apportion(sizes: NDArray, clients: int) -> NDArray:
  """Divides `clients` over persons: one each at least, at most one per window.

  The floor of the fair share first, the rest one by one to the person whose
  clients have the most windows.
  """
  share = np.clip(clients * sizes // sizes.sum(), 1, sizes)
  while share.sum() > clients:  # too many were raised to 1
    load = np.where(share > 1, sizes / share, np.inf)
    share[load.argmin()] -= 1
  while share.sum() < clients:
    load = np.where(share < sizes, sizes / share, -np.inf)
    share[load.argmax()] += 1
  return share


def _merge(sizes: NDArray, clients: int) -> NDArray:
  """Assigns every person to a client: the largest first, to the emptiest."""
  client = np.empty(len(sizes), np.int64)
  heap = [(0, n) for n in range(clients)]
  for person in np.argsort(-sizes, kind='stable'):
    load, n = heapq.heappop(heap)
    client[person] = n
    heapq.heappush(heap, (load + int(sizes[person]), n))
  return client


def _dirichlet(
  y: NDArray,
  wish: NDArray | None,
  clients: int,
  rng: np.random.Generator,
  alpha: float,
  min_size: int,
) -> NDArray:
  """Assigns every row of class `y` to a client, [rows] ints."""
  if not alpha > 0:  # NaN too
    raise InputError(
      f'config.alpha is {alpha}', 'above 0', 'set --config.alpha=0.5'
    )
  least, counts = 0, np.bincount(y)
  counts = counts[counts > 0]
  for _ in range(_REDRAWS):
    size = np.stack([_shares(rng, n, clients, alpha, wish) for n in counts])
    least = int(size.sum(0).min())
    if least >= min_size:
      break
  else:
    skewed = '' if wish is None else 'lower --config.quantity_skew, '
    raise InputError(
      f'a client with {least} of {len(y)} windows in the last of {_REDRAWS} '
      f'draws for {clients} clients',
      f'at least {min_size} for each',
      f'{skewed}raise --config.alpha above {alpha:g}, or lower '
      '--config.clients',
    )
  # Rows by class, in random order within it.
  order = np.lexsort((rng.random(len(y)), y))
  owner = np.empty(len(y), np.int64)
  everyone = np.tile(np.arange(clients), len(counts))
  owner[order] = np.repeat(everyone, size.ravel())
  return owner


def _shares(
  rng: np.random.Generator,
  total: int,
  clients: int,
  alpha: float,
  wish: NDArray | None,
) -> NDArray:
  """Cuts `total` windows by Dirichlet proportions, [clients] ints."""
  share = rng.dirichlet(np.full(clients, alpha))
  if wish is not None:
    share = share * wish
    share = share / share.sum()
  ends = np.rint(np.cumsum(share) * total).astype(np.int64)
  ends[-1] = total
  return np.diff(np.minimum(ends, total), prepend=0)
