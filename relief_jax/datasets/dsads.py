"""DSADS, Daily and Sports Activities: 8 people, 19 activities, 5 body places.

Each place wears an accelerometer (m/s2), a gyroscope (rad/s) and a
magnetometer (1 = the Earth's field), 25 Hz. Read from
`dsads/dsads_subject*.npz` (rounded to int16 steps, padding rows left out, see
packed.py), else from the original text below `dsads/` (see dsads_text.py).

UCI Machine Learning Repository, https://doi.org/10.24432/C5C59F, CC BY 4.0.
B. Barshan, M. C. Yuksek, "Recognizing daily and sports activities in two open
source machine learning environments using body-worn sensor units", The
Computer Journal 57(11), 2014. The split into modalities by place is **ours**.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_collections

from relief_jax.datasets import download, dsads_text, packed, parsing
from relief_jax.datasets.channels import choose
from relief_jax.datasets.recording import Recording, resample, to_windows
from relief_jax.datasets.windows import Windows
from relief_jax.engine import machine

PLACES = ('torso', 'right_arm', 'left_arm', 'right_leg', 'left_leg')
SENSORS = ('acc', 'gyro', 'mag')
CLASSES = (
  'sitting',
  'standing',
  'lying_on_back',
  'lying_on_right_side',
  'climbing_stairs',
  'descending_stairs',
  'standing_in_lift',
  'moving_in_lift',
  'walking_in_car_park',
  'walking_on_treadmill_flat',
  'walking_on_treadmill_inclined',
  'running_on_treadmill',
  'stepper',
  'cross_trainer',
  'cycling_lying',
  'cycling_upright',
  'rowing',
  'jumping',
  'playing_basketball',
)


def _channel(place: str, sensor: str) -> list[str]:
  return [f'{place}_{sensor}_{axis}' for axis in 'xyz']


CHANNELS = tuple(c for p in PLACES for s in SENSORS for c in _channel(p, s))


def _numbers(place: str, sensor: str) -> list[int]:
  return [CHANNELS.index(c) for c in _channel(place, sensor)]


# Channels of every modality, for both ways of cutting the body up.
MODALITIES: dict[str, dict[str, list[int]]] = {
  'sensor': {s: [n for p in PLACES for n in _numbers(p, s)] for s in SENSORS},
  'place': {p: [n for s in SENSORS for n in _numbers(p, s)] for p in PLACES},
}


def files(root: Path | None) -> list[Path]:
  """Finds the data set's files under `root`, none where it is not there."""
  found = parsing.find(root, ('dsads',), 'dsads_subject*.npz')
  return found or dsads_text.files(root)


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts DSADS into windows.

  `config.data.modalities` is 'sensor' (acc, gyro, mag; 15 channels each, place
  by place) or 'place' (torso, right_arm, ...; 9 channels each, sensor by
  sensor). Ten of the 152 runs were recorded in several goes and jump between
  two of their 5 s segments; they are used as they are.

  Args:
    config: `data.modalities`, `data.channels`, `data.rate`, `data.width`,
      `data.stride`.
    root: folder that holds `dsads/`.

  Returns:
    Windows, [., width, 15 or 9] float32 each, in m/s2, rad/s and 1.

  Raises:
    InputError: no files, a file that cannot be used, a person found twice, or
      windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise download.missing('dsads', root)
  if paths[0].suffix == '.npz':
    recordings = _packed(paths, config.data.rate)
  else:
    recordings = dsads_text.read(paths, len(CLASSES), config.data.rate)
  modalities = choose(
    config.data.channels, CHANNELS, MODALITIES[config.data.modalities]
  )
  return to_windows(recordings, modalities, CLASSES, config)


def _packed(paths: list[Path], rate: float) -> list[Recording]:
  """Reads the recordings in packed files."""

  def read(path: Path) -> Recording:
    return packed.read(path, 'dsads', CHANNELS, len(CLASSES)).recording

  # Unpacking lets go of the interpreter's lock, so threads share the work.
  with ThreadPoolExecutor(min(len(paths), machine.cores())) as pool:
    recordings = list(pool.map(read, paths))
    packed.check_people(paths, recordings)
    return list(pool.map(lambda r: resample(r, rate), recordings))
