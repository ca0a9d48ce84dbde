"""MHEALTH's packed file: a tiny made-up one, and the real one where it is."""

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets, simulate
from relief_jax.datasets import mhealth, packed
from relief_jax.datasets.recording import physical
from relief_jax.errors import InputError
from relief_jax.storage import loop
from relief_jax.world import splits
from tests.datasets import originals

# Person, activity and rows of each run; one activity in two pieces.
RUNS = (
  (1, 1, 70),
  (1, 5, 40),
  (1, 5, 33),
  (2, 12, 64),
  (2, 3, 20),
  (10, 1, 66),
)
TRUNCATED = [
  not c.startswith(('chest_acc', 'arm_gyro')) for c in mhealth.CHANNELS
]
# Rows of the real file, person by person, activities 1 to 12 (README.md beside
# it). Persons 7 and 8 climbed stairs in six and in two pieces.
ROWS = """
3072 3072 3050 3072 3050 3072 3050 3369 3050 3072 3072 1075
3072 3072 3072 3072 3050 3174 3320 3430 3070 3072 3070 1020
3072 3050 3050 3072 3072 3220 3378 3150 3050 3072 3072 1024
3050 3072 3050 3050 3072 3328 3270 3123 3072 3072 3050 1024
3072 3070 3050 3050 3072 2765 2850 2700 3072 3072 3072 1000
3072 3070 3050 3050 3050 2202 2083 2296 3072 3050 3072 1020
3072 3050 3050 3050 3022 3072 2765 2800 3072 3072 3072 1000
3072 3050 3050 3072 3060 2151 3019 2560 3072 3072 3072 1024
3050 3050 3072 3070 3072 2867 2850 2950 3072 3072 3070 1050
3072 3072 3050 3050 3072 2448 2765 2867 3072 3072 3072 1019
"""


def record(**changes):
  """The arrays of a small packed file."""
  person, activity, length = np.array(RUNS).T
  rng = np.random.default_rng(0)
  scale = np.where(TRUNCATED, 1.0, 0.001)
  return dict(
    x=rng.integers(-3, 4, (23, length.sum())).astype(np.int16),
    scale=scale,
    channels=np.array(mhealth.CHANNELS),
    run_start=np.cumsum(length) - length,
    run_length=length,
    run_activity=activity,
    run_subject=person,
    run_original_row=np.cumsum(length) + 1000,
    truncated=np.array(TRUNCATED),
    fs=np.float64(50.0),
  ) | dict(changes)


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('RELIEF_DATA_DIR', raising=False)
  folder = tmp_path / 'data'
  (folder / 'mhealth').mkdir(parents=True)
  return folder


def write(root, **changes):
  path = root / 'mhealth' / 'mhealth_labelled.npz'
  np.savez(path, **record(**changes))
  return path


def load(root, **data):
  return originals.load('mhealth', root, **data)


def test_packed_windows_are_the_runs_in_units(root):
  write(root)
  windows = load(root, width=32, stride=16, channels='acc;gyro;mag;ecg')
  assert {m: x.shape[2] for m, x in windows.x.items()} == {
    'acc': 9,
    'gyro': 6,
    'mag': 6,
    'ecg': 2,
  }
  assert windows.rate == 50.0 and windows.classes == mhealth.CLASSES
  arrays = record()
  steps = arrays['x'].astype(float)
  value = (steps + 0.5 * np.sign(steps) * np.array(TRUNCATED)[:, None]) * (
    arrays['scale'][:, None]
  )
  expected = []
  for start, length, activity, person in zip(
    *(arrays[f'run_{k}'] for k in ('start', 'length', 'activity', 'subject')),
    strict=True,
  ):
    for first in range(start, start + length - 31, 16):
      expected.append((first, activity - 1, person))
  found = zip(windows.start, windows.y, windows.subject, strict=True)
  assert [tuple(map(int, one)) for one in found] == expected
  assert len(np.unique(windows.run)) == 5  # 20 rows give no window
  columns = mhealth.MODALITIES['sensor']
  for m, x in windows.x.items():
    for row, (first, _, _) in enumerate(expected):
      own = value[columns[m], first : first + 32].T
      np.testing.assert_allclose(x[row], own, rtol=1e-6)


def test_what_truncation_destroyed_is_used_only_when_asked_for(root):
  write(root)
  windows = load(root)
  assert {m: x.shape[2] for m, x in windows.x.items()} == {
    'acc': 9,
    'gyro': 3,
    'mag': 6,
  }
  arm = load(root, channels='gyro=arm_gyro_*')
  np.testing.assert_array_equal(windows.x['gyro'], arm.x['gyro'])
  place = load(root, modalities='place')
  assert [x.shape[2] for x in place.x.values()] == [3, 6, 9]
  # The same file, exact: nothing is left out and nothing said.
  write(root, truncated=np.zeros(23, bool))
  exact = load(root)
  assert [x.shape[2] for x in exact.x.values()] == [9, 6, 6, 2]
  assert exact.title == 'mhealth'
  assert windows.title == place.title == 'MHEALTH, truncated channels'


def test_the_original_text_goes_first(root):
  write(root)
  originals.mhealth(root)
  windows = load(root)
  assert windows.title == 'mhealth'
  assert [x.shape[2] for x in windows.x.values()] == [9, 6, 6, 2]


def test_the_order_of_channels_does_not_matter(root):
  write(root)
  first = load(root)
  order = np.random.default_rng(1).permutation(23)
  arrays = record()
  keys = ('x', 'scale', 'channels', 'truncated')
  write(root, **{k: arrays[k][order] for k in keys})
  again = load(root)
  for m in first.x:
    np.testing.assert_array_equal(first.x[m], again.x[m])


