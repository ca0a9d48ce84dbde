"""Reads Fashion-MNIST: `--config.dataset=fashion_mnist`.

H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747. IDX files, packed or not: a
magic number, sizes in big-endian int32, bytes.
"""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import arrays, cifar10, packed
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError

CLASSES = (
  'T-shirt/top',
  'trouser',
  'pullover',
  'dress',
  'coat',
  'sandal',
  'shirt',
  'sneaker',
  'bag',
  'ankle boot',
)
_UBYTE = 8  # the type of an IDX file's numbers
_NAMES = tuple(
  f'{part}-{kind}-ubyte'
  for part in ('train', 't10k')
  for kind in ('images-idx3', 'labels-idx1')
)


def files(root: Path | None) -> list[Path]:
  """Finds images and labels to train and to test on below a data folder."""
  for ending in ('.gz', ''):
    names = [name + ending for name in _NAMES]
    if found := cifar10.located(root, 'fashion_mnist', names):
      return found
  return []


def read(paths: list[Path]) -> Windows:
  """Loads all images, [n, 28, 28, 1] from 0 to 1.

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  train, y, tested, y_test = map(read_idx, paths)
  test = np.arange(len(train) + len(tested)) >= len(train)
  x = np.concatenate([train, tested])[..., None].astype(np.float32) / 255
  label = np.concatenate([y, y_test]).astype(np.int32)
  return arrays.windows(x, label, None, test, CLASSES, name='image')


def read_idx(path: Path) -> NDArray:
  """Reads an IDX file of bytes.

  Raises:
    InputError: it is none, or damaged.
  """
  try:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == '.gz' else data
    if data[:3] != bytes([0, 0, _UBYTE]):
      raise ValueError('no IDX file of bytes')
    shape = np.frombuffer(data, '>i4', data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
  except (*packed.DAMAGED, IndexError) as error:
    raise InputError(
      f'{path}: {error}', 'an IDX file of bytes', 'fetch it again'
    ) from error
