"""PAMAP2, Physical Activity Monitoring: 9 people, 12 activities (18 with the
optional ones), units on hand, chest and ankle at 100 Hz, heart rate at 9 Hz.

Read from the original text, `Protocol/subject101.dat` and so on, 54 columns:
time (s), activity, heart rate (1/min), then 17 per place: temperature,
acceleration at 16 g (m/s2), at 6 g, gyroscope (rad/s), magnetometer (uT),
orientation. Used are acceleration at 16 g (the other saturates), gyroscope,
magnetometer and heart rate; the orientation is invalid, say the authors.
Activity 0 is what lies between two activities and is left out.

What is done with missing values is **ours**: lost packets of up to
`data.max_gap` seconds are interpolated, longer ones cut the run; a heart rate
lasts until the next, at most 10 s. Persons 101 to 109 are 1 to 9 here.

UCI Machine Learning Repository, https://doi.org/10.24432/C5NW2H, CC BY 4.0.
A. Reiss, D. Stricker, "Introducing a New Benchmarked Dataset for Activity
Monitoring", ISWC 2012.
"""

from pathlib import Path

import ml_collections
import numpy as np

from relief_jax.datasets import download, parsing, signals
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

RATE = 100.0  # Hz
PLACES = ('hand', 'chest', 'ankle')
SENSORS = ('acc', 'gyro', 'mag')
CLASSES = {
  1: 'lying',
  2: 'sitting',
  3: 'standing',
  4: 'walking',
  5: 'running',
  6: 'cycling',
  7: 'nordic_walking',
  12: 'ascending_stairs',
  13: 'descending_stairs',
  16: 'vacuum_cleaning',
  17: 'ironing',
  24: 'rope_jumping',
}
OPTIONAL = {
  9: 'watching_tv',
  10: 'computer_work',
  11: 'car_driving',
  18: 'folding_laundry',
  19: 'house_cleaning',
  20: 'playing_soccer',
}
COLUMNS = 54
_OFFSET = {'acc': 1, 'gyro': 7, 'mag': 10}  # in the 17 columns of a place
_PERSON = r'subject(\d+)'
_HOLD = 10.0  # s that a heart rate lasts
# Time, activity, heart rate, then place by place what is used.
_USE = (0, 1, 2) + tuple(
  3 + 17 * p + _OFFSET[s] + axis
  for p in range(3)
  for s in SENSORS
  for axis in range(3)
)


def _numbers(place: str, sensor: str) -> list[int]:
  first = 1 + 9 * PLACES.index(place) + 3 * SENSORS.index(sensor)
  return [first, first + 1, first + 2]


# In a recording: heart rate first.
CHANNELS = ('hr',) + tuple(
  f'{p}_{s}_{axis}' for p in PLACES for s in SENSORS for axis in 'xyz'
)
# Channel numbers in a recording.
MODALITIES: dict[str, dict[str, list[int]]] = {
  'sensor': {s: [c for p in PLACES for c in _numbers(p, s)] for s in SENSORS}
  | {'hr': [0]},
  'place': {p: [c for s in SENSORS for c in _numbers(p, s)] for p in PLACES}
  | {'hr': [0]},
}


def files(root: Path | None) -> list[Path]:
  """Finds text files of the protocol under `root`, none if it is not there."""
  return parsing.find(
    root, ('pamap2', 'PAMAP2_Dataset'), 'Protocol/subject10[1-9].dat'
  )


def optional(paths: list[Path]) -> list[Path]:
  """Finds text files of the optional part, beside those of the protocol.

  Args:
    paths: from `files`.
  """
  return [
    extra
    for folder in dict.fromkeys(path.parent.parent for path in paths)
    for extra in parsing.find(folder, ('Optional',), 'subject10[1-9].dat')
  ]


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts PAMAP2 into windows.

  `config.data.modalities` is 'sensor' (acc, gyro, mag: 9 channels each; hr: 1)
  or 'place' (hand, chest, ankle: 9 channels each; hr). Persons may be missing.

  Args:
    config: `data.modalities`, `data.channels`, `data.optional` (the folder
      Optional too), `data.max_gap`, `data.rate`, `data.width`, `data.stride`.
    root: folder that holds `pamap2/` or `PAMAP2_Dataset/`.

  Returns:
    Windows, [., width, 9 or 1] float32, in m/s2, rad/s, uT and 1/min.

  Raises:
    InputError: no files, a file that cannot be used (with its line), or
      windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise download.missing('pamap2', root)
  classes = dict(CLASSES)
  if config.data.optional:
    classes = dict(sorted((CLASSES | OPTIONAL).items()))
    paths += optional(paths)
  parsing.once(
    paths, [(p.parent.name, parsing.person(p, _PERSON)) for p in paths]
  )
  options = dict(
    max_gap=config.data.max_gap, rate=config.data.rate, classes=list(classes)
  )

  def read(path: Path) -> Recording:
    data = parsing.read_bytes(path)
    about = options | {'person': path.name}
    return kept('pamap2', [data], about, lambda: parse(path, data, **options))

  # A person's optional part directly follows his protocol.
  paths.sort(key=lambda path: path.name)
  recordings = every(read, paths)
  modalities = choose(
    config.data.channels, CHANNELS, MODALITIES[config.data.modalities]
  )
  return to_windows(recordings, modalities, tuple(classes.values()), config)


def parse(
  path: Path, data: bytes, max_gap: float, rate: float, classes: list[int]
) -> Recording:
  """Parses one file.

  Args:
    path: for messages, and for the person's number.
    data: the file's bytes.
    max_gap: seconds of lost packets that are interpolated.
    rate: Hz to resample to, 0 for as recorded.
    classes: activities that are kept, in the order of the classes.

  Returns:
    Recording of 28 channels: heart rate, then 9 per place.

  Raises:
    InputError: a line that is not as it should be.
  """
  found = parsing.table(path, data, COLUMNS, ' ', _USE)
  time, x = found[0], found[2:]
  known = [0, *sorted(CLASSES | OPTIONAL)]
  activity = parsing.codes(path, found[1], known)
  step = np.diff(time, prepend=time[0] - 1 / RATE)
  if np.isnan(time).any() or (step < 0).any():
    line = int((np.isnan(time) | (step < 0)).argmax()) + 1
    raise parsing.wrong(
      path, f'time {time[line - 1]}', 'a time that goes on', line
    )
  x[0] = signals.hold(x[0], round(_HOLD * RATE))
  signals.interpolate(x[1:], round(max_gap * RATE))
  number = np.full(max(known) + 1, -1)
  number[classes] = np.arange(len(classes))
  person = parsing.person(path, _PERSON) - 100
  # Rows that are missing altogether cut a run as well.
  breaks = step > 1.5 / RATE
  return resample(labelled(x, number[activity], person, RATE, breaks), rate)
