"""Normalizes the divergence d_g of a block's updates."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.aggregation.mean import Aggregator, Mean, with_sums
from relief_jax.task import Task
from relief_jax.types import Array


def raw(task: Task, mean: Mean) -> Array:
  """Gives the variance |.|^2 itself."""
  del task
  return mean.variance


def per_param(task: Task, mean: Mean) -> Array:
  """Divides by the block's size, else big blocks win by size alone."""
  return mean.variance / task.work.size


def relative(task: Task, mean: Mean) -> Array:
  """Divides by |mean|^2 and by its pure-noise value |T_g|.

  Without the latter it would measure the cohort's size.
  """
  del task
  scale = mean.sq_norm * jnp.maximum(mean.trainers, 1)
  return mean.variance / jnp.maximum(scale, 1e-30)


def cosine(task: Task, mean: Mean) -> Array:
  """Takes updates scaled to length 1; `Mean.extra` is the sum of them."""
  unit = tree.group_sq_norms(task.groups, mean.extra, task.num_blocks)
  unit_sq = tree.divide(unit, jnp.square(mean.weight))
  return jnp.maximum(1 - unit_sq, 0.0)


# Norm -> d_g of a round, [G].
NORMS: dict[str, Callable[[Task, Mean], Array]] = {
  'per_param': per_param,
  'raw': raw,
  'relative': relative,
  'cosine': cosine,
}


def measured(task: Task, norm: str, aggregator: Aggregator) -> Aggregator:
  """Adds the sums that a norm needs to a mean.

  Args:
    task: the model.
    norm: in `NORMS`.
    aggregator: the mean.
  """
  if norm != 'cosine':
    return aggregator

  def unit(update, device):
    sq = tree.group_sq_norms(task.groups, update.delta, task.num_blocks)
    inverse = jnp.where(sq > 0, device.weight * jax.lax.rsqrt(sq), 0.0)
    return tree.scale(tree.broadcast_groups(task.groups, inverse), update.delta)

  return with_sums(aggregator, unit)


def blend(old: Array, new: Array, ema: Array, seen: Array) -> Array:
  """Computes (1 - ema) old + ema new where seen; the first replaces inf."""
  mixed = jnp.where(jnp.isinf(old), new, (1 - ema) * old + ema * new)
  return jnp.where(seen, mixed, old)
