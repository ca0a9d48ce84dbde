"""Computes Shapley values of a handful of players, exactly.

phi_m is what player m adds to a coalition, in the mean over all orders in which
the players may join (Shapley, 1953): a weighted sum over the 2^M coalitions.
"""

import math

import numpy as np

from relief_jax.errors import InputError
from relief_jax.types import Array

MOST = 8


def coalitions(players: int) -> np.ndarray:
  """Lists all coalitions, [2^M, M] bool: empty first, everybody last.

  Raises:
    InputError: too many players.
  """
  if players > MOST:
    raise InputError(
      f'Shapley values of {players} modalities',
      f'at most {MOST}: every subset of them is tried',
      'take fewer modalities, or --config.data.modalities=sensor',
    )
  number = np.arange(2**players)
  return (number[:, None] >> np.arange(players)[None]) % 2 == 1


def values(worth: Array) -> Array:
  """Computes phi, [M]: they add up to the worth of all less that of none.

  Args:
    worth: [2^M] of the coalitions, in their order.

  >>> values(np.array([0.0, 1.0, 3.0, 4.0]))
  array([1., 3.])
  """
  players = worth.shape[0].bit_length() - 1
  inside = coalitions(players)
  others = inside.sum(1)[:, None] - inside  # beside the player
  orders = np.vectorize(math.factorial)(
    np.stack([others, players - 1 - others])
  )
  share = orders.prod(0) / math.factorial(players)
  return (worth[:, None] * np.where(inside, share, -share)).sum(0)
