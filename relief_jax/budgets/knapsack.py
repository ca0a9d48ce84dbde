"""The exact choice over all 2^G sets, for small G (**ours**, an ablation)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.budgets.greedy import SLACK
from relief_jax.errors import InputError
from relief_jax.types import Array

LIMIT = 12


def knapsack(
  score: Array,
  tie: Array,
  step_cost: Callable[[Array], Array],
  access: Array,
  budget: Array,
) -> Array:
  """The affordable set with the largest total score.

  An infinite (optimistic) score counts as more than all finite ones
  together. Among sets of equal score the one whose `tie` sums least wins,
  then the cheaper by number.

  Args:
    score: [G], non-negative or +inf.
    tie: [G], prefers low sums among equals.
    step_cost: [G] bool -> [] FLOPs per sample of training that set.
    access: [G] bool, groups that may be chosen; G <= 12.
    budget: [] FLOPs per sample.

  Returns:
    [G] bool.

  Raises:
    InputError: more than 12 groups.
  """
  num = score.size
  if num > LIMIT:
    raise InputError(
      f'{num} groups for the exact knapsack',
      f'at most {LIMIT} (2^G sets are tried)',
      "set --config.relief.rule=greedy or --config.model.groups='joint'",
    )
  sets = jnp.asarray((np.arange(2**num)[:, None] >> np.arange(num)) & 1 == 1)
  finite = jnp.where(jnp.isinf(score), 0.0, score)
  value = jnp.where(jnp.isinf(score), finite.sum() * 1.001 + 1.0, finite)
  cost = jax.vmap(step_cost)(sets)
  allowed = (~sets | access).all(-1) & (cost <= budget * (1 + SLACK))
  total = jnp.where(allowed, sets.astype(jnp.float32) @ value, -1.0)
  best = total >= total.max() * (1 - 1e-6)
  age = jnp.where(best & allowed, sets.astype(jnp.float32) @ tie, jnp.inf)
  return sets[jnp.argmin(age)] & allowed.any()
