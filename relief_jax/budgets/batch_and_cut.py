"""Chooses batch and split of every device, for time to a target (**ours**).

After the bound of HASFL's frame (https://arxiv.org/abs/2506.08426,
https://arxiv.org/abs/2403.13101). With batches b_n, splits c_n, rate lr,
smoothness beta and I steps between averages of the devices' parts,

    R = (2 gap / lr) / (eps - beta lr / N^2 sum_n sum_l sigma2_l / b_n
                            - [I > 1] 4 beta^2 lr^2 I^2 sum_{l < max c} G2_l)

steps are needed, infinitely many where the divisor is not positive, and

    T = R (T_step + T_merge / I)

is least. Search: the best plan that is the same everywhere, then sweeps in
which each device takes its best (b_n, c_n) while the others stay. Devices of
equal prices and memory move together, so that equal devices get equal plans.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.budgets import cuts
from relief_jax.types import Array

SWEEPS = 5


class Bound(NamedTuple):
  """Holds what the bound is made of.

  Attributes:
    sigma2: [G] variance of a sample's gradient.
    squares: [G] squared norm of the gradients, G2.
    gap: [] loss above its least value.
    beta: smoothness.
    rate: lr.
    every: I.
    target: eps; 0: twice what variance and drift are at the start.
  """

  sigma2: Array
  squares: Array
  gap: Array
  beta: float
  rate: Array
  every: int
  target: float


class Problem(NamedTuple):
  """Holds the devices and what they may choose.

  Attributes:
    grid: [Q] batches.
    one: [K, S] prices of a batch of one, at the points that may be chosen.
    more: [K, S] of every sample more.
    merge: [K, S] seconds of the device's part up and down.
    memory: [K] bytes, or None.
    active: [K] bool.
    held: [S, G] bool, blocks on the device; growing.
    order: of `server_order.ORDERS`.
    bound: of convergence.
  """

  grid: Array
  one: cuts.Prices
  more: cuts.Prices
  merge: Array
  memory: Array | None
  active: Array
  held: Array
  order: Callable[[cuts.Prices, Array], Array]
  bound: Bound


def noise(problem: Problem, batch: Array, at: Array) -> Array:
  """Computes variance and drift of a plan, what eps must be above, [].

  Args:
    problem: the devices.
    batch: [K] int32.
    at: [K] int32, points.
  """
  bound, active = problem.bound, problem.active
  count = jnp.maximum(active.sum(), 1)
  inverse = jnp.where(active, 1 / batch, 0.0).sum()
  variance = bound.beta * bound.rate / count**2
  variance *= bound.sigma2.sum() * inverse
  if bound.every == 1:
    return variance
  below = problem.held[jnp.where(active, at, 0).max()]
  drift = jnp.square(2 * bound.beta * bound.rate * bound.every)
  return variance + drift * jnp.where(below, bound.squares, 0.0).sum()


def objective(
  problem: Problem, target: Array, batch: Array, at: Array
) -> Array:
  """Computes the time to the target, [] seconds; inf where it is not reached.

  Args:
    problem: the devices.
    target: eps.
    batch: [K] int32.
    at: [K] int32, points.
  """
  bound = problem.bound
  left = target - noise(problem, batch, at)
  steps = 2 * bound.gap / bound.rate / jnp.maximum(left, 1e-30)
  own = priced(problem, batch, at)
  merge = jnp.where(problem.active, cuts.at(problem.merge, at), 0.0).max()
  took = problem.order(own, problem.active) + merge / bound.every
  fits = jnp.where(problem.active, fitting(problem, own), True).all()
  return jnp.where((left > 0) & fits, steps * took, jnp.inf)


def priced(problem: Problem, batch: Array, at: Array) -> cuts.Prices:
  """Prices a plan, [K] of every field."""
  one, more = cuts.at(problem.one, at), cuts.at(problem.more, at)
  return jax.tree.map(lambda a, b: a + (batch - 1) * b, one, more)


def fitting(problem: Problem, own: cuts.Prices) -> Array:
  """Tells whose plan fits into memory, [K] bool."""
  if problem.memory is None:
    return jnp.ones(own.memory.shape, bool)
  return own.memory <= problem.memory


def start(problem: Problem, batch: int) -> tuple[Array, Array]:
  """Gives the deepest split that fits with a batch, else the least of both.

  Args:
    problem: the devices.
    batch: samples.

  Returns:
    [K] batches and [K] points.
  """
  count = problem.held.shape[0]
  size = len(problem.active)
  each = jnp.arange(count)
  sizes = jnp.full(size, jnp.minimum(batch, problem.grid[-1]))

  def fits(s):
    return fitting(problem, priced(problem, sizes, jnp.full(size, s)))

  able = jax.vmap(fits)(each)  # [S, K]
  at = jnp.where(able, each[:, None], -1).max(0)
  return jnp.where(at < 0, problem.grid[0], sizes), jnp.maximum(at, 0)


def solve(problem: Problem, batch: int = 8) -> tuple[Array, Array, Array]:
  """Chooses batches and splits.

  Args:
    problem: the devices.
    batch: of the start.

  Returns:
    [K] batches, [K] points, [] seconds to the target; the start, and inf,
    where no plan reaches it.
  """
  first = start(problem, batch)
  bound = problem.bound
  target = jnp.float32(bound.target)
  if not bound.target:
    target = 2 * noise(problem, *first) + 1e-12

  def cost(plan):
    return objective(problem, target, *plan)

  size, count = len(problem.active), problem.held.shape[0]
  choices = jnp.stack(
    jnp.meshgrid(problem.grid, jnp.arange(count), indexing='ij'), -1
  ).reshape(-1, 2)
  alike = _alike(problem)

  def improved(plan, chosen):
    """Takes the best of all choices for the chosen devices."""

    def with_choice(choice):
      return tuple(
        jnp.where(chosen, own, old)
        for own, old in zip(choice, plan, strict=True)
      )

    costs = jax.vmap(lambda c: cost(with_choice(c)))(choices)
    best = costs.argmin()
    better = costs[best] < cost(plan)
    return jax.tree.map(
      lambda a, b: jnp.where(better, a, b), with_choice(choices[best]), plan
    )

  def sweep(state):
    plan, _, number = state
    new = jax.lax.fori_loop(
      0, size, lambda n, plan: improved(plan, alike[n]), plan
    )
    same = jax.tree.map(lambda a, b: (a == b).all(), new, plan)
    return new, ~(same[0] & same[1]), number + 1

  plan = improved(first, jnp.ones(size, bool))
  plan, _, _ = jax.lax.while_loop(
    lambda state: state[1] & (state[2] < SWEEPS), sweep, (plan, True, 0)
  )
  return *plan, cost(plan)


def _alike(problem: Problem) -> Array:
  """Finds devices of equal prices and memory, [K, K] bool."""
  rows = [*problem.one, *problem.more, problem.merge]
  if problem.memory is not None:
    rows.append(problem.memory[:, None])
  rows.append(problem.active[:, None])
  every = jnp.concatenate([jnp.asarray(v, jnp.float32) for v in rows], axis=1)
  return (every[:, None] == every[None]).all(-1)
