"""Chooses exactly, over all 2^G sets, for small G (**ours**, an ablation)."""

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
  """Finds the affordable set with the largest total score.

  An infinite (optimistic) score counts as more than all finite ones together:
  first the number of infinite scores decides, then the finite total. Sums of
  both in float32 would lose the finite ones. Among sets of equal score, what
  has waited longest is taken, and a group without worth rather than nothing.

  Args:
    score: [G], non-negative or +inf.
    tie: [G], prefers low ones among equals; then the set's number.
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

  def total(value):
    return jnp.where(sets, value[None], 0.0).sum(-1)

  cost = jax.vmap(step_cost)(sets)
  best = (~sets | access[None]).all(-1) & (cost <= budget * (1 + SLACK))
  unknown = jnp.isinf(score)
  # The last is positive throughout: of equals the larger set.
  for value in (
    unknown.astype(jnp.float32),
    jnp.where(unknown, 0.0, score),
    1.0 + tie.max() - tie,
  ):
    found = jnp.where(best, total(value), -1.0)
    best &= found >= found.max() * (1 - 1e-6)
  return sets[jnp.argmax(best)] & best.any()
