"""Shrinks every block's mean towards zero, **ours**."""

import jax.numpy as jnp

from relief_jax import tree
from relief_jax.aggregation.mean import Mean
from relief_jax.rounds.method import Method
from relief_jax.task import Task
from relief_jax.types import Array


def share(mean: Mean) -> Array:
  """Computes the share kept of each block under shrinkage, [G].

  The update is (1 - lambda) cohort mean + lambda global mean. Here devices
  outside the cohort send nothing, so the global mean is c = |T_g| / K times
  the cohort's, and lambda minimises the error of section 4's identity with
  sigma^2 and the true mean's norm estimated from this round's updates.

  Args:
    mean: of the round.
  """
  count = jnp.maximum(mean.trainers, 1.0)
  noise = mean.variance / jnp.maximum(count - 1, 1.0)  # sigma^2 / |T_g|
  signal = jnp.maximum(mean.sq_norm - noise, 0.0)
  best = signal / jnp.maximum(signal + noise, 1e-30)
  least = jnp.minimum(count / jnp.maximum(mean.active, 1.0), 1.0)
  return jnp.where(mean.trainers >= 2, jnp.clip(best, least, 1.0), 1.0)


def with_shrinkage(task: Task, method: Method) -> Method:
  """Makes a method's server shrink the mean before its step."""

  def server(state, mean, round):
    kept = tree.broadcast_groups(task.groups, share(mean))
    shrunk = mean._replace(delta=tree.scale(kept, mean.delta))
    return method.server(state, shrunk, round)

  return method._replace(server=server)
