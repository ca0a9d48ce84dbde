"""Reads CIFAR-10 in its binary version: `--config.dataset=cifar10`.

A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
Records of a label and 32 * 32 red, then green, then blue bytes. The version for
Python is of pickles, which run what they hold: it is never read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relief_jax.datasets import arrays
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError

CLASSES = (
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
)
_SIDE = 32


def files(root: Path | None) -> list[Path]:
  """Finds the five batches and the test batch below a data folder."""
  names = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
  return located(root, 'cifar10', names)


def located(root: Path | None, folder: str, names: Sequence[str]) -> list[Path]:
  """Finds files by name below a folder of a data folder, all of them or none.

  Args:
    root: of the data sets.
    folder: of one.
    names: of its files.
  """
  if root is None:
    return []
  found = [sorted((root / folder).rglob(name))[:1] for name in names]
  return [path for paths in found for path in paths] if all(found) else []


def read(paths: list[Path]) -> Windows:
  """Loads all images, [n, 32, 32, 3] from 0 to 1.

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  return parse(paths, 1, CLASSES)


def parse(
  paths: Sequence[Path], labels: int, classes: Sequence[str]
) -> Windows:
  """Reads files of records, the last one of the test images.

  Args:
    paths: of the files.
    labels: bytes before each image; the last of them is the class.
    classes: names.

  Raises:
    InputError: other files.
  """
  size = labels + 3 * _SIDE * _SIDE
  parts = []
  for path in paths:
    raw = np.fromfile(path, np.uint8)
    if not raw.size or raw.size % size:
      raise InputError(
        f'{path} of {raw.size} bytes',
        f'a multiple of {size}, of the binary version',
        'fetch the binary version of the data set',
      )
    parts.append(raw.reshape(-1, size))
  rows = np.concatenate(parts)
  test = np.zeros(len(rows), bool)
  test[-len(parts[-1]) :] = True
  y = rows[:, labels - 1].astype(np.int32)
  if y.max() >= len(classes):
    raise InputError(
      f'{paths[0].parent}: class {y.max()}',
      f'0 to {len(classes) - 1}',
      'fetch the binary version of the data set',
    )
  x = rows[:, labels:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
  return arrays.windows(
    x.astype(np.float32) / 255, y, None, test, classes, name='image'
  )
