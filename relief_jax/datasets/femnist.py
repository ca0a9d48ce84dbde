"""Reads LEAF's FEMNIST, a client per writer: `--config.dataset=femnist`.

S. Caldas and others, arXiv:1812.01097: 62 classes, images [28, 28], 1 is paper.
"""

import string
from pathlib import Path

import numpy as np

from relief_jax.datasets import leaf
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError

CLASSES = tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)
_SIDE = 28


def files(root: Path | None) -> list[Path]:
  """Finds the files below a data folder."""
  return leaf.files(root, 'femnist')


def read(paths: list[Path]) -> Windows:
  """Loads all images, [n, 28, 28, 1].

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  own = [user for user in leaf.users(paths) if user.y]
  try:
    x = np.concatenate([np.array(user.x, np.float32) for user in own])
    y = np.concatenate([np.array(user.y, np.int32) for user in own])
    images = x.reshape(-1, _SIDE, _SIDE, 1)
  except (ValueError, TypeError) as error:
    raise InputError(
      f'femnist: {error}',
      f'images of {_SIDE * _SIDE} numbers and classes',
      "make the files with LEAF's scripts",
    ) from error
  return leaf.windows(own, images, y, CLASSES, 'image')
