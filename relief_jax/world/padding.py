"""Pads worlds of nearly one size to arrays of one shape. **Ours.**"""

import numpy as np
from numpy.typing import NDArray


def rounded(count: int) -> int:
  """Rounds up to one of sixteen sizes per power of two.

  Worlds of nearly one size (folds of persons, seeds) then have arrays of one
  shape, and share a compiled program, for at most 6 % of padding.

  >>> [rounded(n) for n in (7, 31, 33, 5208, 5232)]
  [7, 31, 34, 5376, 5376]
  """
  step = 2 ** max(count.bit_length() - 5, 0)
  return -(-count // step) * step


def filled(numbers: NDArray, length: int) -> NDArray:
  """Fills numbers [L] up to a length with -1."""
  return np.pad(numbers, (0, length - len(numbers)), constant_values=-1)
