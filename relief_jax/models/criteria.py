"""Training losses of classification by name: (logits, y, weight) -> []."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.clients.training import cross_entropy
from relief_jax.errors import unknown
from relief_jax.types import Array

Criterion = Callable[[Array, Array, Array], Array]


def sigmoid(scores: Array, y: Array, weight: Array) -> Array:
  """Computes the weighted mean of one-against-all logistic losses, [].

  Args:
    scores: [B, C] logits.
    y: [B] int32 classes.
    weight: [B], 0 for padding.
  """
  true = jax.nn.one_hot(y, scores.shape[-1])
  losses = optax.sigmoid_binary_cross_entropy(scores, true).sum(-1)
  return tree.scale(weight, losses).sum() / jnp.maximum(weight.sum(), 1e-9)


CRITERIA: dict[str, Criterion] = {'softmax': cross_entropy, 'sigmoid': sigmoid}


def find(loss: str | Criterion) -> Criterion:
  """Finds a loss; a function (logits, y, weight) -> [] is one.

  Raises:
    InputError: no such name.
  """
  if callable(loss):
    return loss
  if loss not in CRITERIA:
    raise unknown('loss', loss, CRITERIA)
  return CRITERIA[loss]
