"""Small files in the original layouts of the public data sets.

The numbers are made up; the layouts are those of the real samples in the data
folder, which the tests read where they are.
"""

import numpy as np

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import motionsense, ucihar

# Samples of a stretch of one label.
LENGTH = 120


def write(path, rows, separator, end='\n', header=None, last=True):
  """Writes numbers as text, a line each; `last`: whether the last line ends."""
  lines = [separator.join(f'{v:.9g}' for v in row) for row in rows]
  if header is not None:
    lines.insert(0, header)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = end.join(lines) + (end if last else '')
  path.write_bytes(text.replace('nan', 'NaN').encode())


def pamap2_rows(person, activities=(1, 0, 2, 24), length=LENGTH):
  """[rows, 54]: heart rate every 11th row, labels in stretches."""
  rng = np.random.default_rng(person)
  rows = rng.normal(size=(len(activities) * length, 54)).astype(np.float32)
  rows = rows.astype(float)
  rows[:, 0] = 8.38 + 0.01 * np.arange(len(rows))
  rows[:, 1] = np.repeat(activities, length)
  rows[:, 2] = np.nan
  rows[::11, 2] = 80 + np.arange(len(rows))[::11]
  return rows


def pamap2(root, end='\n'):
  for person in (1, 3, 8):
    path = root / 'pamap2/PAMAP2_Dataset/Protocol' / f'subject10{person}.dat'
    write(path, pamap2_rows(person), ' ', end)
  path = root / 'pamap2/PAMAP2_Dataset/Optional/subject101.dat'
  write(path, pamap2_rows(9, (20, 9)), ' ', end)


def mhealth_rows(person, labels=(0, 1, 0, 12, 3), length=LENGTH):
  rng = np.random.default_rng(person)
  rows = rng.normal(size=(len(labels) * length, 24)).astype(np.float32)
  rows = rows.astype(float)
  rows[:, 23] = np.repeat(labels, length)
  return rows


def mhealth(root, end='\n'):
  for person in (1, 2, 10):
    path = root / 'mhealth/MHEALTHDATASET' / f'mHealth_subject{person}.log'
    write(path, mhealth_rows(person), '\t', end)


def dsads_rows(activity, person, segment):
  rng = np.random.default_rng([activity, person, segment])
  rows = rng.normal(size=(125, 45)).astype(np.float32).astype(float)
  if activity == 5 and person == 1:
    rows[100:] = 0  # padding
  return rows


def dsads(root, end='\n'):
  for person in (1, 2, 7):
    for activity in (1, 5, 19):
      for segment in (1, 2, 3, 5):
        path = root / 'dsads/data' / f'a{activity:02}' / f'p{person}'
        rows = dsads_rows(activity, person, segment)
        write(path / f's{segment:02}.txt', rows, ',', end)


def motionsense_rows(trial, person, length=LENGTH):
  rng = np.random.default_rng([trial, person])
  rows = rng.normal(size=(length, 13)).astype(np.float32).astype(float)
  rows[:, 0] = np.arange(length)
  return rows


def motion(root, end='\n'):
  for folder in ('dws_1', 'dws_11', 'wlk_7', 'sit_13'):
    for person in (1, 5, 24):
      path = root / 'motionsense/A_DeviceMotion_data' / folder
      rows = motionsense_rows(int(folder[4:]), person)
      write(path / f'sub_{person}.csv', rows, ',', end, motionsense.HEADER)


def ucihar_signal(person, windows=4):
  """[9, samples] that `windows` windows of 128 are cut from, half over half."""
  rng = np.random.default_rng(person)
  signal = rng.normal(size=(9, 64 * (windows + 1)))
  return signal.astype(np.float32).astype(float)


def ucihar_set(root, end='\n'):
  """Two persons to train on, one to test on; two activities each."""
  for part, persons in (('train', (1, 3)), ('test', (2,))):
    rows, label, person = [], [], []
    for p in persons:
      for activity in (1, 6):
        signal = ucihar_signal(10 * p + activity)
        rows += [signal[:, k : k + 128] for k in range(0, 4 * 64, 64)]
        label += [activity] * 4
        person += [p] * 4
    folder = root / 'ucihar/UCI HAR Dataset' / part
    write(folder / f'y_{part}.txt', np.array(label)[:, None], '', end)
    write(folder / f'subject_{part}.txt', np.array(person)[:, None], '', end)
    for number, channel in enumerate(ucihar.CHANNELS):
      # Two spaces before a positive number, as the original has it.
      lines = [''.join(f'{v: 17.9e}' for v in row[number]) for row in rows]
      path = folder / 'Inertial Signals' / f'{channel}_{part}.txt'
      path.parent.mkdir(exist_ok=True)
      path.write_bytes((end.join(lines) + end).encode())


MAKE = {
  'pamap2': pamap2,
  'mhealth': mhealth,
  'dsads': dsads,
  'motionsense': motion,
  'ucihar': ucihar_set,
}


def load(name, root, width=32, stride=32, **data):
  """The windows of a data set below `root`; `data`: keys of config.data."""
  config = config_lib.default()
  config.dataset = name
  config.data.update(width=width, stride=stride, **data)
  windows, found = datasets.load(config, root)
  assert found == name
  return windows


def same(one, other):
  """Two readings are equal to the bit."""
  for name in one.x:
    np.testing.assert_array_equal(one.x[name], other.x[name])
  for field in ('y', 'subject', 'run', 'start'):
    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
