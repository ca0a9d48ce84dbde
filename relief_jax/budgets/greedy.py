"""Chooses groups in order of divergence while they fit **[paper]**."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from relief_jax.types import Array

# A budget set to the exact cost of a set must admit it in float32.
SLACK = 1e-5


def greedy(
  score: Array,
  tie: Array,
  step_cost: Callable[[Array], Array],
  access: Array,
  budget: Array,
) -> Array:
  """Chooses groups by score; one that does not fit is passed over.

  Prop. 4 of the paper: optimal when all groups cost the same.

  Args:
    score: [G], higher first.
    tie: [G], breaks equal scores, lower first; then the group's number.
    step_cost: [G] bool -> [] FLOPs per sample of training that set; not
      additive, since groups share the gradient through the head.
    access: [G] bool, groups that may be chosen.
    budget: [] FLOPs per sample.

  Returns:
    [G] bool, a subset of `access` with `step_cost(chosen) <= budget`, or
    empty where not even the empty set fits.
  """
  order = jnp.lexsort((jnp.arange(score.size), tie, -score))

  def take(chosen, g):
    tried = chosen.at[g].set(True)
    fits = access[g] & (step_cost(tried) <= budget * (1 + SLACK))
    return jnp.where(fits, tried, chosen), None

  return jax.lax.scan(take, jnp.zeros_like(access), order)[0]
