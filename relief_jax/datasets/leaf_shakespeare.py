"""Reads LEAF's Shakespeare by role: `--config.dataset=leaf_shakespeare`.

S. Caldas and others, arXiv:1812.01097: a sample is 80 characters and the one
that follows. As there, only the one behind the last is predicted.
"""

from pathlib import Path

import numpy as np

from relief_jax.datasets import leaf, texts
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.scoring import targets


def files(root: Path | None) -> list[Path]:
  """Finds the files below a data folder."""
  return leaf.files(root, 'leaf_shakespeare')


def read(paths: list[Path]) -> Windows:
  """Loads all samples, [n, 80] characters.

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  own = [user for user in leaf.users(paths) if user.y]
  lines = [a + b for user in own for a, b in zip(user.x, user.y, strict=True)]
  if len({len(line) for line in lines}) != 1:
    raise InputError(
      'leaf_shakespeare: samples of unlike lengths',
      '80 characters and one',
      "make the files with LEAF's scripts",
    )
  symbols = texts.vocabulary([line] for line in lines)
  number = {symbol: i for i, symbol in enumerate(symbols)}
  rows = np.stack([texts.encode(line, number) for line in lines])
  y = np.full_like(rows[:, :-1], targets.PADDING)
  y[:, -1] = rows[:, -1]
  return leaf.windows(own, rows[:, :-1], y, symbols, texts.MODALITY)
