"""Reads arrays of an `.npz` file (npz.py) by key, and refuses wrong ones."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import npy, packed
from relief_jax.datasets.channels import choose
from relief_jax.errors import InputError


def arrays(path: Path) -> dict[str, NDArray]:
  """Reads all arrays of a file.

  Raises:
    InputError: one that is no `.npz` of plain arrays.
  """
  try:
    return npy.arrays(path)
  except packed.DAMAGED as error:
    raise wrong(
      path,
      f'{type(error).__name__}: {error}',
      'an .npz of plain numbers and names',
      'write it with numpy.savez, names as str arrays and not as objects',
    ) from error


def wrong(path: Path, found: str, expected: str, cure: str = '') -> InputError:
  """Builds the error of a file."""
  return InputError(
    f'{path}: {found}',
    expected,
    cure or 'see relief_jax/datasets/npz.py for what the file should hold',
  )


def names(path: Path, found: dict[str, Any], size: int) -> tuple[str, ...]:
  """Names the channels, by number where the file does not."""
  for key in ('channels', 'modality'):
    if key in found and found[key].shape != (size,):
      raise wrong(
        path,
        f'{key} of shape {found[key].shape}',
        f'({size},), one name per channel of x',
      )
  every = found.get('channels', np.arange(size)).astype(str).tolist()
  if len(set(every)) < size:
    raise wrong(path, f'channels {every}', 'every name once')
  return tuple(every)


def modalities(
  path: Path, found: dict[str, Any], names: tuple[str, ...], asked: str
) -> dict[str, list[int]]:
  """Gives {modality: channel numbers}, from the config or else the file."""
  if 'modality' not in found and not asked:
    raise wrong(
      path,
      "no 'modality'",
      'a modality for each channel',
      "add it, or set --config.data.channels='acc=0,1,2;ecg=3'",
    )
  given = found.get('modality', np.zeros(0)).astype(str).tolist()
  own = {
    m: [i for i, n in enumerate(given) if n == m] for m in sorted(set(given))
  }
  return choose(asked, names, own)


def labels(
  path: Path, found: dict[str, Any]
) -> tuple[NDArray, tuple[str, ...]]:
  """Numbers the classes: of every row, below 0 for none, and their names."""
  y = found['y']
  if y.dtype.kind in 'iu':
    if 'classes' in found:
      names = found['classes'].astype(str)
      if y.max() >= len(names):
        raise wrong(
          path, f'label {y.max()}', f'below {len(names)}, as there are classes'
        )
      return y.astype(np.int64), tuple(names.tolist())
    unlabelled = y < 0
  elif y.dtype.kind == 'U':
    unlabelled = y == ''
  else:
    raise wrong(path, f'y of {y.dtype}', 'ints or names')
  if unlabelled.all():
    raise wrong(path, 'no label', 'an int from 0, or a name')
  values, number = np.unique(y[~unlabelled], return_inverse=True)
  label = np.full(len(y), -1, np.int64)
  label[~unlabelled] = number
  return label, tuple(values.astype(str).tolist())


def subjects(path: Path, subject: NDArray) -> tuple[NDArray, dict[int, str]]:
  """Numbers the persons; those with names are numbered from 1, by name."""
  if subject.dtype.kind in 'iu':
    if subject.min() < 0 or subject.max() >= 2**31:
      raise wrong(path, 'a subject below 0 or too large', 'int32 from 0')
    return subject.astype(np.int64), {}
  if subject.dtype.kind != 'U':
    raise wrong(path, f'subject of {subject.dtype}', 'ints or names')
  names, number = np.unique(subject, return_inverse=True)
  return number + 1, dict(enumerate(names.tolist(), 1))


# What stands for no and yes, in numbers and in words.
_TRUTHS = {'0': False, 'false': False, '1': True, 'true': True}


def truths(path: Path, found: dict[str, Any], key: str) -> NDArray | None:
  """Reads an optional array of bool, also from 0/1 or words; None if absent."""
  if key not in found or found[key].dtype == bool:
    return found.get(key)
  text, number = np.unique(found[key], return_inverse=True)
  words = [
    f'{v:g}' if text.dtype.kind in 'fiu' else str(v).strip().lower()
    for v in text
  ]
  for word in words:
    if word not in _TRUTHS:
      raise wrong(path, f'{key} with {word[:40]!r}', 'True and False')
  return np.array([_TRUTHS[word] for word in words])[number]


def ints(path: Path, found: dict[str, Any], key: str, rows: int) -> NDArray:
  """Reads an optional array of ints, zeros where it is not given."""
  value = found.get(key, np.zeros(rows, np.int64))
  if value.dtype.kind not in 'iu' or value.min() < 0:
    raise wrong(path, f'{key} of {value.dtype}', 'ints from 0')
  return value.astype(np.int64)
