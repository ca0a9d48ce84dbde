"""Reads the files of LEAF, S. Caldas and others, arXiv:1812.01097.

    {"users": [name, ...], "num_samples": [n, ...],
     "user_data": {name: {"x": [...], "y": [...]}}}

in folders `train` and `test`, as its scripts write them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import arrays
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError

_PARTS = ('train', 'test')


class User(NamedTuple):
  """Holds the samples of a user in one file.

  Attributes:
    name: of the user.
    test: whether they are to test on.
    x: of every sample.
    y: likewise.
  """

  name: str
  test: bool
  x: list[Any]
  y: list[Any]


def files(root: Path | None, name: str) -> list[Path]:
  """Finds the files of a data set; [] where one of its two parts is empty."""
  if root is None:
    return []
  found = [sorted((root / name / part).glob('*.json')) for part in _PARTS]
  return [path for own in found for path in own] if all(found) else []


def users(paths: Sequence[Path]) -> Iterator[User]:
  """Reads the samples of every user.

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  for path in paths:
    try:
      data = json.loads(path.read_text(encoding='utf-8'))
      for user in data['users']:
        own = data['user_data'][user]
        if len(own['x']) != len(own['y']):
          raise ValueError(f'{len(own["x"])} x and {len(own["y"])} y of {user}')
        yield User(str(user), path.parent.name == 'test', own['x'], own['y'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise InputError(
        f'{path}: {type(error).__name__}: {error}',
        'users and user_data, as LEAF writes them',
        "make it with LEAF's scripts",
      ) from error


def windows(
  own: Sequence[User],
  x: NDArray,
  y: NDArray,
  classes: Sequence[str],
  name: str,
) -> Windows:
  """Gives the samples of users, a client each, LEAF's test part held out.

  Args:
    own: the users, in the order of the samples.
    x: [n, ...].
    y: [n] or [n, T].
    classes: names.
    name: of the modality.
  """
  sizes = [len(user.y) for user in own]
  return arrays.windows(
    x,
    y,
    np.repeat([user.name for user in own], sizes),
    np.repeat([user.test for user in own], sizes),
    classes,
    name=name,
  )
