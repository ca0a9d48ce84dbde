"""MotionSense: 24 people, 6 activities, a phone in the front trouser pocket.

50 Hz. Read from `motionsense/motionsense.npz` (int16 steps, see packed.py), or
from the original `A_DeviceMotion_data/dws_1/sub_1.csv` and so on: activity and
trial name the folder, the person the file. Columns: attitude (rad), gravity
(g), rotation rate (rad/s), user acceleration (g), three each. Attitude and
gravity are the phone's own fusion of its two sensors, not sensors themselves.

The official split is the authors': trials 11 to 16, the short ones, are for
testing. The person of a trial may then be in train and test, its samples not.

M. Malekzadeh and others, "Mobile Sensor Data Anonymization", IoTDI 2019; MIT,
https://github.com/mmalekzadeh/motion-sense. The modalities are **ours**.
"""

import re
from pathlib import Path

import ml_collections
import numpy as np

from relief_jax.datasets import download, packed, parsing
from relief_jax.datasets.channels import choose
from relief_jax.datasets.recording import (
  Recording,
  every,
  kept,
  resample,
  to_windows,
)
from relief_jax.datasets.windows import Windows

RATE = 50.0  # Hz
FOLDERS = {
  'dws': 'downstairs',
  'ups': 'upstairs',
  'sit': 'sitting',
  'std': 'standing',
  'wlk': 'walking',
  'jog': 'jogging',
}
CLASSES = tuple(FOLDERS.values())
CHANNELS = tuple(
  f'attitude.{axis}' for axis in ('roll', 'pitch', 'yaw')
) + tuple(
  f'{sensor}.{axis}'
  for sensor in ('gravity', 'rotationRate', 'userAcceleration')
  for axis in 'xyz'
)
HEADER = ',' + ','.join(CHANNELS)
MODALITIES: dict[str, dict[str, list[int]]] = {
  'sensor': {
    'acc': [9, 10, 11],
    'gyro': [6, 7, 8],
    'gravity': [3, 4, 5],
    'attitude': [0, 1, 2],
  },
  'place': {'pocket': list(range(12))},
}
_FIRST_TEST_TRIAL = 11
_TRIAL = re.compile(r'(dws|ups|sit|std|wlk|jog)_(\d+)')
_PERSON = r'sub_(\d+)'


def files(root: Path | None) -> list[Path]:
  """Finds the packed file or the original ones, none where there are none."""
  packed_file = root and root / 'motionsense' / 'motionsense.npz'
  if root and packed_file and packed_file.exists():
    parsing.no_copies([packed_file], root / 'motionsense')
    return [packed_file]
  found = parsing.find(
    root, ('motionsense', 'motion-sense'), 'A_DeviceMotion_data/???_*/sub_*.csv'
  )
  return [path for path in found if _TRIAL.fullmatch(path.parent.name)]


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts MotionSense into windows; every trial is a run.

  `config.data.modalities` is 'sensor' (acc, gyro, gravity, attitude: 3 channels
  each) or 'place' (pocket: 12 channels). Persons may be missing.

  Args:
    config: `data.modalities`, `data.channels`, `data.rate`, `data.width`,
      `data.stride`.
    root: folder that holds `motionsense/` or `motion-sense/`.

  Returns:
    Windows, [., width, 3 or 12] float32, in g, rad/s and rad.

  Raises:
    InputError: no files, a file that cannot be used (with its line), or
      windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise download.missing('motionsense', root)
  rate = config.data.rate
  if paths[0].suffix == '.npz':
    recordings = [_packed(paths[0], rate)]
  else:
    recordings = _original(paths, rate)
  modalities = choose(
    config.data.channels, CHANNELS, MODALITIES[config.data.modalities]
  )
  return to_windows(recordings, modalities, CLASSES, config)


def _packed(path: Path, rate: float) -> Recording:
  found = packed.read(path, 'motionsense', CHANNELS, len(CLASSES))
  if found.trial is None:
    raise packed.unusable(path, "missing key 'run_trial'", 'x, scale, ...')
  is_test = found.trial >= _FIRST_TEST_TRIAL
  return resample(found.recording._replace(run_test=is_test), rate)


def _original(paths: list[Path], rate: float) -> list[Recording]:
  """Reads one recording per person, from text."""
  names = [
    (path.parent.name[:3], _trial(path), parsing.person(path, _PERSON))
    for path in paths
  ]
  parsing.once(paths, names)
  people: dict[int, list[Path]] = {}
  for path in paths:
    people.setdefault(parsing.person(path, _PERSON), []).append(path)

  def one(person: int) -> Recording:
    own = sorted(people[person], key=_trial)
    data = [parsing.read_bytes(path) for path in own]
    trials = [path.parent.name for path in own]
    options = dict(rate=rate, person=person, trials=trials)
    return kept(
      'motionsense',
      data,
      options,
      lambda: resample(_parse(person, own, data), rate),
    )

  return every(one, sorted(people))


def _trial(path: Path) -> int:
  found = _TRIAL.fullmatch(path.parent.name)
  assert found, path
  return int(found[2])


def _parse(person: int, paths: list[Path], data: list[bytes]) -> Recording:
  use = range(1, 13)
  pieces = [
    parsing.table(path, text, 13, ',', use, HEADER)
    for path, text in zip(paths, data, strict=True)
  ]
  length = np.array([piece.shape[1] for piece in pieces])
  codes = list(FOLDERS)
  return Recording(
    x=np.concatenate(pieces, 1).astype(np.float32),
    scale=None,
    run_start=np.cumsum(length) - length,
    run_length=length,
    run_label=np.array(
      [codes.index(path.parent.name[:3]) for path in paths], np.int32
    ),
    run_subject=np.full(len(paths), person, np.int32),
    rate=RATE,
    run_test=np.array([_trial(path) >= _FIRST_TEST_TRIAL for path in paths]),
  )
