"""Chooses the most valuable groups that a budget affords, as ElasticTrainer.

    max  sum_{g in S} value_g    subject to  F_n(S) <= b_n

with F_n of `costs.step_flops`: the forward pass, the weight gradients of S and
the activation gradients of all that lies above the deepest group of S in every
branch. ElasticTrainer (https://github.com/pittisl/ElasticTrainer) solves this
by dynamic programming over discretised time for one chain of layers. A model
with an encoder per sensor is a bundle of chains; ours: each chain continues
from the table of the chains before it, which is their max-plus convolution, so
all of it takes O(G cells) instead of O(2^G).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs
from relief_jax.budgets.greedy import SLACK
from relief_jax.task import Work
from relief_jax.types import Array

# Of a table. A set is missed only for one that costs less than G cells more.
CELLS = 256


class Chains(NamedTuple):
  """Describes the groups of a model as chains of gradient passes.

  Attributes:
    order: [G] ints, chain by chain, each from the output to the input.
    first: [G] bool, in that order: begins a chain.
    through: [G, Q] bool, passes inside the group's chain that are paid where
      it is the deepest that trains.
    joint: [G, Q] bool, passes shared by several chains that the group needs.
    cases: [cases, Q] bool, the joint passes that a choice may pay for.
  """

  order: Array | np.ndarray
  first: Array | np.ndarray
  through: Array | np.ndarray
  joint: Array | np.ndarray
  cases: Array | np.ndarray


class _Table(NamedTuple):
  """Holds the best sets that cost at most so many cells; [cells + 1] first."""

  value: Array  # float32, -inf: none
  cost: Array  # float32, of that set, not rounded
  chosen: Array  # [cells + 1, words] uint32, a bit per group


def chains(work: Work, group_modality: tuple[int, ...]) -> Chains:
  """Builds the chains of a model: one per modality, and the shared groups'.

  Args:
    work: of the model; read on the host.
    group_modality: [G] modality of each group, -1 for shared.
  """
  needs = np.asarray(work.path).T
  modality = np.asarray(group_modality)
  several = [len(set(modality[column])) > 1 for column in needs.T]
  joint = needs & np.asarray(several, bool)
  own = needs & ~joint
  order: list[int] = []
  first: list[bool] = []
  through = np.zeros_like(own)
  for m in np.unique(modality):
    members = np.flatnonzero(modality == m)
    members = members[np.argsort(own[members].sum(1), kind='stable')]
    through[members] = np.logical_or.accumulate(own[members])
    order += members.tolist()
    first += [i == 0 for i in range(len(members))]
  cases = np.unique(joint, axis=0)
  return Chains(np.array(order), np.array(first), through, joint, cases)


def most_valuable(
  model: Chains,
  work: Work,
  run: Array,
  access: Array,
  value: Array,
  budget: Array,
) -> Array:
  """Chooses one device's groups.

  Args:
    model: from `chains`.
    work: of the model.
    run: [M] bool, branches in the forward pass.
    access: [G] bool, groups that may be chosen.
    value: [G] float32, at least 0.
    budget: [] FLOPs per sample.

  Returns:
    [G] bool, a subset of `access` that costs at most the budget; nothing where
    no group fits. No affordable set is worth more, but one that leaves less
    than G / CELLS of the room for training unused. Of sets of one value a
    larger one.
  """
  work = costs.of_run(work, run)
  forward = costs.step_flops(work, run, jnp.zeros_like(access))
  through = costs.total(jnp.asarray(model.through), work.agrad)

  def case(paid):
    reach = access & ~(model.joint & ~paid[None]).any(1)
    left = budget * (1 + SLACK) - forward - costs.total(paid, work.agrad)
    passes = (model.through & reach[:, None]).any(0)
    every = costs.total(reach, work.wgrad) + costs.total(passes, work.agrad)
    # No finer than needed, and finite.
    room = jnp.minimum(left, every * (1 + SLACK))
    scale = CELLS / jnp.maximum(room, 1e-9)
    table = _fill(
      model, reach & (left > 0), work.wgrad * scale, through * scale, value
    )
    return table.value[-1], table.chosen[-1]

  best, chosen = jax.lax.map(case, jnp.asarray(model.cases))
  group = np.arange(value.size)
  words = chosen[jnp.argmax(best)][group // 32]
  return (words >> (group % 32).astype(np.uint32)) & 1 == 1


def _fill(
  model: Chains, reach: Array, weight: Array, through: Array, value: Array
) -> _Table:
  """Fills the table over all chains; prices [G] in cells."""
  group = np.arange(value.size)
  bits = np.zeros((value.size, -(-value.size // 32)), np.uint32)
  bits[group, group // 32] = 1 << (group % 32)
  empty = _Table(
    jnp.zeros(CELLS + 1),
    jnp.zeros(CELLS + 1),
    jnp.zeros((CELLS + 1, bits.shape[1]), jnp.uint32),
  )

  def extend(tables, row):
    best, above = tables  # `above`: of the chain only what is above the group
    first, allowed, weight, through, value, bit = row
    above = jax.tree.map(lambda a, b: jnp.where(first, a, b), best, above)
    item = value, bit, allowed
    best = _better(best, _take(above, weight + through, *item))
    return (best, _better(above, _take(above, weight, *item))), None

  rows = (reach, weight, through, value, jnp.asarray(bits))
  rows = jax.tree.map(lambda v: v[jnp.asarray(model.order)], rows)
  rows = (jnp.asarray(model.first), *rows)
  return jax.lax.scan(extend, (empty, empty), rows)[0][0]


def _take(
  table: _Table, price: Array, worth: Array, bit: Array, allowed: Array
) -> _Table:
  """Adds a group, a `bit` of [words], to every set; `price` in cells.

  The true cost travels along, so that the price may be rounded down where the
  sum still fits; rounded up it always does.
  """
  at = jnp.arange(CELLS + 1)
  low = jnp.minimum(jnp.floor(price), CELLS + 1).astype(jnp.int32)

  def shifted(by):
    source = jnp.maximum(at - by, 0)
    found = jax.tree.map(lambda v: v[source], table)
    cost = found.cost + price
    fits = allowed & (at >= by) & (cost <= at)
    return _Table(
      jnp.where(fits, found.value + worth, -jnp.inf),
      cost,
      found.chosen | bit[None],
    )

  return _better(shifted(low + 1), shifted(low))


def _better(one: _Table, other: _Table) -> _Table:
  """Takes, cell by cell, the set that is worth more; of equals `other`."""
  wins = other.value >= one.value
  return jax.tree.map(
    lambda a, b: jnp.where(wins[:, None] if a.ndim > 1 else wins, b, a),
    one,
    other,
  )
