"""Training losses by name: (output, y, weight) -> [], and what they are of."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.clients.training import cross_entropy
from relief_jax.errors import InputError, unknown
from relief_jax.scoring import targets
from relief_jax.types import Array

Criterion = Callable[[Array, Array, Array], Array]


class Loss(NamedTuple):
  """Holds a loss.

  Attributes:
    criterion: (output [B, ...], y [B, ...], weight [B]) -> [].
    targets: the kind that it is of.
  """

  criterion: Criterion
  targets: str


def sigmoid(scores: Array, y: Array, weight: Array) -> Array:
  """Computes the weighted mean of one-against-all logistic losses, [].

  Args:
    scores: [B, C] logits.
    y: [B] int32 classes.
    weight: [B], 0 for padding.
  """
  true = jax.nn.one_hot(y, scores.shape[-1])
  losses = optax.sigmoid_binary_cross_entropy(scores, true).sum(-1)
  return _mean(losses, weight)


def next_token(scores: Array, y: Array, weight: Array) -> Array:
  """Computes the weighted mean cross-entropy of the tokens, [].

  Args:
    scores: [B, T, V] logits.
    y: [B, T] int32 tokens; those below 0 do not count.
    weight: [B], 0 for padding.
  """
  losses = optax.softmax_cross_entropy_with_integer_labels(
    scores, jnp.maximum(y, 0)
  )
  return _mean(losses, weight[:, None] * (y >= 0))


def squared_error(output: Array, y: Array, weight: Array) -> Array:
  """Computes the weighted mean squared error, [].

  Args:
    output: [B, D].
    y: [B, D] float32.
    weight: [B], 0 for padding.
  """
  return _mean(jnp.square(output - y).mean(-1), weight)


def _mean(losses: Array, weight: Array) -> Array:
  return tree.scale(weight, losses).sum() / jnp.maximum(weight.sum(), 1e-9)


LOSSES = {
  'softmax': Loss(cross_entropy, targets.CLASSES),
  'sigmoid': Loss(sigmoid, targets.CLASSES),
  'next_token': Loss(next_token, targets.TOKENS),
  'squared_error': Loss(squared_error, targets.NUMBERS),
}
USUAL = {
  targets.CLASSES: 'softmax',
  targets.TOKENS: 'next_token',
  targets.NUMBERS: 'squared_error',
}


def find(loss: str | Criterion, kind: str = '') -> Loss:
  """Finds a loss.

  Args:
    loss: a name, '' for the usual one, or a function (output, y, weight) -> [].
    kind: of the targets; '' where it is not known: that of the loss, classes
      of a function.

  Raises:
    InputError: no such name, or a loss of other targets.
  """
  if callable(loss):
    return Loss(loss, kind or targets.CLASSES)
  loss = loss or USUAL[kind or targets.CLASSES]
  if loss not in LOSSES:
    raise unknown('loss', loss, LOSSES)
  found = LOSSES[loss]
  if kind and found.targets != kind:
    fit = [name for name, other in LOSSES.items() if other.targets == kind]
    raise InputError(
      f'loss={loss!r}, of {found.targets}, for data whose targets are {kind}',
      ' or '.join(map(repr, fit)),
      'leave `loss` out, or name one of these',
    )
  return found
