"""MHEALTH, Mobile Health: 10 people, 12 activities, 50 Hz.

Read from the original text, `mHealth_subject1.log` and so on, 24 columns apart
by tabs: chest acceleration (m/s2), two ECG leads (mV), then for the left ankle
and for the right lower arm acceleration, gyroscope (deg/s) and magnetometer
(local), the label last. Label 0 is no activity and is left out.

Else from `mhealth/mhealth_labelled.npz` (see packed.py), the labelled rows with
most channels truncated to whole units: results on it are titled so. Truncation
leaves nothing of the ECG and of the ankle's gyroscope (`LOST`), so unless
`data.channels` asks for them they are left out: a rare sensor without a signal
would make every result about rare sensors one about noise.

What is done with missing values (the original has none) is **ours**: up to
`data.max_gap` seconds are interpolated, longer ones cut the run.

UCI Machine Learning Repository, https://doi.org/10.24432/C5TW22, CC BY 4.0.
O. Banos and others, "mHealthDroid: a novel framework for agile development of
mobile health applications", IWAAL 2014.
"""

from pathlib import Path

import ml_collections

from relief_jax.datasets import download, packed, parsing, signals
from relief_jax.datasets.channels import choose
from relief_jax.datasets.recording import (
  Recording,
  every,
  kept,
  labelled,
  resample,
  to_windows,
)
from relief_jax.datasets.windows import Windows

RATE = 50.0  # Hz
CLASSES = (
  'standing',
  'sitting',
  'lying',
  'walking',
  'climbing_stairs',
  'waist_bends',
  'arm_elevation',
  'knees_bending',
  'cycling',
  'jogging',
  'running',
  'jumping',
)
COLUMNS = 24
CHANNELS = (
  *(f'chest_acc_{axis}' for axis in 'xyz'),
  *('chest_ecg_1', 'chest_ecg_2'),
  *(
    f'{place}_{sensor}_{axis}'
    for place in ('ankle', 'arm')
    for sensor in ('acc', 'gyro', 'mag')
    for axis in 'xyz'
  ),
)
# Of which truncation to whole units leaves nearly nothing: their deviations are
# 0.9 mV and 0.4 to 0.6 deg/s.
LOST = ('chest_ecg_1', 'chest_ecg_2', *(f'ankle_gyro_{a}' for a in 'xyz'))
TRUNCATED = 'MHEALTH, truncated channels'
# Columns of every modality.
MODALITIES: dict[str, dict[str, list[int]]] = {
  'sensor': {
    'acc': [0, 1, 2, 5, 6, 7, 14, 15, 16],
    'gyro': [8, 9, 10, 17, 18, 19],
    'mag': [11, 12, 13, 20, 21, 22],
    'ecg': [3, 4],
  },
  'place': {
    'chest': [0, 1, 2, 3, 4],
    'ankle': list(range(5, 14)),
    'arm': list(range(14, 23)),
  },
}


def files(root: Path | None) -> list[Path]:
  """Finds the text files under `root`, else the packed one if it is there.

  The text goes first: it is exact.
  """
  found = parsing.find(
    root, ('mhealth', 'MHEALTHDATASET'), 'mHealth_subject*.log'
  )
  packed_file = root and root / 'mhealth' / 'mhealth_labelled.npz'
  if not found and packed_file and packed_file.exists():
    return [packed_file]
  return found


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts MHEALTH into windows.

  `config.data.modalities` is 'sensor' (acc 9, gyro 6, mag 6, ecg 2 channels) or
  'place' (chest 5, ankle 9, arm 9); from the packed file without `LOST`: acc
  9, gyro 3, mag 6, or chest 3, ankle 6, arm 9. Persons may be missing.

  Args:
    config: `data.modalities`, `data.channels`, `data.max_gap` (text only),
      `data.rate`, `data.width`, `data.stride`.
    root: folder that holds `mhealth/` or `MHEALTHDATASET/`.

  Returns:
    Windows, [., width, channels] float32, in m/s2, deg/s, local units and mV;
    titled `TRUNCATED` where they are.

  Raises:
    InputError: no files, a file that cannot be used (with its line), or
      windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise download.missing('mhealth', root)
  modalities = MODALITIES[config.data.modalities]
  if paths[0].suffix == '.npz':
    found = packed.read(paths[0], 'mhealth', CHANNELS, len(CLASSES))
    recordings = [resample(found.recording, config.data.rate)]
    title = TRUNCATED if found.truncated.any() else ''
    if not config.data.channels:
      modalities = _without_lost(modalities, found.truncated.tolist())
  else:
    recordings, title = _original(paths, config.data), ''
  modalities = choose(config.data.channels, CHANNELS, modalities)
  found_windows = to_windows(recordings, modalities, CLASSES, config)
  return found_windows._replace(title=title)


def _without_lost(
  modalities: dict[str, list[int]], truncated: list[bool]
) -> dict[str, list[int]]:
  """Drops the channels that truncation destroyed from the modalities."""
  left = {
    name: [n for n in own if not (truncated[n] and CHANNELS[n] in LOST)]
    for name, own in modalities.items()
  }
  return {name: own for name, own in left.items() if own}


def _original(
  paths: list[Path], asked: ml_collections.ConfigDict
) -> list[Recording]:
  """Reads one recording per person, from text."""
  parsing.once(paths, [parsing.person(path, _PERSON) for path in paths])
  options = dict(max_gap=asked.max_gap, rate=asked.rate)

  def read(path: Path) -> Recording:
    data = parsing.read_bytes(path)
    about = options | {'person': path.name}
    return kept('mhealth', [data], about, lambda: parse(path, data, **options))

  return every(
    read, sorted(paths, key=lambda path: parsing.person(path, _PERSON))
  )


_PERSON = r'subject(\d+)'


def parse(path: Path, data: bytes, max_gap: float, rate: float) -> Recording:
  """Parses one file.

  Args:
    path: for messages, and for the person's number.
    data: the file's bytes.
    max_gap: seconds of NaN that are interpolated.
    rate: Hz to resample to, 0 for as recorded.

  Returns:
    Recording of 23 channels, in the file's order.

  Raises:
    InputError: a line that is not as it should be.
  """
  found = parsing.table(path, data, COLUMNS, '\t')
  x = found[:-1]
  label = parsing.codes(path, found[-1], range(len(CLASSES) + 1)) - 1
  signals.interpolate(x, round(max_gap * RATE))
  person = parsing.person(path, _PERSON)
  return resample(labelled(x, label, person, RATE), rate)
