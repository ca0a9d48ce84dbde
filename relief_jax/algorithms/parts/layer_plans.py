"""Plans ranks by layer and splits by device, round by round (**ours**).

Where a device splits, whether it measures (layer_importance.py) and which ranks
it trains (budgets/layer_ranks.py), in this order: a split follows from what
fits, and moves with the importance of earlier rounds; ranks follow from it and
from what was just measured.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.aggregation.lora import Merged
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts.adapters import Family
from relief_jax.algorithms.parts.layer_importance import Importance, Known
from relief_jax.algorithms.parts.rank_prices import Prices
from relief_jax.algorithms.parts.split_bill import Bill
from relief_jax.budgets import layer_ranks
from relief_jax.budgets.greedy import SLACK
from relief_jax.rounds.method import Round, Server
from relief_jax.task import Plan
from relief_jax.types import Array, PyTree


class State(NamedTuple):
  """Holds the server's state.

  Attributes:
    merged: of the merges.
    known: of the layers.
  """

  merged: Merged
  known: Known


class Kept(NamedTuple):
  """Holds what is kept on a device.

  Attributes:
    heard: [L] of merges (`parts/merges.py`); () where nothing merges.
    at: [] int32, its split point; -1 before its first round.
    seen: [L] I when it came there.
  """

  heard: PyTree
  at: Array
  seen: Array


class Told(NamedTuple):
  """Holds what a plan tells beside the ranks; every field [K].

  Attributes:
    measures: bool.
    found: [K, L] what was measured.
    at: int32, split points.
    stays: bool, where it was.
  """

  measures: Array
  found: Array
  at: Array
  stays: Array


class Planner:
  """Plans splits and ranks, and what they cost.

  Args:
    family: of the method.
    options: its `least`, `theta`, `every` and `rho`.
    bill: of a split; None: devices hold the whole model.
  """

  def __init__(self, family: Family, options: Any, bill: Bill | None):
    self.family, self.options, self.setting = family, options, family.setting
    task, table, setting = family.task, family.table, family.setting
    self.prices = Prices(task, table, setting.memory_step, bill)
    self.importance = Importance(task, setting, table, options.rho)
    self.levels = layer_ranks.levels(family.ranks.rank, options.least)

  def rank(self, round: Round, level: int) -> Array:
    """Gives all layers of all devices one rank, [K, L]."""
    shape = *round.active.shape, len(self.family.ranks.layers)
    return jnp.full(shape, level, jnp.int32)

  def places(self, round: Round, whole: Plan) -> tuple[Array, Array]:
    """Finds the deepest split of every device, and all that fit.

    Who splits trains its layers at the smallest rank above 0 at least: else
    the deepest would be one of which the device trains nothing.

    Returns:
      [K] int32 points, and [K, S] bool, which fit.
    """
    bill = self.prices.bill
    rank = self.rank(round, self.levels[0] or self.levels[1])
    every = range(1) if bill is None else range(len(bill.points.layers))
    among = (0,) if bill is None else bill.among

    def fits(s):
      at = jnp.full(round.active.shape, s)
      return self.prices.price(round, whole, at, rank).fits(round.limit)

    inside = jax.vmap(fits)(jnp.array(every)).T
    inside &= jnp.isin(jnp.array(every), jnp.array(among))[None]
    last = len(every) - 1
    return last - inside[:, ::-1].argmax(-1), inside

  def able(self, round: Round, whole: Plan) -> Array:
    """Tells who has a split and ranks that fit, [K] bool."""
    at, inside = self.places(round, whole)
    return self.fitting(round, whole, at, inside)

  def fitting(self, round, whole, at, inside) -> Array:
    """Tells whose smallest ranks fit, [K] bool; with a split a larger one."""
    if self.prices.bill is not None:
      return inside.any(-1)
    rank = self.rank(round, self.levels[0])
    return self.prices.price(round, whole, at, rank).fits(round.limit)

  def plan(self, server: Server, round: Round) -> Plan:
    """Plans a round, `Method.plan`."""
    state: State = server.method_state
    kept: Kept = round.clients
    whole = fedavg.everybody(self.setting, round)
    at, inside = self.places(round, whole)
    fits = self.fitting(round, whole, at, inside)
    stays = self.staying(state, kept, inside)
    at = jnp.where(stays, kept.at, at)
    measures, flops, extra = self.measuring(round, whole, at, fits)
    found = jnp.zeros((*at.shape, len(self.family.ranks.layers)))
    known = state.known
    if self.measured(round):

      def measure():
        return self.importance.measure(server.params, round, measures, flops)

      # In the other rounds nobody computes it, under a vmap neither.
      found = jax.lax.cond(self.turn(round), measure, lambda: found)
      known = self.importance.after(known, round, measures, found)
    limit = round.limit._replace(
      budget=round.budget - jnp.where(measures, extra, 0.0)
    )
    rank = layer_ranks.solve(
      self.levels,
      known.importance,
      partial(self.prices.price, round, whole, at),
      limit,
      self.prices.held(at) & (round.active & fits)[:, None],
    )
    return self.charged(
      state, round, whole, rank, fits, Told(measures, found, at, stays), flops
    )

  def staying(self, state: State, kept: Kept, inside: Array) -> Array:
    """Tells whose split stays where it is, [K] bool."""
    away = state.known.importance[None] - kept.seen
    moved, old = (jnp.square(v).sum(-1) for v in (away, kept.seen))
    theta = self.options.theta
    still = jnp.take_along_axis(inside, jnp.maximum(kept.at, 0)[:, None], 1)
    return (kept.at >= 0) & still[:, 0] & (moved <= theta**2 * old)

  def measured(self, round: Round) -> bool:
    """Tells whether anybody may measure; outside a round there is no data."""
    return len(self.levels) > 1 and round.each is not None

  def turn(self, round: Round) -> Array:
    """Tells whether it is a round in which layers are measured, []."""
    return round.round_index % self.options.every == 0

  def measuring(
    self, round: Round, whole: Plan, at: Array, fits: Array
  ) -> tuple[Array, Array, Array]:
    """Finds who measures, [K] bool, its FLOPs, and those per sample [K]."""
    prices, batch = self.prices, self.setting.batch
    held = prices.held(at)
    once = prices.price(
      round, whole, at, self.rank(round, self.family.ranks.rank)
    ).flops
    once += jnp.where(
      held, self.importance.dense(whole.run, whole.trained), 0.0
    ).sum(-1)
    flops = batch * once
    extra = flops / jnp.maximum(self.setting.samples(round.fleet), 1)
    least = prices.price(round, whole, at, self.rank(round, self.levels[0]))
    room = least.flops + extra <= round.budget * (1 + SLACK)
    may = self.turn(round) & self.measured(round)
    return round.active & fits & room & may, flops, extra

  def charged(
    self,
    state: State,
    round: Round,
    whole: Plan,
    rank: Array,
    fits: Array,
    told: Told,
    flops: Array,
  ) -> Plan:
    """Builds the plan of known ranks, with all that it costs."""
    prices, heard = self.prices, round.clients.heard
    held = prices.held(told.at)
    if self.family.kind.merges:  # of a layer that is elsewhere nothing is sent
      heard = jnp.where(held, heard, state.merged.stacked[None])
    plan = self.family.planned(
      state.merged,
      round._replace(clients=heard),
      whole,
      prices.ranks(told.at, rank),
      fits,
    )
    measures = told.measures & plan.run.any(-1)
    if prices.bill is not None:
      steps = measures.astype(jnp.float32)
      plan = prices.charged(round, plan, told.at, fits, steps)

    def more(before, value):
      value = jnp.where(measures, value, 0.0)
      return value if before is None else before + value

    cost = plan.cost._replace(
      flops=more(plan.cost.flops, flops),
      upload=more(plan.cost.upload, 4.0 * held.sum(-1)),
    )
    args = plan.client_args._replace(more=told)
    return plan._replace(cost=cost, client_args=args)