@pytest.mark.parametrize(
  ('changes', 'found'),
  [
    (dict(truncated=np.ones(22, bool)), 'truncated of bool'),
    (dict(truncated=np.ones(23)), 'truncated of float64'),
    (dict(truncated=np.array([None] * 23)), 'ValueError'),  # a pickle
    (dict(channels=np.array(['a'] * 23)), 'channels that differ'),
    (dict(run_activity=np.full(6, 13)), 'activities 13'),
  ],
)
def test_a_broken_packed_file_is_named(root, changes, found):
  path = write(root, **changes)
  with pytest.raises(InputError, match=found) as error:
    load(root)
  assert str(path) in str(error.value)


def test_no_window_crosses_from_one_person_to_another(root):
  write(root)
  config = config_lib.default()
  config.data.update(split='folds', folds=3)
  windows = load(root, width=10, stride=3)
  for fold in range(3):
    config.data.fold = fold
    found = splits.split(windows, config.data, 0, np.random.default_rng(0))
    used = [
      {
        sample
        for row in rows
        for sample in range(windows.start[row], windows.start[row] + 10)
      }
      for rows in (found.train, found.test)
    ]
    assert used[0] and used[1] and not used[0] & used[1]


def test_the_title_is_what_a_summary_says(root):
  write(root)
  config = config_lib.default()
  config.update(dataset='mhealth', clients=6, method='fedavg')
  config.data.update(width=16, stride=16, test_subjects=(10,))
  simulation = simulate.Simulation(config, str(root))
  summary = simulation.summary()
  assert summary['dataset'] == 'MHEALTH, truncated channels'
  assert summary['world']['dataset'] == summary['dataset']
  assert summary['dataset'] in loop.title(simulation)
  assert simulation.config.dataset == 'mhealth'  # to run it again


@pytest.fixture(scope='module')
def real():
  """The folder with the real file."""
  root = datasets.find_data_dir(None)
  path = root and root / 'mhealth' / 'mhealth_labelled.npz'
  if not path or not path.exists():
    pytest.skip('no mhealth/mhealth_labelled.npz in ../shared/data')
  return path.parent


def recording(real, name):
  return packed.read(
    real / name, 'mhealth', mhealth.CHANNELS, len(mhealth.CLASSES)
  )


def test_real_rows_by_person_and_activity(real):
  found = recording(real, 'mhealth_labelled.npz').recording
  rows = np.zeros((10, 12), int)
  np.add.at(rows, (found.run_subject - 1, found.run_label), found.run_length)
  expected = np.array(ROWS.split(), int).reshape(10, 12)
  np.testing.assert_array_equal(rows, expected)
  assert found.x.shape == (23, 342264) and found.rate == 50.0
  stairs = found.run_label == mhealth.CLASSES.index('climbing_stairs')
  pieces = np.bincount(found.run_subject[stairs])[1:]
  assert pieces.tolist() == [1] * 6 + [6, 2, 1, 1]


def test_real_windows_lie_in_their_runs(real):
  config = config_lib.default()
  config.dataset = 'mhealth'
  config.data.update(width=128, stride=64)
  windows, _ = datasets.load(config, real.parent)
  found = recording(real, 'mhealth_labelled.npz').recording
  run = np.searchsorted(found.run_start, windows.start, 'right') - 1
  end = (found.run_start + found.run_length)[run]
  assert (windows.start + 128 <= end).all()
  np.testing.assert_array_equal(found.run_label[run], windows.y)
  np.testing.assert_array_equal(found.run_subject[run], windows.subject)
  assert len(windows.y) == ((found.run_length - 128) // 64 + 1).sum()


def test_real_rows_agree_with_the_exact_thin_copy(real):
  """Rows found by the six exact channels, compared in the truncated ones."""
  if not (real / 'mhealth_2hz.npz').exists():
    pytest.skip('no mhealth/mhealth_2hz.npz in ../shared/data')
  whole = recording(real, 'mhealth_labelled.npz')
  thin = recording(real, 'mhealth_2hz.npz')
  assert whole.truncated.tolist() == TRUNCATED and not thin.truncated.any()
  one, other = (physical(p.recording, range(23)) for p in (whole, thin))
  exact = np.array([0, 1, 2, 17, 18, 19])  # chest acceleration, arm gyroscope
  keys = [np.rint(x[:, exact] * 1e4).astype(int) for x in (one, other)]
  place = {row.tobytes(): i for i, row in enumerate(keys[0])}
  at = np.array([place.get(row.tobytes(), -1) for row in keys[1]])
  assert (at >= 0).mean() > 0.8  # the others differ in the last digit
  label, person = (
    np.repeat(field, whole.recording.run_length)[at[at >= 0]]
    for field in (whole.recording.run_label, whole.recording.run_subject)
  )
  for field, found in (('run_label', label), ('run_subject', person)):
    value = np.repeat(getattr(thin.recording, field), 125)[at >= 0]
    np.testing.assert_array_equal(found, value)
  mine, theirs = (
    x[:, np.array(TRUNCATED)] for x in (one[at[at >= 0]], other[at >= 0])
  )
  # Half a unit after half a unit was added, a whole one around 0; and the thin
  # copy's own rounding, by which whole numbers fall to either side.
  off = np.abs(mine - theirs) > np.where(mine == 0, 1.0, 0.5) + 0.0126
  assert off.mean(0).max() < 0.01
  # Without the half unit most would be too small in size.
  assert abs((np.abs(theirs) - np.abs(mine))[mine != 0].mean()) < 0.02
