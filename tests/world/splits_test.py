"""Splits: no raw sample is in train and test, for every kind and overlap."""

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import config as config_lib
from relief_jax.config import validation
from relief_jax.datasets.windows import Windows, cut
from relief_jax.errors import InputError
from relief_jax.world import partition, splits


def make(lengths, width=8, stride=8, persons=3, official=False):
  """Runs of given lengths, the same for every person, end to end."""
  lengths = np.asarray(lengths)
  start, run = cut(np.cumsum(lengths) - lengths, lengths, width, stride)
  count = len(start) * persons
  return Windows(
    x={'acc': np.zeros((count, width, 1), np.float32)},
    y=np.tile(run, persons).astype(np.int32),
    subject=np.repeat(np.arange(1, persons + 1), len(start)),
    run=np.concatenate([run + p * len(lengths) for p in range(persons)]),
    start=np.tile(start, persons),
    classes=tuple('abcdefgh'),
    rate=10.0,
    width=width,
    official_test=np.tile(run == 1, persons) if official else None,
  )


def options(**changes) -> ml_collections.ConfigDict:
  data = config_lib.default().data
  data.update(test_subjects=(3,), **changes)
  return data


def rng():
  return np.random.default_rng(0)


def guard(windows, split):
  """The least distance of starts between train and test, by brute force."""
  same = windows.subject[split.train][:, None] == windows.subject[split.test]
  apart = np.abs(
    windows.start[split.train][:, None] - windows.start[split.test]
  )
  return apart[same].min()


def test_subjects_is_the_split_of_whole_persons():
  windows = make([40, 40])
  found = splits.split(windows, options(), 1, rng())
  expected = partition.split_subjects(windows, (3,), 1, rng())
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('folds', [0, 2, 4])
def test_folds_test_on_every_person_once(folds):
  windows = make([40], persons=4)
  seen = []
  for fold in range(folds or 4):
    data = options(split='folds', folds=folds, fold=fold)
    found = splits.split(windows, data, 0, rng())
    assert partition.no_overlap(windows, found.train, found.test)
    assert len(found.train) + len(found.test) == len(windows.y)
    seen += np.unique(windows.subject[found.test]).tolist()
  assert sorted(seen) == [1, 2, 3, 4]


@pytest.mark.parametrize('stride', [1, 3, 8, 11])
def test_time_leaves_a_window_between_train_and_test(stride):
  windows = make([300, 200, 12], width=24, stride=stride)
  data = options(split='time')
  found = splits.split(windows, data, 0, rng())
  assert guard(windows, found) >= 2 * 24
  assert partition.no_overlap(windows, found.train, found.test)
  # Every long run is on both sides, and its end is what is tested on.
  for run in (0, 1):
    train = windows.start[found.train][windows.run[found.train] == run]
    test = windows.start[found.test][windows.run[found.test] == run]
    assert train.max() < test.min()
    assert test.max() == windows.start[windows.run == run].max()
  share = len(found.test) / len(windows.y)
  assert 0.15 < share < 0.35


@settings(deadline=None, max_examples=60)
@given(
  st.lists(st.integers(1, 120), min_size=1, max_size=5),
  st.integers(2, 30),
  st.integers(1, 30),
  st.floats(0.05, 0.9),
)
def test_time_never_shares_a_sample(lengths, width, stride, share):
  windows = make([*lengths, 150], width=width, stride=stride)
  train, test = splits.by_time(windows, share)
  assert len(test)
  assert not len(np.intersect1d(train, test))
  if len(train):
    found = partition.Split(train, test, train[:0])
    assert guard(windows, found) >= width + max(width, 20)


def test_short_windows_keep_the_reach_of_the_filter():
  windows = make([100], width=2, stride=2)
  found = partition.Split(*splits.by_time(windows, 0.25), np.arange(0))
  assert guard(windows, found) >= 2 + 20


def test_public_persons_are_in_neither_side():
  windows = make([200])
  found = splits.split(windows, options(split='time'), 1, rng())
  (public,) = np.unique(windows.subject[found.public])
  for rows in (found.train, found.test):
    assert len(rows) and public not in windows.subject[rows]
  assert len(found.public) == (windows.subject == public).sum()


def test_official_is_the_data_sets_own():
  windows = make([40, 40], official=True)
  found = splits.split(windows, options(split='official'), 0, rng())
  assert set(windows.run[found.test] % 2) == {1}
  assert set(windows.run[found.train] % 2) == {0}


@pytest.mark.parametrize(
  'changes, found',
  [
    (dict(split='official'), 'official for data without one'),
    (dict(split='folds', folds=5), 'fold 0 of 5 over 3 subjects'),
    (dict(split='folds', folds=1), 'fold 0 of 1'),
    (dict(split='folds', fold=3), 'fold 3 of 3'),
    (dict(split='half'), 'unknown split'),
  ],
)
def test_what_cannot_be_split_is_refused(changes, found):
  with pytest.raises(InputError, match=found):
    splits.split(make([40, 40]), options(**changes), 0, rng())


def test_nothing_left_is_refused():
  with pytest.raises(InputError, match='0 to test on'):
    splits.split(make([30]), options(split='time'), 0, rng())
  with pytest.raises(InputError, match='3 of 3 subjects public'):
    splits.split(make([200]), options(split='time'), 3, rng())


def test_official_windows_that_overlap_are_refused():
  windows = make([40], stride=4, official=True)
  half = np.arange(len(windows.y)) % 2 == 1
  with pytest.raises(InputError, match='raw samples in both'):
    splits.split(
      windows._replace(official_test=half),
      options(split='official'),
      0,
      rng(),
    )


@pytest.mark.parametrize(
  'key, value',
  [
    ('rate', -1.0),
    ('rate', float('nan')),
    ('max_gap', -0.1),
    ('test_share', 1.0),
    ('split', 'half'),
  ],
)
def test_config_refuses_values(key, value):
  config = config_lib.default()
  config.data[key] = value
  with pytest.raises(InputError, match=key):
    validation.validate(config)
