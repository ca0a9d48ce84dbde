"""Says what an evaluation adds up, by the kind of targets.

Of every window one small reading is taken of the model's output; readings are
added up by person or by device, and metrics are computed from the sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from relief_jax.scoring import targets
from relief_jax.types import Array


class Sums(NamedTuple):
  """Describes the sums of a kind of targets; `Z` persons or devices.

  Attributes:
    axes: of one person's sums.
    read: (output [B, ...], y [B, ...]) -> [B, ...], a reading of each window.
    zeros: (Z, C) -> [Z, ...], nothing yet.
    add: (sums [Z, ...], place [B], reading, y, weight [B]) -> sums.
    own_zeros: likewise of a device's own windows; of classes they are fewer
      numbers, since devices are many.
    own_add: likewise.
    loss: (output, y) -> [B], nats that are summed beside; None where the sums
      tell it.
  """

  axes: int
  read: Callable[[Array, Array], Array]
  zeros: Callable[[int, int], Array]
  add: Callable[..., Array]
  own_zeros: Callable[[int, int], Array]
  own_add: Callable[..., Array]
  loss: Callable[[Array, Array], Array] | None = None


def _confusion(sums, place, guess, y, weight):
  return sums.at[place, y, guess].add(weight)


def _hits(sums, place, guess, y, weight):
  """Adds up how often a class was right, was predicted and was true."""
  right = weight * (guess == y)
  return (
    sums.at[place, 0, y]
    .add(right)
    .at[place, 1, guess]
    .add(weight)
    .at[place, 2, y]
    .add(weight)
  )


def _plain(sums, place, reading, y, weight):
  del y
  return sums.at[place].add(weight[:, None] * reading)


def _zeros(number: int) -> Callable[[int, int], Array]:
  return lambda places, classes: jnp.zeros((places, number), jnp.float32)


def _tokens(output: Array, y: Array) -> Array:
  """Reads nats, right tokens and tokens of each text, [B, 3]."""
  there = y >= 0
  losses = optax.softmax_cross_entropy_with_integer_labels(
    output, jnp.maximum(y, 0)
  )
  right = there & (output.argmax(-1) == y)
  found = jnp.where(there, losses, 0.0), right, there
  return jnp.stack([v.sum(-1).astype(jnp.float32) for v in found], -1)


def _numbers(output: Array, y: Array) -> Array:
  """Reads the squared error and how many numbers it is of, [B, 2]."""
  error = jnp.square(output - y).sum(-1)
  return jnp.stack([error, jnp.full(error.shape, float(y.shape[-1]))], -1)


SUMS = {
  targets.CLASSES: Sums(
    2,
    lambda output, y: output.argmax(-1),
    lambda places, classes: jnp.zeros((places, classes, classes), jnp.int32),
    _confusion,
    lambda places, classes: jnp.zeros((places, 3, classes), jnp.int32),
    _hits,
    optax.softmax_cross_entropy_with_integer_labels,
  ),
  targets.TOKENS: Sums(1, _tokens, _zeros(3), _plain, _zeros(3), _plain),
  targets.NUMBERS: Sums(1, _numbers, _zeros(2), _plain, _zeros(2), _plain),
}


def perplexity(sums: np.ndarray) -> np.ndarray:
  """Computes exp of the mean loss of a token, [..., 3] -> [...].

  inf where it is too large for a number, NaN where there is no token.
  """
  nats, _, tokens = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  with np.errstate(over='ignore', divide='ignore', invalid='ignore'):
    return np.exp(nats / tokens)


def rmse(sums: np.ndarray) -> np.ndarray:
  """Computes the root of the mean squared error, [..., 2] -> [...]."""
  square, numbers = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.sqrt(square / numbers)
