"""Prices ranks of layers on a device that holds the model, or its first layers.

A device that splits the model trains its own layers at its ranks; the server
trains a copy of the others for it, with adapters of rank R. So ranks change
only the device's side of the bill of a split (parts/split_bill.py): what its
own adapters save of their work at rank R, and of their numbers.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.algorithms.parts.split_bill import Bill
from relief_jax.budgets import cuts
from relief_jax.budgets import ranks as ranks_lib
from relief_jax.budgets.layer_ranks import Price
from relief_jax.budgets.memory import Step
from relief_jax.budgets.ranks import Halves, Table
from relief_jax.rounds.method import Round
from relief_jax.task import Plan, Task, Work
from relief_jax.types import Array


def where_held(task: Task, table: Table, held: np.ndarray) -> np.ndarray:
  """Marks the layers whose adapters lie in held blocks, [S, L] of [S, G].

  Args:
    task: the model.
    table: of its ranks.
    held: [S, G] bool.
  """
  group = ranks_lib.leaf_groups(task)
  return np.stack([held[:, group[layer.b]] for layer in table.ranks.layers], -1)


class Prices(NamedTuple):
  """Prices ranks on devices.

  Attributes:
    task: the model.
    table: of its ranks, with slopes.
    step: a local one.
    bill: of a split; None: devices hold the whole model.
  """

  task: Task
  table: Table
  step: Step
  bill: Bill | None

  def held(self, at: Array) -> Array:
    """Marks the layers on devices that split at points [K], [K, L] bool."""
    layers = len(self.table.ranks.layers)
    if self.bill is None:
      return jnp.ones((*at.shape, layers), bool)
    points = np.array(self.bill.points.held)
    return jnp.asarray(where_held(self.task, self.table, points))[at]

  def ranks(self, at: Array, rank: Array) -> Array:
    """Gives the ranks that train for a device, the server's too, [K, L]."""
    return jnp.where(self.held(at), rank, self.table.ranks.rank)

  def narrowed(self, whole: Plan, rank: Array) -> Plan:
    """Leaves blocks without any numbers out of what trains."""
    there = ranks_lib.sizes(self.table.counts, rank, Halves()) > 0
    return whole._replace(trained=whole.trained & there)

  def price(self, round: Round, whole: Plan, at: Array, rank: Array) -> Price:
    """Prices ranks of devices' layers, [K].

    Args:
      round: before its plan.
      whole: the plan where all fits.
      at: [K] points; any, where nothing is split.
      rank: [K, L] int32.
    """
    rank = self.ranks(at, rank)
    plan = self.narrowed(whole, rank)
    if self.bill is None:
      work = ranks_lib.work_of(self.table, rank, Halves())
      return Price(
        jax.vmap(costs.step_flops)(work, plan.run, plan.trained),
        ranks_lib.needed(
          self.task, self.table, self.step, plan, rank, Halves()
        ),
      )
    own = self.part(round, plan, at, rank)
    found = cuts.at(own.prices, at).memory
    return Price(own.flops, found if self.task.memory is not None else None)

  def part(self, round: Round, plan: Plan, at: Array, rank: Array) -> 'Part':
    """Prices the devices' part of a split model.

    Args:
      round: before its plan.
      plan: what trains at these ranks, wherever it is.
      at: [K] points.
      rank: [K, L] int32, R of the server's layers.
    """
    bill, task, fleet = self.bill, self.task, round.fleet
    assert bill is not None  # asked for of a split alone
    held = jnp.array(bill.points.held)[at]
    mine = plan.trained & held
    work = ranks_lib.work_of(self.table, rank, Halves())

    def saved(train):
      full = costs.step_flops(task.work, plan.run, train)
      return full - jax.vmap(costs.step_flops)(work, plan.run, train)

    forward, both = saved(jnp.zeros_like(mine)), saved(mine)
    first = jax.tree.map(lambda v: v[at], bill.work)
    flops = jax.vmap(costs.step_flops)(first, plan.run, mine) - both
    fewer = task.work.size[None] - ranks_lib.sizes(
      self.table.counts, rank, Halves()
    )
    there = blocks.owned_groups(plan.run, task.blocks.modality) & held
    numbers = costs.total(there, fewer)
    numbers += (1 + self.step.slots) * costs.total(mine, fewer)
    speed = jnp.where(fleet.samples > 0, fleet.speed, 1.0)
    batch, found = self.step.batch, bill.prices(round, plan)
    prices = found._replace(
      ahead=found.ahead - (batch * forward / speed)[:, None],
      behind=found.behind - (batch * (both - forward) / speed)[:, None],
      memory=found.memory - 4 * numbers[:, None],
    )
    shared = first.shared - both
    return Part(prices, flops, dataclasses.replace(first, shared=shared))

  def charged(
    self, round: Round, found: Plan, at: Array, fits: Array, more: Array
  ) -> Plan:
    """Charges a plan of known ranks as the split that it is.

    Args:
      round: before its plan.
      found: of the whole model at these ranks, `Family.planned`.
      at: [K] points.
      fits: [K] bool.
      more: [K] steps beside the local ones.
    """
    bill, rank = self.bill, found.client_args.rank
    assert bill is not None  # asked for of a split alone
    own = self.part(round, found, at, rank)
    plan = bill.plan(round, found, own.prices, at, fits, None, more)
    cost = plan.cost._replace(
      work=own.work,
      wire=found.cost.wire,
      memory=plan.cost.memory if self.task.memory is not None else None,
    )
    if found.cost.download is not None:
      merges, steps = found.cost.download, plan.cost.download
      assert steps is not None  # what comes down in every step
      cost = cost._replace(download=steps + merges)
    # Copies of the server's part train as on the device: nothing is held apart.
    return plan._replace(held=None, client_args=found.client_args, cost=cost)


class Part(NamedTuple):
  """Holds what a device's part of a model takes at its point.

  Attributes:
    prices: [K, S] of a step, right at the point taken.
    flops: [K] per sample.
    work: [K] of every field, which adds up to `flops` for this plan alone.
  """

  prices: cuts.Prices
  flops: Array
  work: Work
