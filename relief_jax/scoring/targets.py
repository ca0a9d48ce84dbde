"""Tells the three kinds of what a model is trained to predict.

kind      y of n samples         output of the model  loss
classes   [n] int32              [B, C] logits        softmax, sigmoid
tokens    [n, T] int32           [B, T, V] logits     next_token
numbers   [n, D] float32         [B, D]               squared_error
"""

from typing import Any

import jax
import jax.numpy as jnp

from relief_jax.types import Array

CLASSES, TOKENS, NUMBERS = 'classes', 'tokens', 'numbers'
# A token that only fills up a text; any below 0 is none.
PADDING = -1


def kind(y: Any) -> str:
  """Tells the kind of targets, from their dtype and axes.

  >>> kind(jnp.zeros(3, int)), kind(jnp.zeros((3, 8), int))
  ('classes', 'tokens')

  Args:
    y: [n] ints, [n, T] ints or [n, D] floats.
  """
  if jnp.issubdtype(y.dtype, jnp.floating):
    return NUMBERS
  return CLASSES if y.ndim == 1 else TOKENS


def axes(of: str) -> int:
  """Gives the number of axes of a model's output on a batch."""
  return 3 if of == TOKENS else 2


def zeros(of: str, output: Any) -> Array:
  """Gives targets of zeros that an output can be compared with.

  Args:
    of: the kind.
    output: with a shape, [B, ...].
  """
  if of == NUMBERS:
    return jnp.zeros(output.shape, jnp.float32)
  return jnp.zeros(output.shape[:-1], jnp.int32)


def told(y: Array, weight: Array) -> Array:
  """Gives samples' weights; of texts that of each token, 0 behind the last.

  >>> told(jnp.array([[2, 1, -1], [-1, -1, 5]]), jnp.ones(2)).tolist()
  [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]

  Args:
    y: targets; of tokens below 0 there is nothing to predict, and behind the
      last other one the text is over.
    weight: [B], 0 for padding.

  Returns:
    [B], or of tokens [B, T].
  """
  if kind(y) != TOKENS:
    return weight
  ahead = jax.lax.cummax((y >= 0).astype(jnp.int32), 1, reverse=True)
  return weight[:, None] * ahead
