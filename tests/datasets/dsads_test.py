"""The loader of DSADS, on a tiny made-up folder and on the real one."""

import errno
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import dsads
from relief_jax.errors import InputError
from relief_jax.world import partition

LENGTHS = (30, 24, 9)
ACTIVITIES = (1, 5, 19)


def record(subject, **changes):
  """The arrays of one small file."""
  rng = np.random.default_rng(subject)
  length = np.array(LENGTHS, np.int32)
  return dict(
    x=rng.integers(-999, 999, (45, length.sum())).astype(np.int16),
    scale=np.linspace(0.001, 0.01, 45),
    channels=np.array(dsads.CHANNELS),
    run_start=(np.cumsum(length) - length).astype(np.int32),
    run_length=length,
    run_activity=np.array(ACTIVITIES, np.int16),
    run_subject=np.full(3, subject, np.int16),
    fs=np.array([25.0]),
  ) | dict(changes)


@pytest.fixture
def root(tmp_path, monkeypatch):
  """A data folder with persons 1 to 3, and a cache of its own."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('RELIEF_DATA_DIR', raising=False)
  folder = tmp_path / 'data' / 'dsads'
  folder.mkdir(parents=True)
  for subject in (1, 2, 3):
    np.savez_compressed(path(folder.parent, subject), **record(subject))
  return folder.parent


@pytest.fixture
def config():
  config = config_lib.default()
  config.data.width = config.data.stride = 8
  return config


def path(root, subject):
  return root / 'dsads' / f'dsads_subject{subject}.npz'


def copies(root):
  return sorted((root.parent / 'cache' / 'relief_jax' / 'unpacked').iterdir())


def test_windows_are_the_physical_values(root, config):
  windows, name = datasets.load(config, root)
  assert name == 'dsads'
  assert list(windows.x) == ['acc', 'gyro', 'mag']
  assert windows.classes == dsads.CLASSES and len(dsads.CLASSES) == 19
  assert windows.rate == 25.0 and windows.width == 8
  per_run = [n // 8 for n in LENGTHS]
  assert len(windows.y) == 3 * sum(per_run)
  np.testing.assert_array_equal(
    windows.y[: sum(per_run)], np.repeat(np.array(ACTIVITIES) - 1, per_run)
  )
  assert len(np.unique(windows.run)) == 9
  raw = {n: record(n) for n in (1, 2, 3)}
  for i in range(len(windows.y)):
    source = raw[windows.subject[i]]
    at = windows.start[i]
    value = source['x'][:, at : at + 8] * source['scale'][:, None]
    # Places are nine channels apart; gyro is the second three of each.
    gyro = value.reshape(5, 3, 3, 8)[:, 1].reshape(15, 8).T
    np.testing.assert_allclose(windows.x['gyro'][i], gyro, rtol=1e-6)


def test_places_hold_the_same_numbers(root, config):
  sensor, _ = datasets.load(config, root)
  config.data.modalities = 'place'
  place, _ = datasets.load(config, root)
  assert list(place.x) == list(dsads.PLACES)
  assert place.x['left_leg'].shape[2] == 9
  np.testing.assert_array_equal(
    place.x['left_leg'][..., 3:6], sensor.x['gyro'][..., 12:]
  )


def test_channels_may_come_in_any_order(root, config):
  before, _ = datasets.load(config, root)
  order = np.random.default_rng(0).permutation(45)
  whole = record(2)
  turned = {key: whole[key][order] for key in ('x', 'scale', 'channels')}
  np.savez(path(root, 2), **record(2, **turned))
  after, _ = datasets.load(config, root)
  for name in before.x:
    np.testing.assert_array_equal(before.x[name], after.x[name])


def test_no_window_crosses_a_run_and_none_is_in_train_and_test(root, config):
  config.data.stride = 3
  windows, _ = datasets.load(config, root)
  ends = np.cumsum(LENGTHS)
  run = np.searchsorted(ends, windows.start, side='right')
  assert (windows.start + 8 <= ends[run]).all()
  split = partition.split_subjects(windows, (3,), 1, np.random.default_rng(0))
  assert partition.no_overlap(windows, split.train, split.test)
  assert partition.no_overlap(windows, split.public, split.test)


def test_lzma_members_are_read(root, config):
  before, _ = datasets.load(config, root)
  with zipfile.ZipFile(path(root, 1)) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path(root, 1), 'w', zipfile.ZIP_LZMA) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  after, _ = datasets.load(config, root)
  np.testing.assert_array_equal(before.x['mag'], after.x['mag'])


@pytest.mark.parametrize(
  'changes, found',
  [
    (dict(x=np.zeros((45, 63), np.float32)), 'x of float32'),
    (dict(x=np.zeros((44, 63), np.int16)), r'shape \(44, 63\)'),
    (dict(scale=np.full(45, np.nan)), 'scale of shape'),
    (dict(channels=np.array(['a'] * 45)), 'channels that differ'),
    (dict(run_start=np.array([0, 29, 54], np.int32)), 'runs that overlap'),
    (dict(run_length=np.array([30, 24, 10])), 'leave the recording'),
    (dict(run_length=np.array([30, 24, 0])), 'no run, or an empty one'),
    (dict(run_activity=np.array([0, 1, 2])), 'activities 0 to 2'),
    (dict(run_activity=np.array([1, 2])), 'run_activity of int64'),
    (dict(run_subject=np.zeros(3, int)), 'person 0'),
    (dict(run_subject=np.ones(3, int)), 'person 1, who is also in'),
    (dict(fs=np.array([50.0])), 'fs 50.0'),
    (dict(fs=np.array([])), 'IndexError'),
    (dict(channels=np.array([None] * 45)), 'ValueError'),  # a pickle
  ],
)
def test_files_that_do_not_fit_are_refused(root, config, changes, found):
  np.savez(path(root, 2), **record(2, **changes))
  with pytest.raises(InputError, match=found) as error:
    datasets.load(config, root)
  assert 'dsads_subject2.npz' in str(error.value)


def test_missing_keys_are_refused(root, config):
  arrays = record(1)
  del arrays['scale']
  np.savez(path(root, 1), **arrays)
  with pytest.raises(InputError, match='missing key.*scale'):
    datasets.load(config, root)


@pytest.mark.parametrize('keep', [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(root, config, keep):
  data = path(root, 1).read_bytes()
  path(root, 1).write_bytes(data[: int(keep * len(data))])
  with pytest.raises(InputError, match='BadZipFile.*SHA256SUMS'):
    datasets.load(config, root)


def test_flipped_bytes_are_refused(root, config):
  data = bytearray(path(root, 1).read_bytes())
  data[500:600] = bytes(100)  # inside x, which comes first
  path(root, 1).write_bytes(data)
  with pytest.raises(InputError, match='dsads_subject1.npz'):
    datasets.load(config, root)


def test_windows_longer_than_every_run_are_refused(root, config):
  config.data.width = 31
  with pytest.raises(InputError, match='longest run'):
    datasets.load(config, root)


def test_a_missing_folder_is_refused(root, config, monkeypatch):
  config.dataset = 'dsads'
  with pytest.raises(InputError, match='--data_dir'):
    datasets.load(config, root / 'nowhere')
  with pytest.raises(InputError, match='dataset=synthetic'):
    datasets.load(config, root.parent)
  with pytest.raises(InputError, match='dataset=synthetic'):
    dsads.load(config, None)


def test_auto_is_synthetic_only_where_no_folder_was_named(
  root, config, tmp_path, monkeypatch
):
  config.synthetic.update(subjects=2, windows_per_class=1)
  monkeypatch.chdir(root)  # no ../shared/data from here
  windows, name = datasets.load(config, None)
  assert name == 'synthetic' and len(windows.y) == 16
  assert 'random numbers' in datasets.remark([name])
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match='--data_dir=.*dsads_subject'):
    datasets.load(config, tmp_path / 'empty')
  monkeypatch.setenv('RELIEF_DATA_DIR', str(tmp_path / 'empty'))
  with pytest.raises(InputError, match='RELIEF_DATA_DIR=.*dsads_subject'):
    datasets.load(config, None)
  # What the folder does hold is said.
  (tmp_path / 'empty' / 'mhealth').mkdir()
  (tmp_path / 'empty' / 'mhealth' / 'mHealth_subject1.log').touch()
  with pytest.raises(InputError, match='holds mhealth.*dataset=mhealth'):
    datasets.load(config, None)


def test_a_named_folder_is_not_replaced_by_the_cache(root, tmp_path):
  """The user's cache is for those who named no folder."""
  cached = tmp_path / 'cache' / 'relief_jax' / 'dsads'
  cached.parent.mkdir(parents=True, exist_ok=True)
  shutil.copytree(root / 'dsads', cached)
  config = config_lib.default()
  config.dataset = 'dsads'
  (tmp_path / 'other').mkdir()
  with pytest.raises(InputError, match='no dsads under .*other'):
    datasets.resolve(config, tmp_path / 'other')
  config.dataset, config.data_path = 'auto', 'mine.npz'
  with pytest.raises(InputError, match='dataset=npz'):
    datasets.resolve(config, root)


