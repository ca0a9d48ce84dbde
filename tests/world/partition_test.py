"""Splits by person and dealing of windows to devices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax.datasets.windows import Windows, cut
from relief_jax.errors import InputError
from relief_jax.world import partition

KINDS = ('contiguous', 'subject', 'dirichlet')
WIDTH = 10


def world(runs, stride=WIDTH) -> Windows:
  """Windows without data; `runs` [persons][runs] is windows per run."""
  parts = []
  number = 0
  for person, lengths in enumerate(runs, 1):
    samples = np.array([(n - 1) * stride + WIDTH for n in lengths])
    start, run = cut(np.cumsum(samples) - samples, samples, WIDTH, stride)
    parts.append((np.full(len(run), person), run, run + number, start))
    number += len(lengths)
  subject, y, run, start = map(np.concatenate, zip(*parts, strict=True))
  return Windows(
    x={},
    y=y.astype(np.int32),
    subject=subject.astype(np.int32),
    run=run.astype(np.int32),
    start=start,
    classes=tuple(map(str, range(y.max() + 1))),
    rate=25.0,
    width=WIDTH,
  )


def rng():
  return np.random.default_rng(0)


def everything(windows):
  return np.arange(len(windows.y))


runs_of_people = st.lists(
  st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(deadline=None)
@given(
  runs=runs_of_people,
  kind=st.sampled_from(KINDS[:2]),
  ask=st.floats(0, 1),
  seed=st.integers(0, 9),
)
def test_every_row_goes_to_one_client(runs, kind, ask, seed):
  windows = world(runs)
  size = len(windows.y)
  clients = 1 + int(ask * (size - 1))
  shuffled = np.random.default_rng(seed).permutation(size)
  parts = partition.assign(kind, windows, shuffled, clients, rng())
  assert len(parts) == clients and all(len(p) for p in parts)
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), range(size))
  people = [set(windows.subject[p]) for p in parts]
  if clients >= len(runs):
    assert all(len(p) == 1 for p in people)
    for person in range(1, len(runs) + 1):
      sizes = [
        len(part)
        for part, who in zip(parts, people, strict=True)
        if person in who
      ]
      assert max(sizes) - min(sizes) <= 1
  else:  # whole persons are merged
    assert sum(map(len, people)) == len(runs)


@settings(deadline=None)
@given(runs=runs_of_people, ask=st.floats(0, 1))
def test_contiguous_parts_are_stretches_in_time(runs, ask):
  windows = world(runs)
  clients = len(runs) + int(ask * (len(windows.y) - len(runs)))
  parts = partition.assign(
    'contiguous', windows, everything(windows), clients, rng()
  )
  for part in parts:
    for run in np.unique(windows.run[part]):
      start = windows.start[part[windows.run[part] == run]]
      assert (np.diff(start) == WIDTH).all()
  # Later clients of a person hold later parts of each run.
  owner = np.empty(len(windows.y), int)
  for n, part in enumerate(parts):
    owner[part] = n
  for run in np.unique(windows.run):
    assert (np.diff(owner[windows.run == run]) >= 0).all()


def test_contiguous_gives_every_client_every_activity():
  windows = world([[60] * 19] * 5)
  parts = partition.assign(
    'contiguous', windows, everything(windows), 48, rng()
  )
  for part in parts:
    assert len(np.unique(windows.y[part])) == 19


def test_people_share_the_clients_by_their_windows():
  windows = world([[30], [10], [1]])
  parts = partition.assign('contiguous', windows, everything(windows), 9, rng())
  owners = [windows.subject[p[0]] for p in parts]
  assert np.bincount(owners)[1:].tolist() == [6, 2, 1]


def test_subject_is_one_client_per_person():
  windows = world([[4, 2], [3], [5]])
  parts = partition.assign('subject', windows, everything(windows), 3, rng())
  assert [set(windows.subject[p]) for p in parts] == [{1}, {2}, {3}]


def test_subject_interleaves_the_clients_of_a_person():
  windows = world([[6]])
  parts = partition.assign('subject', windows, everything(windows), 2, rng())
  assert [p.tolist() for p in parts] == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize('kind', KINDS[:2])
def test_merged_people_are_balanced(kind):
  windows = world([[10], [4], [3], [3]])
  parts = partition.assign(kind, windows, everything(windows), 2, rng())
  assert [len(p) for p in parts] == [10, 10]


def test_dirichlet_covers_and_is_more_even_with_a_larger_alpha():
  windows = world([[50] * 6] * 4)
  spread = []
  for alpha in (0.3, 100.0):
    parts = partition.assign(
      'dirichlet', windows, everything(windows), 10, rng(), alpha, 5
    )
    np.testing.assert_array_equal(
      np.sort(np.concatenate(parts)), everything(windows)
    )
    assert min(map(len, parts)) >= 5
    table = np.stack([np.bincount(windows.y[p], minlength=6) for p in parts])
    spread.append(table.std(0).mean())
  assert spread[0] > 4 * spread[1]


@pytest.mark.parametrize('kind', KINDS)
def test_the_same_seed_gives_the_same_parts(kind):
  windows = world([[9, 8], [7, 6]])
  first, again = (
    partition.assign(kind, windows, everything(windows), 4, rng(), 5.0)
    for _ in range(2)
  )
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('kind', KINDS)
def test_more_clients_than_windows_is_refused(kind):
  windows = world([[2, 1]])
  with pytest.raises(InputError, match='4 clients for 3 training windows'):
    partition.assign(kind, windows, everything(windows), 4, rng())


def test_hopeless_proportions_are_refused():
  windows = world([[10, 10]])
  with pytest.raises(InputError, match='raise --config.alpha'):
    partition.assign('dirichlet', windows, everything(windows), 18, rng(), 0.01)
  with pytest.raises(InputError, match='above 0'):
    partition.assign('dirichlet', windows, everything(windows), 2, rng(), 0.0)


def test_unknown_kind_is_refused():
  windows = world([[4]])
  with pytest.raises(InputError, match='contiguous, dirichlet, subject'):
    partition.assign('iid', windows, everything(windows), 2, rng())


@pytest.mark.parametrize('kind', KINDS)
def test_a_hundred_thousand_clients(kind):
  windows = world([[100] * 3] * 1000)
  parts = partition.assign(
    kind, windows, everything(windows), 100_000, rng(), 1e4, 0
  )
  rows, samples = partition.pad_rows(parts)
  assert len(rows) == 100_000 and samples.sum() == 300_000


def test_pad_rows_repeats_the_first_row():
  rows, samples = partition.pad_rows(
    [np.array([5, 6, 7]), np.array([], int), np.array([3])]
  )
  assert rows.tolist() == [[5, 6, 7], [0, 0, 0], [3, 3, 3]]
  assert samples.tolist() == [3, 0, 1]
  assert rows.dtype == samples.dtype == np.int32


def test_split_is_by_person_and_covers():
  windows = world([[5, 5]] * 6, stride=3)
  split = partition.split_subjects(windows, (2, 5), 1, rng())
  assert set(windows.subject[split.test]) == {2, 5}
  assert len(set(windows.subject[split.public])) == 1
  assert len(set(windows.subject[split.train])) == 3
  np.testing.assert_array_equal(
    np.sort(np.concatenate(split)), everything(windows)
  )
  for part in (split.test, split.public):
    assert partition.no_overlap(windows, split.train, part)


def test_public_people_follow_the_generator():
  windows = world([[2]] * 9)
  drawn = {
    windows.subject[
      partition.split_subjects(
        windows, (1,), 1, np.random.default_rng(seed)
      ).public[0]
    ]
    for seed in range(9)
  }
  assert len(drawn) > 2


@pytest.mark.parametrize(
  'test, public', [((9,), 0), ((), 0), ((1, 2, 3), 0), ((1,), 2), ((1,), -1)]
)
def test_impossible_splits_are_refused(test, public):
  with pytest.raises(InputError):
    partition.split_subjects(world([[2]] * 3), test, public, rng())


@given(
  stride=st.integers(1, 12),
  pick=st.lists(st.sampled_from('ab-'), min_size=14, max_size=14),
)
def test_no_overlap_is_the_obvious_loop(stride, pick):
  windows = world([[4, 3], [7]], stride=stride)
  a, b = (np.array([i for i in range(14) if pick[i] == c], int) for c in 'ab')
  shared = any(
    windows.subject[i] == windows.subject[j]
    and abs(windows.start[i] - windows.start[j]) < WIDTH
    for i in a
    for j in b
  )
  assert partition.no_overlap(windows, a, b) is not shared
