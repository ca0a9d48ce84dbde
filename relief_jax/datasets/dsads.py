"""DSADS, Daily and Sports Activities: 8 people, 19 activities, 5 body places.

Each place wears an accelerometer (m/s2), a gyroscope (rad/s) and a
magnetometer (1 = the Earth's field), 25 Hz. Read from
`dsads/dsads_subject*.npz` (rounded to int16 steps, padding rows left out),
which unpack slowly: the unpacked numbers are kept in the user's cache.

UCI Machine Learning Repository, https://doi.org/10.24432/C5C59F, CC BY 4.0.
B. Barshan, M. C. Yuksek, "Recognizing daily and sports activities in two open
source machine learning environments using body-worn sensor units", The
Computer Journal 57(11), 2014. The split into modalities by place is **ours**.
"""

import contextlib
import io
import os
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.errors import InputError
from relief_jax.windows import Windows, cut, gather

try:
  from lzma import LZMAError
except ImportError:  # a Python built without lzma: zipfile says so when asked
  LZMAError = zipfile.BadZipFile  # type: ignore[misc, assignment]

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

# Channels of every modality, for both ways of cutting the body up.
MODALITIES: dict[str, dict[str, list[str]]] = {
  'sensor': {s: [c for p in PLACES for c in _channel(p, s)] for s in SENSORS},
  'place': {p: [c for s in SENSORS for c in _channel(p, s)] for p in PLACES},
}

_VECTORS = ('run_start', 'run_length', 'run_activity', 'run_subject')


class _Recording(NamedTuple):
  """One file: `x` [channels, samples] int16 and its runs [runs]."""

  x: NDArray
  scale: NDArray  # [channels], physical value of a step
  run_start: NDArray
  run_length: NDArray
  run_activity: NDArray
  run_subject: NDArray
  rate: float


def user_cache() -> Path | None:
  """This program's folder in the user's cache; None for a user without home.

  `$XDG_CACHE_HOME/relief_jax`, else `~/.cache/relief_jax`. May not exist.
  """
  base = os.environ.get('XDG_CACHE_HOME')
  if base:
    return Path(base) / 'relief_jax'
  try:
    return Path.home() / '.cache' / 'relief_jax'
  except RuntimeError:
    return None


def files(root: Path | None) -> list[Path]:
  """The data set's files under `root`, none where it is not there."""
  return sorted(root.glob('dsads/dsads_subject*.npz')) if root else []


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts DSADS into windows.

  `config.data.modalities` is 'sensor' (acc, gyro, mag; 15 channels each, place
  by place) or 'place' (torso, right_arm, ...; 9 channels each, sensor by
  sensor). Ten of the 152 runs were recorded in several goes and jump between
  two of their 5 s segments; they are used as they are.

  Args:
    config: `data.modalities`, `data.width`, `data.stride` are used.
    root: folder that holds `dsads/`.

  Returns:
    Windows, [., width, 15 or 9] float32 each, in m/s2, rad/s and 1.

  Raises:
    InputError: no files, a file that cannot be used, a person found twice, or
      windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise InputError(
      f'no dsads/dsads_subject*.npz under {str(root)!r}',
      'one such file per person',
      'give their folder by --data_dir, or set --config.dataset=synthetic',
    )
  # Unpacking lets go of the interpreter's lock, so threads share the work.
  with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
    recordings = list(pool.map(_read, paths))
    _check_people(paths, recordings)
    width, stride = config.data.width, config.data.stride
    cuts = [cut(r.run_start, r.run_length, width, stride) for r in recordings]
    counts = [len(start) for start, _ in cuts]
    if not sum(counts):
      longest = max(int(r.run_length.max()) for r in recordings)
      raise InputError(
        f'config.data.width is {width}',
        f'at most the {longest} samples of the longest run',
        'lower --config.data.width',
      )
    modalities = MODALITIES[config.data.modalities]
    x = {
      name: np.empty((sum(counts), width, len(channels)), np.float32)
      for name, channels in modalities.items()
    }
    ends = np.cumsum(counts)

    def fill(number: int) -> None:
      recording = recordings[number]
      for name, channels in modalities.items():
        signal = _physical(recording, [CHANNELS.index(c) for c in channels])
        low, high = ends[number] - counts[number], ends[number]
        gather(signal, cuts[number][0], x[name][low:high])

    list(pool.map(fill, range(len(recordings))))
  pairs = list(zip(recordings, cuts, strict=True))
  runs = np.cumsum([0] + [len(r.run_start) for r in recordings])
  return Windows(
    x=x,
    y=np.concatenate([r.run_activity[k] - 1 for r, (_, k) in pairs]).astype(
      np.int32
    ),
    subject=np.concatenate([r.run_subject[k] for r, (_, k) in pairs]).astype(
      np.int32
    ),
    run=np.concatenate(
      [k + n for n, (_, k) in zip(runs, cuts, strict=False)]
    ).astype(np.int32),
    start=np.concatenate([start for start, _ in cuts]),
    classes=CLASSES,
    rate=recordings[0].rate,
    width=width,
  )