def test_unknown_data_set_is_refused(root, config):
  config.dataset = 'dsad'
  with pytest.raises(InputError, match='auto, .*dsads, .*synthetic'):
    datasets.load(config, root)


def test_where_data_are_looked_for(root, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'later'))
  here = tmp_path / 'checkout'
  here.mkdir()
  monkeypatch.chdir(here)
  assert datasets.find_data_dir(None) is None
  cache = tmp_path / 'later' / 'relief_jax'
  cache.mkdir(parents=True)
  assert datasets.find_data_dir(None) == cache
  shared = tmp_path / 'shared' / 'data'
  shared.mkdir(parents=True)
  assert datasets.find_data_dir(None).resolve() == shared.resolve()
  monkeypatch.setenv('RELIEF_DATA_DIR', str(root))
  assert datasets.find_data_dir(None) == root
  assert datasets.find_data_dir(str(shared)) == shared
  monkeypatch.setenv('RELIEF_DATA_DIR', str(tmp_path / 'nowhere'))
  with pytest.raises(InputError, match='RELIEF_DATA_DIR'):
    datasets.find_data_dir(None)


def test_the_second_load_reads_the_copy(root, config, monkeypatch):
  first, _ = datasets.load(config, root)
  assert len(copies(root)) == 3

  def no_unpacking(self, member, pwd=None):
    raise AssertionError(f'unpacked {member} again')

  monkeypatch.setattr(zipfile.ZipFile, 'read', no_unpacking)
  again, _ = datasets.load(config, root)
  np.testing.assert_array_equal(first.x['acc'], again.x['acc'])


