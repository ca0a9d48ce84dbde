"""Reads recordings packed as `.npz` of int16 steps, in one schema.

    x            int16 [channels, samples]; physical value x * scale[:, None]
    scale        [channels]
    channels     [channels] names
    run_start, run_length, run_activity, run_subject   [runs], counted from 1
    fs           sampling rate, Hz
    truncated    [channels] bools, optional: values were cut to whole steps
    run_trial    [runs] ints, optional

Truncation made values smaller by half a step on average: it is added again, but
to zeros, whose sign is not known. No pickles. Members may be LZMA-compressed,
which unpacks slowly: the numbers are kept in the user's cache. The schema is
**ours**.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import cache, npy
from relief_jax.datasets.recording import Recording
from relief_jax.errors import InputError

try:
  from lzma import LZMAError
except ImportError:  # a Python built without lzma: zipfile says so when asked
  LZMAError = zipfile.BadZipFile  # type: ignore[misc, assignment]

_VECTORS = ('run_start', 'run_length', 'run_activity', 'run_subject')

# What zipfile, lzma and numpy raise for damaged files.
DAMAGED = (
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
)


class Packed(NamedTuple):
  """Holds a file's content.

  Attributes:
    recording: channels in the order asked for.
    truncated: [channels] bool, in the same order.
    trial: `run_trial` [runs], None where the file has none.
  """

  recording: Recording
  truncated: NDArray
  trial: NDArray | None


def unusable(path: Path, found: str, expected: str) -> InputError:
  """Builds the error for a packed file that is not as it should be."""
  return InputError(
    f'{path}: {found}',
    expected,
    'copy the file again and compare it with SHA256SUMS',
  )


def read(
  path: Path, label: str, channels: Sequence[str], classes: int
) -> Packed:
  """Reads and checks one file.

  Args:
    path: of the file.
    label: of the data set, for the cache.
    channels: names that the file has to hold, in any order.
    classes: activities run from 1 to this.

  Returns:
    The recording, its channels in the order of `channels`; float32 where some
    are truncated.

  Raises:
    InputError: a file that is damaged or whose arrays do not fit together.
  """
  try:
    x = cache.member(path, 'x', label)
    found = npy.arrays(path, but=('x',))
    vectors = {key: found[key] for key in _VECTORS}
    scale, names = found['scale'], found['channels']
    rate = float(found['fs'].reshape(-1)[0])
    truncated = found.get('truncated', np.zeros(len(channels), bool))
    trial = found.get('run_trial')
  except KeyError as error:
    raise unusable(path, f'missing key {error}', 'x, scale, ...') from error
  except DAMAGED as error:
    raise unusable(
      path,
      f'{type(error).__name__}: {error}',
      'a whole .npz of plain numbers and names',
    ) from error
  _check_channels(path, x, scale, names, channels)
  if truncated.dtype != bool or truncated.shape != (len(channels),):
    said = f'truncated of {truncated.dtype}, shape {truncated.shape}'
    raise unusable(path, said, f'bools, ({len(channels)},)')
  if trial is not None:
    vectors['run_trial'] = trial
  _check_runs(path, x.shape[1], vectors, classes)
  order = [names.tolist().index(name) for name in channels]
  if order != list(range(len(channels))):
    x, scale, truncated = x[order], scale[order], truncated[order]
  if truncated.any():
    x = x * scale.astype(np.float32)[:, None]
    half = 0.5 * scale[truncated].astype(np.float32)[:, None]
    x[truncated] += half * np.sign(x[truncated])
  recording = Recording(
    x=x,
    scale=None if truncated.any() else scale,
    run_start=vectors['run_start'],
    run_length=vectors['run_length'],
    run_label=vectors['run_activity'] - 1,
    run_subject=vectors['run_subject'],
    rate=rate,
  )
  return Packed(recording, truncated, trial)


def check_people(paths: list[Path], recordings: list[Recording]) -> None:
  """Refuses a person in two files, whose samples would share numbers.

  Raises:
    InputError: a person in two files, or rates that differ.
  """
  seen: dict[int, Path] = {}
  for path, recording in zip(paths, recordings, strict=True):
    if recording.rate != recordings[0].rate:
      raise unusable(path, f'fs {recording.rate}', f'{recordings[0].rate}')
    for person in np.unique(recording.run_subject).tolist():
      if person in seen:
        raise unusable(
          path,
          f'person {person}, who is also in {seen[person].name}',
          'every person in one file',
        )
      seen[person] = path


def _check_channels(
  path: Path,
  x: NDArray,
  scale: NDArray,
  found_names: NDArray,
  channels: Sequence[str],
) -> None:
  """Raises InputError for channels that are not those of the data set."""
  size = len(channels)
  if x.dtype != np.int16 or x.ndim != 2 or len(x) != size:
    found = f'x of {x.dtype}, shape {x.shape}'
    raise unusable(path, found, f'int16, ({size}, samples)')
  if found_names.dtype.kind != 'U' or found_names.shape != (size,):
    found = f'channels of {found_names.dtype}, shape {found_names.shape}'
    raise unusable(path, found, f'names, ({size},)')
  if sorted(found_names.tolist()) != sorted(channels):
    odd = sorted(set(found_names.tolist()) ^ set(channels))
    raise unusable(
      path, f'channels that differ in {odd[:3]}', f'{channels[0]} ... ({size})'
    )
  numbers = scale.dtype.kind in 'fiu' and scale.shape == (size,)
  if not numbers or not (np.isfinite(scale) & (scale > 0)).all():
    found = f'scale of shape {scale.shape} with values {scale.ravel()[:3]} ...'
    raise unusable(path, found, f'({size},), above 0')


def _check_runs(
  path: Path, samples: int, vectors: dict[str, NDArray], classes: int
) -> None:
  """Raises InputError for runs that do not fit into the recording."""
  runs = vectors['run_start'].shape
  for key, value in vectors.items():
    if value.ndim != 1 or value.shape != runs or value.dtype.kind not in 'iu':
      found = f'{key} of {value.dtype}, shape {value.shape}'
      raise unusable(path, found, f'integers of shape {runs}')
  start, length, activity, subject = (
    vectors[key].astype(np.int64) for key in _VECTORS
  )
  end = np.append(start, samples)[1:]
  if not len(start) or start[0] < 0 or (length < 1).any():
    raise unusable(path, 'no run, or an empty one', 'runs of samples')
  if (start + length > end).any():
    found = 'runs that overlap or leave the recording'
    raise unusable(path, found, f'runs in order, within {samples} samples')
  if (activity < 1).any() or (activity > classes).any():
    found = f'activities {activity.min()} to {activity.max()}'
    raise unusable(path, found, f'1 to {classes}')
  if (subject < 1).any():
    raise unusable(path, f'person {subject.min()}', 'persons from 1')