def _physical(recording: _Recording, channels: list[int]) -> NDArray:
  """[samples, channels] float32, time first so that windows are one copy."""
  scale = recording.scale[channels].astype(np.float32)[:, None]
  return np.ascontiguousarray((recording.x[channels] * scale).T)


def _check_people(paths: list[Path], recordings: list[_Recording]) -> None:
  """One person in two files would have two samples of the same number."""
  seen: dict[int, Path] = {}
  for path, recording in zip(paths, recordings, strict=True):
    if recording.rate != recordings[0].rate:
      raise _unusable(path, f'fs {recording.rate}', f'{recordings[0].rate}')
    for person in np.unique(recording.run_subject).tolist():
      if person in seen:
        raise _unusable(
          path,
          f'person {person}, who is also in {seen[person].name}',
          'every person in one file',
        )
      seen[person] = path


def _unusable(path: Path, found: str, expected: str) -> InputError:
  return InputError(
    f'{path}: {found}',
    expected,
    'copy the file again and compare it with SHA256SUMS',
  )


def _read(path: Path) -> _Recording:
  """Reads and checks one file; raises InputError for one that is unusable."""
  try:
    x = _unpacked(path)
    with np.load(path, allow_pickle=False) as archive:
      vectors = {key: archive[key] for key in _VECTORS}
      scale, channels = archive['scale'], archive['channels']
      rate = float(archive['fs'].reshape(-1)[0])
  except KeyError as error:
    raise _unusable(path, f'missing key {error}', 'x, scale, ...') from error
  # What zipfile, lzma and numpy raise for damaged files.
  except (
    zipfile.BadZipFile,
    LZMAError,
    zlib.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
  ) as error:
    raise _unusable(
      path,
      f'{type(error).__name__}: {error}',
      'a whole .npz of plain numbers and names',
    ) from error
  _check(path, x, scale, channels, vectors)
  order = [channels.tolist().index(name) for name in CHANNELS]
  if order != list(range(len(CHANNELS))):
    x, scale = x[order], scale[order]
  return _Recording(x, scale, rate=rate, **vectors)


def _check(
  path: Path,
  x: NDArray,
  scale: NDArray,
  channels: NDArray,
  vectors: dict[str, NDArray],
) -> None:
  """Raises InputError for arrays that do not fit together."""
  size = len(CHANNELS)
  if x.dtype != np.int16 or x.ndim != 2 or len(x) != size:
    found = f'x of {x.dtype}, shape {x.shape}'
    raise _unusable(path, found, f'int16, ({size}, samples)')
  if sorted(channels.tolist()) != sorted(CHANNELS):
    odd = sorted(set(channels.tolist()) ^ set(CHANNELS))
    raise _unusable(
      path, f'channels that differ in {odd[:3]}', f'torso_acc_x ... ({size})'
    )
  if scale.shape != (size,) or not (np.isfinite(scale) & (scale > 0)).all():
    found = f'scale of shape {scale.shape} with values {scale[:3]} ...'
    raise _unusable(path, found, f'({size},), above 0')
  runs = vectors['run_start'].shape
  for key, value in vectors.items():
    if value.ndim != 1 or value.shape != runs or value.dtype.kind not in 'iu':
      found = f'{key} of {value.dtype}, shape {value.shape}'
      raise _unusable(path, found, f'integers of shape {runs}')
  start, length, activity, subject = (
    vectors[key].astype(np.int64) for key in _VECTORS
  )
  end = np.append(start, x.shape[1])[1:]
  if not len(start) or start[0] < 0 or (length < 1).any():
    raise _unusable(path, 'no run, or an empty one', 'runs of samples')
  if (start + length > end).any():
    found = 'runs that overlap or leave the recording'
    raise _unusable(path, found, f'runs in order, within {x.shape[1]} samples')
  if (activity < 1).any() or (activity > len(CLASSES)).any():
    found = f'activities {activity.min()} to {activity.max()}'
    raise _unusable(path, found, f'1 to {len(CLASSES)}')
  if (subject < 1).any():
    raise _unusable(path, f'person {subject.min()}', 'persons from 1')


def _unpacked(path: Path) -> NDArray:
  """The file's `x`, from the cache if it is there and whole.

  The copy is named by the checksum that the zip file itself holds for `x`, so
  a changed source never meets an old copy, and is checked against it. It is
  put in place in one step: two processes may do so at once. No cache, or one
  that cannot be written, costs time and nothing else.
  """
  with zipfile.ZipFile(path) as archive:
    member = archive.getinfo('x.npy')
    home = user_cache()
    copy = home and home / 'unpacked' / f'dsads-{member.CRC:08x}.npy'
    if copy:
      with contextlib.suppress(OSError):
        data = copy.read_bytes()
        if zlib.crc32(data) == member.CRC and len(data) == member.file_size:
          return _array(data)
    data = archive.read(member)
  if copy:
    _keep(copy, data)
  return _array(data)


def _array(data: bytes) -> NDArray:
  return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _keep(copy: Path, data: bytes) -> None:
  """Writes a file in one step, or not at all where that is not possible."""
  temporary = None
  try:
    copy.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=copy.parent)
    with os.fdopen(handle, 'wb') as file:
      file.write(data)
    os.replace(temporary, copy)
  except OSError:  # read-only or full: go on without
    if temporary:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