def test_a_changed_file_is_not_served_from_the_copy(root, config):
  first, _ = datasets.load(config, root)
  np.savez(path(root, 1), **record(1, x=record(4)['x']))
  again, _ = datasets.load(config, root)
  assert (first.x['acc'] != again.x['acc']).any()


@pytest.mark.parametrize('damage', [lambda d: d[:-9], lambda d: d[:-1] + b'?'])
def test_a_damaged_copy_is_made_again(root, config, damage):
  first, _ = datasets.load(config, root)
  whole = copies(root)[0].read_bytes()
  copies(root)[0].write_bytes(damage(whole))
  again, _ = datasets.load(config, root)
  np.testing.assert_array_equal(first.x['acc'], again.x['acc'])
  assert copies(root)[0].read_bytes() == whole


def test_a_cache_that_cannot_be_made_does_not_matter(root, config, monkeypatch):
  (root / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(root / 'file'))
  windows, _ = datasets.load(config, root)
  assert len(windows.y) == 21


def test_a_full_disk_does_not_matter(root, config, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'replace', full)
  windows, _ = datasets.load(config, root)
  assert len(windows.y) == 21 and not copies(root)


def test_many_at_once_build_one_cache(root, config):
  with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda _: datasets.load(config, root)[0], range(8)))
  for windows in found:
    np.testing.assert_array_equal(windows.x['mag'], found[0].x['mag'])
  assert len(copies(root)) == 3  # and nothing half written


def test_the_real_data(monkeypatch, tmp_path):
  data_dir = datasets.find_data_dir(None)
  if not dsads.files(data_dir):
    pytest.skip('no DSADS files: set RELIEF_DATA_DIR to the data folder')
  (tmp_path / 'file').touch()  # leaves the user's cache alone
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  config = config_lib.default()
  config.dataset = 'dsads'
  windows, _ = datasets.load(config, data_dir)
  # The counts of the data folder's README.
  assert len(windows.y) == 9064 and len(np.unique(windows.run)) == 152
  expected = np.full(19, 480)
  expected[4:6], expected[17] = 456, 472
  np.testing.assert_array_equal(np.bincount(windows.y), expected)
  assert windows.x['acc'].shape == (9064, 125, 15)
  standing = windows.x['acc'][windows.y == 1][..., :3]
  gravity = np.linalg.norm(standing, axis=-1).mean()
  assert 9.79 < gravity < 9.83  # m/s2, at the torso
  split = partition.split_subjects(
    windows, config.data.test_subjects, 1, np.random.default_rng(0)
  )
  assert partition.no_overlap(windows, split.train, split.test)
