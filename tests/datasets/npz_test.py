"""Data of one's own: both layouts, the report, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets, simulate
from relief_jax.config import presets
from relief_jax.datasets import check
from relief_jax.errors import InputError
from relief_jax.world import partition, splits


def continuous(**changes):
  """Two persons of 300 samples: 100 walking, 100 nothing, 100 sitting."""
  rng = np.random.default_rng(0)
  return dict(
    x=rng.normal(size=(600, 4)),
    y=np.tile(np.repeat(['walk', '', 'sit'], 100), 2),
    subject=np.repeat(['bob', 'ann'], 300),
    rate=50.0,
    modality=np.array(['acc', 'acc', 'acc', 'ecg']),
  ) | dict(changes)


def windowed(**changes):
  rng = np.random.default_rng(0)
  return dict(
    x=rng.normal(size=(24, 16, 3)).astype(np.float32),
    y=np.arange(24) % 3 - (np.arange(24) == 0),
    subject=np.repeat([4, 2], 12),
    rate=np.array([20]),
    channels=np.array(['ax', 'ay', 'hr']),
    modality=np.array(['acc', 'acc', 'hr']),
    classes=np.array(['a', 'b', 'c']),
  ) | dict(changes)


@pytest.fixture
def load(tmp_path):
  def load(arrays, width=16, **data):
    path = tmp_path / 'mine.npz'
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    config = config_lib.default()
    config.dataset, config.data_path = 'npz', str(path)
    config.data.update(width=width, stride=width, **data)
    return datasets.load(config)[0]

  return load


def test_continuous(load):
  arrays = continuous()
  windows = load(arrays)
  assert {m: x.shape[2] for m, x in windows.x.items()} == {'acc': 3, 'ecg': 1}
  assert windows.classes == ('sit', 'walk') and windows.rate == 50.0
  # ann is 1 and bob 2; the samples in between are gone.
  assert np.bincount(windows.subject).tolist() == [0, 12, 12]
  walking = windows.x['ecg'][(windows.subject == 2) & (windows.y == 1), :, 0]
  np.testing.assert_array_equal(
    walking.ravel(), arrays['x'][:96, 3].astype(np.float32)
  )
  slow = load(arrays, rate=25.0)
  assert slow.rate == 25.0 and len(slow.y) == 12


def test_continuous_gaps_runs_and_an_own_split(load):
  x = continuous()['x']
  x[10:12] = np.nan
  x[250:280, 1] = np.nan
  run = np.zeros(600, int)
  run[540:] = 1
  tested = np.arange(600) >= 300
  windows = load(continuous(x=x, run=run, official_test=tested), width=10)
  assert len(windows.y) == 10 + 5 + 2 + 10 + 10
  assert len(np.unique(windows.run)) == 6
  data = config_lib.default().data
  for split in ('official', 'time'):
    data.split = split
    found = splits.split(windows, data, 0, np.random.default_rng(0))
    assert len(found.test) and len(found.train)
    assert partition.no_overlap(windows, found.train, found.test)


def test_windows(load):
  arrays = windowed()
  windows = load(arrays)
  assert len(windows.y) == 23  # one has no label
  assert windows.subject.tolist() == [2] * 12 + [4] * 11
  np.testing.assert_array_equal(
    windows.x['acc'][0], arrays['x'][12, :, :2].astype(np.float32)
  )
  assert (np.diff(windows.start[:12]) == 16).all()
  named = load(arrays, channels='one=hr;both=0,ay')
  np.testing.assert_array_equal(named.x['one'], windows.x['hr'])
  np.testing.assert_array_equal(named.x['both'], windows.x['acc'])


BROKEN = [
  (dict(x=np.zeros((4, 4), complex)), 'x of complex128'),
  (dict(x=np.array([None])), 'ValueError: Object arrays'),
  (dict(y=None), "no 'y' among modality, rate, subject, x"),
  (dict(y=np.zeros(599, int)), r'y of shape \(599,\); expected \(600,\)'),
  (dict(y=np.zeros(600)), 'y of float64; expected ints or names'),
  (dict(y=np.full(600, -1)), 'no label'),
  (dict(y=np.full(600, 2), classes=np.array(['a'])), 'label 2; expected below'),
  (dict(subject=np.full(600, -1)), 'a subject below 0'),
  (dict(subject=np.zeros(600)), 'subject of float64'),
  (dict(rate=0.0), 'rate 0.0; expected one number above 0'),
  (dict(rate=np.array([50.0, 100.0])), 'rate .50.0, 100.0.'),
  (dict(modality=None), "no 'modality'.*data.channels='acc=0,1,2;ecg=3'"),
  (dict(modality=np.array(['acc'])), r'modality of shape \(1,\)'),
  (dict(channels=np.array(list('aabc'))), 'every name once'),
  (dict(run=np.full(600, 0.5)), 'run of float64'),
  (dict(x=np.full((600, 4), np.inf)), 'infinite'),
]


@pytest.mark.parametrize('changes, found', BROKEN)
def test_what_does_not_fit_is_refused(load, changes, found):
  with pytest.raises(InputError, match=found):
    load(continuous(**changes))


def test_what_windows_cannot_do_is_refused(load):
  for options, found in (
    (dict(width=20), 'data.width is 20.*data.width=16'),
    (dict(rate=10.0), 'data.rate is 10'),
    (dict(split='time'), "no 'start'"),
    (dict(channels='acc=ax,az'), "the channel 'az'; expected channels ax, ay"),
  ):
    with pytest.raises(InputError, match=found):
      load(windowed(), **options)
  x = windowed()['x']
  x[3, 3, 0] = np.nan
  with pytest.raises(InputError, match='NaN or infinite'):
    load(windowed(x=x))


def test_files_that_are_none_are_refused(tmp_path):
  config = config_lib.default()
  config.dataset = 'npz'
  with pytest.raises(InputError, match='data_path=FILE'):
    datasets.load(config)
  config.data_path = str(tmp_path / 'mine.npz')
  with pytest.raises(InputError, match='mine.npz: FileNotFoundError'):
    datasets.load(config)
  (tmp_path / 'mine.npz').write_text('x,y\n1,2\n')
  with pytest.raises(InputError, match='mine.npz'):
    datasets.load(config)
  with open(tmp_path / 'mine.npz', 'wb') as file:
    np.save(file, np.zeros(3))
  with pytest.raises(InputError, match='expected an .npz of plain numbers'):
    datasets.load(config)


def test_a_changed_file_is_told(tmp_path):
  config = config_lib.default()
  config.dataset, config.data_path = 'npz', str(tmp_path / 'mine.npz')
  assert datasets.stamp(config) == []
  np.savez(config.data_path, **windowed())
  before = datasets.stamp(config)
  np.savez(config.data_path, **continuous())
  assert datasets.stamp(config) != before


def test_the_report(tmp_path, capsys):
  path = tmp_path / 'mine.npz'
  np.savez(path, **continuous())
  assert check.tell(path)
  out = capsys.readouterr().out
  for line in (
    'layout      continuous, 600 samples (0.00 h) at 50 Hz',
    'labelled    66.7%',
    '  acc       3 channels (0, 1, 2), NaN 0.000%',
    '  1         300 samples (ann)',
    '  sit       200 samples, 50.0%',
    'nothing wrong',
  ):
    assert line in out.splitlines()


def test_what_is_wrong_is_reported(tmp_path, capsys):
  path = tmp_path / 'mine.npz'
  x = np.random.default_rng(0).normal(size=(600, 5))
  x[:, 1], x[:, 2], x[100:200, 3] = 7, np.nan, np.nan
  y = np.repeat([0, 1, 2], [280, 20, 300])
  names = np.array(['walk', 'sit', 'lie', 'run'])
  arrays = continuous(x=x, y=y, classes=names, subject=np.ones(600, int))
  del arrays['modality']
  np.savez(path, **arrays)
  assert not check.tell(path, 'acc=0,1,2;ecg=3')
  assert [s for s in capsys.readouterr().out.splitlines() if s[0] == '!'] == [
    '! channel 1 is constant (7)',
    '! channel 2 holds no number',
    '! channel 2 has 1 gaps above 0.5 s: they cut runs',
    '! channel 3 has 1 gaps above 0.5 s: they cut runs',
    '! channel 4 is in no modality',
    "! person 1 (600 of 600, 100%) lost windows: values are missing of 'acc' "
    "(in 100% of samples), 'ecg' (in 17% of samples)",
    "! class 'walk' has no window: all of its 280 windows lack values",
    "! class 'sit' has no window: all of its 20 windows lack values",
    "! class 'lie' has no window: all of its 300 windows lack values",
    "! class 'run' has no window: it never occurs",
    '! class sit is rare: 3.3%',
    '! subject 1 lacks 1 of the classes',
    '! one subject only: nobody can be held out',
  ]
  signal = np.random.default_rng(0).normal(size=(200, 3))
  x = np.stack([signal[8 * (k % 12) :][:16] for k in range(24)])
  np.savez(path, **windowed(x=x))
  assert not check.tell(path)
  assert 'windows overlap by 8 samples' in capsys.readouterr().out


def test_the_command(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.check_data', tmp_path / 'none'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'none: FileNotFoundError' in done.stderr
  assert 'Traceback' not in done.stderr


# What is lost is said.


def four(spoil=lambda x, y, subject: None, **changes):
  """Four persons of 200 samples, walking and sitting in turns."""
  arrays = continuous(
    x=np.random.default_rng(0).normal(size=(800, 4)),
    y=np.tile(np.repeat(['walk', 'sit'], 100), 4),
    subject=np.repeat(['ann', 'bob', 'cat', 'dan'], 200),
  )
  spoil(*(arrays[key] for key in ('x', 'y', 'subject')))
  return arrays | changes


def gone(x, y, subject):
  x[subject == 'cat', 3] = np.nan


def half(x, y, subject):
  x[(subject == 'bob') & (y == 'sit'), :2] = np.nan


def sparse(x, y, subject):
  """Two sensors, never at the same time: no run as long as a window."""
  x[np.arange(800) % 60 < 30, 3] = np.nan
  x[np.arange(800) % 60 >= 30, 0] = np.nan


def unlabelled(x, y, subject):
  y[subject == 'dan'] = ''


def fading(x, y, subject):
  """A class of three windows keeps one."""
  y[16:48], y[516:532], x[18:46, 0] = 'fall', 'fall', np.nan


def brief(x, y, subject):
  y[10:20] = 'fall'


@pytest.mark.parametrize(
  ('spoil', 'said'),
  [
    (gone, "cat (12 of 12, 100%) lost windows: |of 'ecg' (in 100%"),
    (half, "bob (6 of 12, 50%) lost windows: |of 'acc' (in 50%"),
    (unlabelled, 'dan (0 samples) gave no window'),
    (fading, "class 'fall' lost 2 of 3 windows"),
    (brief, "class 'fall' has no window: its longest stretch has 10 of 16"),
  ],
)
def test_what_gives_no_window_is_said(load, spoil, said):
  notes = load(four(spoil)).notes
  assert any(all(part in note for part in said.split('|')) for note in notes), (
    notes
  )
  assert not load(four()).notes


def test_who_lost_windows_is_in_the_warnings_of_a_run(tmp_path):
  np.savez(tmp_path / 'own.npz', **four(gone))
  own = presets.method('relief', 'smoke')
  own.dataset, own.data_path = 'npz', str(tmp_path / 'own.npz')
  own.devices, own.data.test_subjects, own.data.rare = 1, ('dan',), ''
  own.data.width = own.data.stride = 16
  summary = simulate.Simulation(own).summary()
  assert 'person cat (12 of 12, 100%) lost windows' in summary['warnings'][0]
  subjects = summary['world']['subjects']
  assert subjects['train'] == ['ann', 'bob'] and subjects['test'] == ['dan']


def test_sensors_that_leave_no_window_are_named(load):
  with pytest.raises(InputError, match="'ecg' .*'acc' .*max_gap"):
    load(four(sparse), width=40)
  with pytest.raises(InputError, match="those of 'ecg' .in 100% of samples"):
    load(four(lambda x, *_: x.__setitem__((slice(None), 3), np.nan)))
  # A sensor that is left out has no say.
  windows = load(four(gone), channels='acc=0,1,2')
  assert not windows.notes and np.bincount(windows.subject).tolist()[3] == 12


def test_a_person_without_windows_cannot_be_tested_on(load):
  windows = load(four(gone))
  with pytest.raises(InputError, match="cat.*lost windows.*'ecg'"):
    partition.split_subjects(windows, ('cat',), 0, None)


def test_persons_by_name(load):
  windows = load(four())
  found = partition.split_subjects(windows, ('dan', 'bob'), 0, None)
  assert np.unique(windows.subject[found.test]).tolist() == [2, 4]
  same = partition.split_subjects(windows, (2, 'dan'), 0, None)
  np.testing.assert_array_equal(same.test, found.test)
  with pytest.raises(InputError, match="'eve'.*'ann', 'bob', 'cat', 'dan'"):
    partition.split_subjects(windows, ('eve',), 0, None)


def test_a_split_tells_who_is_on_one_side_only(load):
  windows = load(four(), width=10)
  data = config_lib.default().data
  data.split = 'time'
  found = splits.split(windows, data, 0, np.random.default_rng(0))
  assert not splits.notes(windows, found, 'time')
  found = found._replace(test=np.flatnonzero(windows.subject == 3))
  assert splits.notes(windows, found, 'subjects') == ()
  (note,) = splits.notes(windows, found, 'time')
  assert note == 'without a test window: person ann, person bob, person dan'
  bob = (windows.subject == 2) & (windows.y == 0)
  note, _ = splits.notes(
    windows, found._replace(train=np.flatnonzero(bob)), 'time'
  )
  assert "without a training window: class 'walk', person ann" in note


@pytest.mark.parametrize(
  'words', [('True', 'False'), ('true', ' false'), ('1', '0'), (1, 0), (1.0, 0)]
)
def test_an_official_part_in_words(load, words):
  tested = np.where(np.arange(800) >= 600, *words)
  windows = load(four(official_test=tested))
  assert windows.official_test.tolist() == (windows.subject == 4).tolist()


@pytest.mark.parametrize('words', [('yes', 'no'), (2, 0), (np.nan, 0.0)])
def test_an_official_part_in_other_words(load, words):
  tested = np.where(np.arange(800) >= 600, *words)
  with pytest.raises(InputError, match='official_test with .*True and False'):
    load(four(official_test=tested))
