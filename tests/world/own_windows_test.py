"""Later windows held back: no raw sample in two sets, each on its device."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.errors import InputError
from relief_jax.world import client_data, own_windows, partition, splits
from tests.support import tiny
from tests.world.splits_test import make, options, rng


def held_back(windows, share=0.2, **changes):
  split = splits.split(windows, options(**changes), 0, rng())
  return own_windows.hold_back(windows, split, share)


def samples(windows, rows):
  """(person, sample) pairs that the windows cover."""
  return {
    (windows.subject[r], int(s))
    for r in rows
    for s in range(windows.start[r], windows.start[r] + windows.width)
  }


@settings(deadline=None, max_examples=25)
@given(
  st.lists(st.integers(10, 200), min_size=1, max_size=4),
  st.integers(1, 12),
  st.sampled_from(['subjects', 'folds', 'time']),
  st.floats(0.05, 0.6),
)
def test_no_raw_sample_is_in_two_sets(lengths, stride, kind, share):
  windows = make(lengths, width=8, stride=stride)
  changes = {'folds': 3} if kind == 'folds' else {}
  try:
    found = held_back(windows, share, split=kind, **changes)
  except Exception as error:  # nothing to test on: the split itself refuses
    assert 'at least one of each' in str(error)
    return
  train, test, own = (
    samples(windows, r) for r in (found.train, found.test, found.own)
  )
  assert not train & own and not train & test and not test & own


def test_the_last_fifth_of_every_run_with_a_gap_of_a_window():
  windows = make([200, 160], width=8, stride=8)  # 25 and 20 windows
  found = held_back(windows)
  person = windows.subject == 1
  first = person & (windows.run == 0)
  rows = np.flatnonzero(first)
  np.testing.assert_array_equal(np.intersect1d(found.own, rows), rows[20:])
  kept = np.intersect1d(found.train, rows)
  gap = (windows.start[rows[20]] - windows.start[kept.max()]) // 8 - 1
  # At least a window, and at least the reach of a resampling filter.
  assert gap == np.ceil((max(8, 20) + 8) / 8) - 1


def test_short_runs_and_a_share_of_zero_stay_in_training():
  windows = make([24], width=8, stride=8)
  split = splits.split(windows, options(), 0, rng())
  for share in (0.0, 0.2):
    found = own_windows.hold_back(windows, split, share)
    np.testing.assert_array_equal(found.train, split.train)
    assert not len(found.own)


@pytest.mark.parametrize('kind', ['contiguous', 'subject', 'dirichlet'])
@pytest.mark.parametrize('clients', [2, 7])
def test_windows_go_to_devices_that_train_on_their_run(kind, clients):
  windows = make([240, 200, 160], width=8, stride=8)
  found = held_back(windows)
  parts = partition.assign(kind, windows, found.train, clients, rng())
  own = own_windows.deal(windows, parts, found.own)
  assert sorted(np.concatenate(own)) == sorted(found.own)  # each once
  for mine, part in zip(own, parts, strict=True):
    assert set(windows.run[mine]) <= set(windows.run[part])
  # In proportion, up to a window in each run.
  for run in np.unique(windows.run[found.own]):
    tail = (windows.run[found.own] == run).sum()
    trained = np.array([(windows.run[p] == run).sum() for p in parts])
    got = np.array([(windows.run[m] == run).sum() for m in own])
    assert (abs(got - tail * trained / trained.sum()) <= 1).all()


def test_devices_that_share_training_windows_share_later_ones():
  windows = make([240, 200], width=8, stride=8)
  found = held_back(windows)
  part = found.train
  one, other = own_windows.deal(windows, [part, part], found.own)
  np.testing.assert_array_equal(one, found.own)
  np.testing.assert_array_equal(other, found.own)


def test_validation_persons_are_on_no_device_and_not_tested():
  windows = make([80, 80], persons=5)
  for changes in ({'split': 'folds', 'folds': 2, 'fold': 0}, {}):
    found = splits.split(
      windows,
      options(validation_subjects=(2,), **changes),
      0 if changes else 1,
      rng(),
    )
    who = {k: set(windows.subject[v]) for k, v in found._asdict().items()}
    assert who['validation'] == {2}
    tested = {1, 3, 5} if changes else {3}
    assert who['test'] == tested
    assert len(who['public']) == (0 if changes else 1)
    assert who['train'] == {1, 2, 3, 4, 5} - tested - {2} - who['public']


@pytest.mark.parametrize('chosen', [(3,), (9,), (1, 2)])
def test_validation_persons_that_cannot_be(chosen):
  windows = make([80, 80], persons=3)
  with pytest.raises(splits.InputError, match='validation_subjects'):
    splits.split(windows, options(validation_subjects=chosen), 0, rng())


def test_a_world_in_which_every_set_is_apart():
  c = tiny.config(**{'synthetic.windows_per_class': 16})
  c.data.validation_subjects = (1,)
  found = client_data.build_clients(c, None)
  sets = [samples(found.data, rows) for rows in found.split]
  assert all(sets[i] for i in (0, 1, 3, 4))
  assert sum(map(len, sets)) == len(set().union(*sets))
  assert config_lib.default().data.own_share == 0.2


@pytest.mark.parametrize('kind', ['subjects', 'folds', 'time'])
@pytest.mark.parametrize('name', ['dsads', 'motionsense', 'mhealth'])
def test_no_raw_sample_is_in_two_sets_of_real_data(name, kind):
  """Training, later windows and test persons, as devices get them."""
  config = config_lib.default()
  config.dataset, config.clients, config.data.split = name, 24, kind
  if kind == 'folds':
    config.data.folds = 4
  try:
    _, root = datasets.resolve(config)
    found = client_data.build_clients(config, root)
  except InputError as error:
    if datasets.find_data_dir(None) is None or 'no ' in str(error):
      pytest.skip(f'no files of {name}: set RELIEF_DATA_DIR ({error})')
    raise
  windows, split = found.data, found.split
  size = windows.width
  last = int(windows.start.max()) + size

  def covered(rows):
    """Sorted raw samples, a number for each person and sample."""
    first = windows.subject[rows].astype(np.int64) * last + windows.start[rows]
    return np.unique(first[:, None] + np.arange(size)[None])

  train, own, test = (
    covered(rows) for rows in (split.train, split.own, split.test)
  )
  assert len(train) and len(own) and len(test)
  for a, b in ((train, own), (train, test), (own, test)):
    assert not len(np.intersect1d(a, b, assume_unique=True))
  # And nothing else is on the devices.
  held = np.unique(np.concatenate(found.parts))
  assert np.isin(held, split.train).all()
  later = np.unique(np.concatenate(found.own))
  assert np.isin(later, split.own).all()
