"""Says what an evaluation adds up, by the kind of targets.

Of every window one small reading is taken of the model's output; readings are
added up by person or by device, and metrics are computed from the sums.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from relief_jax.scoring import targets
from relief_jax.types import Array


class Total(NamedTuple):
  """Describes what is added up, of each of `Z` persons or devices.

  Attributes:
    shape: C -> [...], of the sums of one.
    add: (sums [Z, ...], place [B], reading, y, weight [B]) -> sums.
    dtype: of the sums.
  """

  shape: Callable[[int], tuple[int, ...]]
  add: Callable[..., Array]
  dtype: Any = jnp.float32

  @property
  def axes(self) -> int:
    """Number of axes of the sums of one."""
    return len(self.shape(1))

  def zeros(self, places: int, classes: int) -> Array:
    """Makes sums of nothing yet, [Z, ...]."""
    return jnp.zeros((places, *self.shape(classes)), self.dtype)


class Sums(NamedTuple):
  """Describes the sums of a kind of targets.

  Attributes:
    read: (output [B, ...], y [B, ...]) -> [B, ...], a reading of each window.
    persons: of held-out windows, by person.
    own: of devices' own windows; of classes they are fewer numbers, since
      devices are many.
    loss: (output, y) -> [B], nats that are summed beside; None where the sums
      tell it.
  """

  read: Callable[[Array, Array], Array]
  persons: Total
  own: Total
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


def _plain(number: int) -> Total:
  """Adds up readings of some numbers each."""

  def add(sums, place, reading, y, weight):
    del y
    return sums.at[place].add(weight[:, None] * reading)

  return Total(lambda classes: (number,), add)


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
    lambda output, y: output.argmax(-1),
    Total(lambda classes: (classes, classes), _confusion, jnp.int32),
    Total(lambda classes: (3, classes), _hits, jnp.int32),
    optax.softmax_cross_entropy_with_integer_labels,
  ),
  targets.TOKENS: Sums(_tokens, _plain(3), _plain(3)),
  targets.NUMBERS: Sums(_numbers, _plain(2), _plain(2)),
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
