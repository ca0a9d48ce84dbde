"""A second copy of a file is no second recording, whatever it is called."""

import pytest

from relief_jax.datasets import dsads, mhealth, motionsense, pamap2, ucihar
from relief_jax.errors import InputError
from tests.datasets import originals

HEALTH, MOTION = 'mhealth/mHealth_subject', 'motionsense/A_DeviceMotion_data/'
PLACE = 'dsads/data/a01/p1/s01.txt'


def lay(root, names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('x')


@pytest.mark.parametrize(
  ('loader', 'first', 'second'),
  [
    (mhealth, f'{HEALTH}1.log', f'{HEALTH}1 (1).log'),
    (mhealth, f'{HEALTH}1.log', f'{HEALTH}1_backup.log'),
    (mhealth, f'{HEALTH}1.log', f'{HEALTH}01.log'),
    (mhealth, f'{HEALTH}1.log', 'mhealth/Copy of mHealth_subject1.log'),
    (mhealth, f'{HEALTH}1.log', f'{HEALTH}1 - Copy.LOG'),
    (dsads, 'dsads/dsads_subject1.npz', 'dsads/dsads_subject1 copy.npz'),
    (dsads, PLACE, PLACE.replace('s01', 's01 copy')),
    (dsads, PLACE, PLACE.replace('p1', 'p1 (1)')),
    (dsads, PLACE, PLACE.replace('a01', 'a1')),
    (dsads, PLACE, PLACE.replace('data', 'data_backup')),
    (
      motionsense,
      'motionsense/motionsense.npz',
      'motionsense/motionsense(2).npz',
    ),
    (motionsense, f'{MOTION}dws_1/sub_1.csv', f'{MOTION}dws_1/sub_01.csv'),
    (motionsense, f'{MOTION}dws_1/sub_1.csv', f'{MOTION}dws_01/sub_1.csv'),
    (motionsense, f'{MOTION}dws_1/sub_1.csv', f'{MOTION}dws_1 copy/sub_1.csv'),
    (
      pamap2,
      'pamap2/Protocol/subject101.dat',
      'pamap2/Protocol/subject101~1.dat',
    ),
    (
      pamap2,
      'pamap2/Protocol/subject101.dat',
      'pamap2/Protocol (1)/subject101.dat',
    ),
    (ucihar, 'ucihar/test/y_test.txt', 'ucihar/test/y_test - Copy.txt'),
    (ucihar, 'ucihar/train/y_train.txt', 'ucihar/train copy/y_train.txt'),
  ],
)
def test_refused_with_both_names(tmp_path, loader, first, second):
  lay(tmp_path, [first])
  assert len(loader.files(tmp_path)) == 1
  lay(tmp_path, [second])
  with pytest.raises(InputError, match='once') as error:
    loader.files(tmp_path)
  apart = set(first.split('/')) ^ set(second.split('/'))
  assert all(name in str(error.value) for name in apart)


def test_neighbours_are_no_copies(tmp_path):
  people = [f'{HEALTH}{n}.log' for n in (1, 10, 11, 100)]
  lay(
    tmp_path, [*people, 'mhealth/README.txt', 'mhealth/._mHealth_subject1.log']
  )
  assert len(mhealth.files(tmp_path)) == 4
  lay(tmp_path, [PLACE, PLACE.replace('a01', 'a10'), 'dsads/data plots/a.txt'])
  assert len(dsads.files(tmp_path)) == 2
  lay(
    tmp_path, [f'{MOTION}dws_{t}/sub_{p}.csv' for t in (1, 11) for p in (1, 2)]
  )
  assert len(motionsense.files(tmp_path)) == 4


def test_the_same_person_in_two_folders(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  lay(
    tmp_path,
    ['mhealth/a/mHealth_subject1.log', 'mhealth/b/mHealth_subject01.log'],
  )
  with pytest.raises(InputError, match='subject01.log beside .*subject1.log'):
    originals.load('mhealth', tmp_path)


def test_signals_beside_their_copies(tmp_path):
  signal = 'ucihar/test/Inertial Signals/total_acc_x_test.txt'
  lay(
    tmp_path,
    ['ucihar/test/y_test.txt', signal, signal.replace('_test', '_test (1)')],
  )
  (path,) = ucihar.files(tmp_path)
  with pytest.raises(InputError, match=r'total_acc_x_test \(1\).txt beside'):
    ucihar.sources(path)
