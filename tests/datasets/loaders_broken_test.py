"""Files in the original layouts that are broken, missing or real."""

import zipfile

import numpy as np
import pytest

from relief_jax import datasets
from relief_jax.datasets import cache, dsads, parsing
from relief_jax.errors import InputError
from tests.datasets import originals
from tests.datasets.originals import load, same

NAMES = list(originals.MAKE)


FIRST = {
  'pamap2': ('pamap2/PAMAP2_Dataset/Protocol/subject103.dat', ' '),
  'mhealth': ('mhealth/MHEALTHDATASET/mHealth_subject2.log', '\t'),
  'dsads': ('dsads/data/a05/p2/s02.txt', ','),
  'motionsense': ('motionsense/A_DeviceMotion_data/wlk_7/sub_5.csv', ','),
  'ucihar': (
    'ucihar/UCI HAR Dataset/train/Inertial Signals/body_acc_y_train.txt',
    None,
  ),
}


def damage(lines, separator, kind):
  """Breaks the fourth line, or the last."""
  token = lines[3].split(separator)
  if kind == 'short':
    token = token[:-2]
  elif kind == 'long':
    token = [*token, '1.5']
  elif kind == 'word':
    token[1] = 'n/a'
  elif kind == 'cut':
    last = lines[-1]
    return lines[:-1], last[: len(last) * 2 // 3]
  elif kind == 'separator':
    return [';'.join(line.split(separator)) for line in lines], ''
  lines[3] = (separator or ' ').join(token)
  return lines, ''


@pytest.mark.parametrize(
  'kind, found',
  [
    ('short', r'line 4: \d+ columns'),
    ('long', r'line 4: \d+ columns'),
    ('word', "line 4: 'n/a' in column 2"),
    ('cut', r'line \d+: a last line that was cut off after \d+ columns'),
    ('separator', r'line 1: '),
  ],
)
@pytest.mark.parametrize('name', NAMES)
def test_a_bad_line_is_named(name, kind, found, root):
  originals.MAKE[name](root)
  at, separator = FIRST[name]
  path = root / at
  lines, rest = damage(path.read_text().splitlines(), separator, kind)
  path.write_text('\n'.join(lines) + '\n' + rest)
  with pytest.raises(InputError, match=found) as error:
    load(name, root)
  assert path.name in str(error.value)


def test_other_broken_files(root):
  originals.mhealth(root)
  path = root / 'mhealth/MHEALTHDATASET/mHealth_subject1.log'
  rows = originals.mhealth_rows(1)
  rows[7, 23] = 13
  originals.write(path, rows, '\t')
  with pytest.raises(InputError, match='line 8: label 13; expected one of 0'):
    load('mhealth', root)
  path.write_text('\n')
  with pytest.raises(InputError, match='subject1.log: no line'):
    load('mhealth', root)
  originals.write(path, originals.mhealth_rows(1), ' ')
  with pytest.raises(InputError, match='line 1: 24 columns apart by spaces'):
    load('mhealth', root)
  rows[7, 23] = 1
  originals.write(path, rows, '\t', last=False)
  load('mhealth', root)  # a whole last line need not end
  copy = root / 'mhealth/copy/mHealth_subject1.log'
  originals.write(copy, rows, '\t')
  with pytest.raises(InputError, match='every file of the data set once'):
    load('mhealth', root)


def test_more_broken_files(root):
  for make in originals.MAKE.values():
    make(root)
  rows = originals.pamap2_rows(3)
  rows[9, 0] = 1.0
  originals.write(root / FIRST['pamap2'][0], rows, ' ')
  with pytest.raises(InputError, match='line 10: time 1.0'):
    load('pamap2', root)
  path = root / FIRST['dsads'][0]
  path.write_text(''.join(path.read_text().splitlines(True)[:119]))
  with pytest.raises(InputError, match='s02.txt: 119 lines; expected 125'):
    load('dsads', root)
  path = root / FIRST['motionsense'][0]
  path.write_text(path.read_text().replace('gravity.x', 'grav.x'))
  with pytest.raises(InputError, match='line 1: .*expected the header'):
    load('motionsense', root)
  folder = root / 'ucihar/UCI HAR Dataset/test'
  (folder / 'subject_test.txt').write_text('3\n' * 8)
  with pytest.raises(InputError, match=r'persons \[3\] in train and test'):
    load('ucihar', root)
  (folder / 'Inertial Signals/total_acc_x_test.txt').unlink()
  with pytest.raises(InputError, match='total_acc_x_test.txt: No such file'):
    load('ucihar', root)


@pytest.mark.parametrize('name', NAMES)
def test_what_is_missing_is_said(name, root):
  with pytest.raises(InputError, match='data.download=True') as error:
    load(name, root)
  assert f'{name}/' in str(error.value) and 'https://' in str(error.value)


def test_blocks_do_not_change_the_count(root, monkeypatch):
  originals.mhealth(root)
  first = load('mhealth', root)
  monkeypatch.setattr(parsing, '_BLOCK', 1000)
  monkeypatch.setattr(cache, 'user_cache', lambda: None)
  same(first, load('mhealth', root))
  path = root / 'mhealth/MHEALTHDATASET/mHealth_subject1.log'
  lines = path.read_text().splitlines(True)
  lines[250] = '1\t2\n'
  path.write_text(''.join(lines))
  with pytest.raises(InputError, match='line 251: 2 columns'):
    load('mhealth', root)


@pytest.fixture
def real():
  folder = datasets.find_data_dir(None)
  if not folder or not (folder / 'format_samples').is_dir():
    pytest.skip('no real samples: set RELIEF_DATA_DIR to the data folder')
  return folder.resolve()


def test_real_lines_of_mhealth_and_pamap2(real, root):
  for person in (1, 2):
    source = real / 'format_samples' / f'mHealth_subject{person}_36rows.log'
    path = root / 'mhealth' / f'mHealth_subject{person}.log'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(source.read_bytes())
  windows = load('mhealth', root, width=3, stride=3)
  assert windows.y.tolist() == [*range(12)] * 2
  expected = [-9.7788, 0.5569, 1.1975]
  np.testing.assert_allclose(windows.x['acc'][0, 0, :3], expected, rtol=1e-6)
  np.testing.assert_allclose(
    windows.x['ecg'][0, 0], [0.0083726, -0.03349], rtol=1e-6
  )
  source = real / 'format_samples/pamap2_subject101_first_row.dat'
  row = source.read_text().split()
  lines = [' '.join([f'{8.38 + k / 100:.2f}', '1', *row[2:]]) for k in (0, 1)]
  path = root / 'pamap2/Protocol/subject101.dat'
  path.parent.mkdir(parents=True)
  path.write_text('\n'.join(lines) + '\n')
  windows = load('pamap2', root, width=2, stride=2)
  np.testing.assert_allclose(
    windows.x['acc'][0, 0, :3], [2.37223, 8.60074, 3.51048], rtol=1e-6
  )
  np.testing.assert_allclose(
    windows.x['mag'][0, 0, 6:], [-61.1888, -38.9599, -58.1438], rtol=1e-6
  )
  assert windows.x['hr'][0, 0, 0] == 104


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, step',
  [
    ('dsads', {'acc': 0.005, 'gyro': 0.001, 'mag': 0.0002}),
    ('motionsense', {'acc': 0.0005, 'gyro': 0.001, 'gravity': 0.00005}),
  ],
)
def test_real_text_is_the_packed_file(name, step, real, root):
  with zipfile.ZipFile(real / name / 'original_sample.zip') as archive:
    archive.extractall(root / name)
  text = load(name, root, width=125, stride=125)
  if name == 'dsads':
    # Of the stairs' first segments only 100 lines are no padding.
    assert len(text.y) == 19 * 8 - 4
  packed = load(name, real, width=125, stride=125)
  first = {}
  for row in range(len(packed.y)):
    if name == 'dsads' or packed.official_test[row]:
      key = packed.subject[row], packed.y[row], packed.run[row]
      first.setdefault(key[:2], row)
  seen = set()
  for row in range(len(text.y)):
    key = text.subject[row], text.y[row]
    if key in seen:
      continue
    seen.add(key)
    for modality, size in step.items():
      difference = text.x[modality][row] - packed.x[modality][first[key]]
      assert np.abs(difference).max() <= 0.51 * size
  assert len(seen) == (148 if name == 'dsads' else 12)
  assert text.classes == packed.classes and text.rate == packed.rate
  assert dsads.CHANNELS[3] == 'torso_gyro_x'
