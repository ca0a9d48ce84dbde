"""Loaders of the original layouts, on small files and on the real samples."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.datasets import cache
from relief_jax.errors import InputError
from relief_jax.world import partition, splits
from tests.datasets import originals
from tests.datasets.originals import load, same

NAMES = list(originals.MAKE)


def of(windows, person, label, modality):
  rows = (windows.subject == person) & (windows.y == label)
  return windows.x[modality][rows]


def blocks(rows, columns, width=32):
  """The first windows of `rows` [samples, all columns], one after another."""
  count = len(rows) // width
  kept = rows[: count * width, columns].reshape(count, width, len(columns))
  return kept.astype(np.float32)


def test_pamap2(root):
  originals.pamap2(root)
  windows = load('pamap2', root)
  assert list(windows.x) == ['acc', 'gyro', 'mag', 'hr']
  assert len(windows.classes) == 12 and windows.rate == 100.0
  assert np.unique(windows.subject).tolist() == [1, 3, 8]
  assert set(windows.y) == {0, 1, 11}  # lying, sitting, rope jumping; not 0
  rows = originals.pamap2_rows(3)
  first = 3 + 17 * np.arange(3)[:, None] + np.arange(3)  # hand, chest, ankle
  for name, offset in (('acc', 1), ('gyro', 7), ('mag', 10)):
    expected = blocks(rows[240:360], (first + offset).ravel())
    np.testing.assert_array_equal(of(windows, 3, 1, name), expected)
  held = 80 + np.arange(480) // 11 * 11
  expected = blocks(held[240:360, None], [0])
  np.testing.assert_array_equal(of(windows, 3, 1, 'hr'), expected)
  place = load('pamap2', root, modalities='place')
  assert list(place.x) == ['hand', 'chest', 'ankle', 'hr']
  np.testing.assert_array_equal(
    place.x['ankle'][..., :3], windows.x['acc'][..., 6:]
  )


def test_pamap2_optional(root):
  originals.pamap2(root)
  windows = load('pamap2', root, optional=True)
  assert len(windows.classes) == 18
  extra = [windows.classes.index(c) for c in ('watching_tv', 'playing_soccer')]
  rows = np.isin(windows.y, extra)
  assert set(windows.subject[rows]) == {1}
  # Sample numbers go on from the protocol to the optional part.
  assert windows.start[rows].min() >= 360
  data = config_lib.default().data
  data.split = 'time'
  found = splits.split(
    load('pamap2', root, width=4, stride=2, optional=True), data, 0, None
  )
  assert len(found.test)


def test_pamap2_bursts_of_nan(root):
  rows = originals.pamap2_rows(1, (1, 2), 400)
  clean = rows.copy()
  rows[100:110, 4:7] = np.nan  # 0.1 s of the hand: filled
  rows[200:260, 21:38] = np.nan  # 0.6 s of the chest: cuts
  rows[500:, 13:16] = np.nan  # the hand's magnetometer never comes back
  path = root / 'pamap2/Protocol/subject101.dat'
  originals.write(path, rows, ' ')
  windows = load('pamap2', root, width=20, stride=20)
  assert windows.start.tolist() == [
    *range(0, 200, 20),
    *range(200, 340, 20),
    *range(340, 440, 20),
  ]
  assert np.bincount(windows.run).tolist() == [10, 7, 5]
  acc = windows.x['acc'][5]
  line = np.linspace(clean[99, 4], clean[110, 4], 12)[1:-1]
  np.testing.assert_allclose(acc[:10, 0], line, rtol=1e-5)
  np.testing.assert_array_equal(acc[10:, 0], clean[110:120, 4].astype('f4'))
  # A shorter limit cuts there as well, and is another entry of the cache.
  less = load('pamap2', root, width=20, stride=20, max_gap=0.05)
  assert len(np.unique(less.run)) == 4


def test_pamap2_lost_rows_and_heart_rate(root):
  rows = originals.pamap2_rows(1, (1, 2), 1200)
  rows[:55, 2] = np.nan  # not known before its first value
  rows[1300:, 2] = np.nan
  rows[2400:] = np.nan
  kept = np.delete(rows, slice(700, 720), 0)  # time jumps
  originals.write(root / 'pamap2/Protocol/subject109.dat', kept, ' ')
  windows = load('pamap2', root, width=5, stride=5)
  assert set(windows.subject) == {9}
  spans = [5 * n for n in np.bincount(windows.run)]
  # 55 to 700, 720 to 1200, then ten seconds from the last heart rate on.
  assert spans == [645, 480, 1095]


def test_mhealth(root):
  originals.mhealth(root)
  windows = load('mhealth', root)
  assert [x.shape[2] for x in windows.x.values()] == [9, 6, 6, 2]
  assert np.unique(windows.subject).tolist() == [1, 2, 10]
  assert set(windows.y) == {0, 2, 11}  # label 0 is gone
  rows = originals.mhealth_rows(10)
  np.testing.assert_array_equal(
    of(windows, 10, 11, 'ecg'), blocks(rows[360:480], [3, 4])
  )
  np.testing.assert_array_equal(
    of(windows, 10, 11, 'gyro'),
    blocks(rows[360:480], [8, 9, 10, 17, 18, 19]),
  )


def test_dsads_text(root):
  originals.dsads(root)
  windows = load('dsads', root)
  # Segments 1 to 3 are one run, 5 is another; padding is gone.
  rows = np.concatenate([originals.dsads_rows(5, 1, s) for s in (1, 2, 3)])
  rows = rows[(rows != 0).any(1)]
  assert len(rows) == 300
  acc = [9 * p + axis for p in range(5) for axis in range(3)]
  expected = blocks(rows, acc)
  np.testing.assert_array_equal(
    of(windows, 1, 4, 'acc')[: len(expected)], expected
  )
  assert len(np.unique(windows.run)) == 3 * 3 * 2
  (root / 'dsads/data/a19/p7/s01.txt').unlink()
  fewer = load('dsads', root)
  assert len(windows.y) - len(fewer.y) == 375 // 32 - 250 // 32


def test_motionsense(root):
  originals.motion(root)
  windows = load('motionsense', root)
  assert np.unique(windows.subject).tolist() == [1, 5, 24]
  rows = originals.motionsense_rows(7, 5)
  np.testing.assert_array_equal(
    of(windows, 5, 4, 'gyro'), blocks(rows, [7, 8, 9])
  )
  np.testing.assert_array_equal(
    of(windows, 5, 4, 'acc'), blocks(rows, [10, 11, 12])
  )
  assert windows.official_test.mean() == 0.5


def test_ucihar_gives_the_original_windows_back(root):
  originals.ucihar_set(root)
  windows = load('ucihar', root, width=128, stride=64)
  assert windows.subject.tolist() == [1] * 8 + [3] * 8 + [2] * 8
  signal = originals.ucihar_signal(31)
  for k, window in enumerate(of(windows, 3, 0, 'acc')):
    expected = signal[:6, 64 * k : 64 * k + 128].T.astype(np.float32)
    np.testing.assert_array_equal(window, expected)
  assert np.unique(windows.subject[windows.official_test]).tolist() == [2]
  assert len(np.unique(windows.run)) == 6


def test_ucihar_samples_shared_by_two_labels_stay_with_the_first(root):
  originals.ucihar_set(root)
  path = root / 'ucihar/UCI HAR Dataset/train/y_train.txt'
  path.write_text('\n'.join('1 1 5 5 6 6 6 6'.split() * 2) + '\n')
  windows = load('ucihar', root, width=64, stride=64)
  rows = windows.subject == 1
  assert windows.y[rows].tolist() == [0] * 3 + [4] * 2 + [5] * 5
  assert len(np.unique(windows.start[rows])) == 10


@pytest.mark.parametrize('name', NAMES)
def test_windows_line_ends_and_the_cache_change_nothing(name, root, tmp_path):
  originals.MAKE[name](root)
  first = load(name, root)
  kept = sorted((tmp_path / 'cache/relief_jax/parsed').iterdir())
  assert kept
  same(first, load(name, root))
  kept[0].write_bytes(kept[0].read_bytes()[:-50])
  same(first, load(name, root))
  (tmp_path / 'crlf').mkdir()
  originals.MAKE[name](tmp_path / 'crlf', end='\r\n')
  same(first, load(name, tmp_path / 'crlf'))


@pytest.mark.parametrize('name', NAMES)
def test_no_raw_sample_is_in_train_and_test(name, root):
  originals.MAKE[name](root)
  whole = load(name, root, width=10, stride=10)
  persons = np.unique(whole.subject).tolist()
  kinds = [dict(split='time'), dict(split='folds', fold=1)]
  kinds.append(dict(split='subjects', test_subjects=(persons[-1],)))
  if whole.official_test is not None:
    kinds.append(dict(split='official'))
  for stride in (1, 3, 10):
    for rate in (0.0, whole.rate / 2):
      windows = load(name, root, width=10, stride=stride, rate=rate)
      assert windows.rate == rate or not rate
      for kind in kinds:
        data = config_lib.default().data
        data.update(kind)
        found = splits.split(windows, data, 0, np.random.default_rng(0))
        assert len(found.train) and len(found.test)
        # Not by the library's own check: the samples themselves.
        used = [
          {
            (windows.subject[row], sample)
            for row in rows
            for sample in range(windows.start[row], windows.start[row] + 10)
          }
          for rows in (found.train, found.test)
        ]
        assert not used[0] & used[1]
        assert partition.no_overlap(windows, found.train, found.test)
        # And the numbers: no value of a test window is in a train window.
        if not rate:
          one, other = (
            np.unique(next(iter(windows.x.values()))[rows][..., 0])
            for rows in (found.train, found.test)
          )
          assert not len(np.intersect1d(one, other))


@pytest.mark.parametrize('name', NAMES)
def test_resampling_removes_what_the_new_rate_cannot_hold(name, root):
  originals.MAKE[name](root)
  plain = load(name, root)
  slow = load(name, root, width=16, stride=16, rate=plain.rate / 2)
  assert slow.rate == plain.rate / 2
  x = next(iter(plain.x.values()))
  # White noise keeps the half of its power that is below the new limit.
  ratio = next(iter(slow.x.values())).var() / x.var()
  assert 0.35 < ratio < 0.65
  with pytest.raises(InputError, match='data.rate is 1000'):
    load(name, root, rate=1000.0)


@pytest.mark.parametrize('name', NAMES)
def test_two_at_once_build_one_cache(name, root, tmp_path):
  originals.MAKE[name](root)
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda _: load(name, root), range(4)))
  for windows in found:
    same(found[0], windows)
  kept = (tmp_path / 'cache/relief_jax/parsed').iterdir()
  assert all(path.suffix == '.npz' for path in kept)


def test_a_cache_that_cannot_be_made_does_not_matter(root, monkeypatch):
  originals.mhealth(root)
  first = load('mhealth', root)
  (root / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(root / 'file'))
  same(first, load('mhealth', root))
  monkeypatch.setattr(cache, 'user_cache', lambda: None)
  same(first, load('mhealth', root))
