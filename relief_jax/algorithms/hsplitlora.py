"""HSplitLoRA: ranks by layer, splits by device, merges without noise.

Every device has a rank of its own in every adapted layer, r[n, l] of {0, 2, 4,
8, ..., R}: as many as its time and memory allow, where they bring most
(budgets/layer_ranks.py). How much a layer matters is measured on one batch in
every `every`-th round (parts/layer_importance.py). Products of unequal ranks
merge exactly, as by `flora`: their mean over the devices that have the layer
goes into the base, and all start again from an `a` drawn from the round's key,
and b = 0. `merge=apart` is the noisy rule that it is measured against, that of
the port of HetLoRA to split training: factors padded with zeros, averaged apart
with the norms of the devices' products as weights.

*Split* (an option; by default devices hold the whole model): with
`rule=deepest` a device holds the first layers, as many as it can train at the
smallest rank above 0 (inputs never go up), and moves to another split only
where I has changed by more than `theta` of itself since it came there, or where
it no longer fits. The server trains the rest for it, at rank R.
*Arithmetic*: a copy of the server's layers for every device, averaged with
theirs after a round. Then any split is federated training at another price, and
the merge is exact for all layers. The other one, of one server's model that
moves in every step, would have two kinds of adapters of a layer that some
devices hold and others do not, and the merge for it is nowhere stated.

*Budget*: b_n bounds the device's own FLOPs, those of measuring among them;
`memory_mb` its part of the model. Who affords not even the smallest rank sits
out. *Bytes*: r (i + o) up and merges down, as `flora`, of the device's layers;
measurements 4 a layer; with a split also what crosses in every step
(parts/split_bill.py).

Grade: secondary (https://arxiv.org/abs/2505.02795: of its abstract the merge
without noise, and ranks and split by importance and budget). **Ours**: the
importance, the choice of ranks, the arithmetic. Expect orderings, not numbers.
Apart, devices are tested with the server's adapters and not with their cut.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.aggregation.lora import Merged
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.flora import restart
from relief_jax.algorithms.hetlora import weighted
from relief_jax.algorithms.parts import (
  adapters,
  layer_importance,
  rank_check,
  split_bill,
)
from relief_jax.algorithms.parts.adapters import Family, Kind
from relief_jax.algorithms.parts.layer_importance import Importance
from relief_jax.algorithms.parts.rank_prices import Prices
from relief_jax.budgets import layer_ranks
from relief_jax.budgets.greedy import SLACK
from relief_jax.budgets.ranks import Halves
from relief_jax.clients.device import Device, Received, Update
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Server
from relief_jax.settings import Setting
from relief_jax.task import Plan, SplitPoints, Task
from relief_jax.types import Array, PyTree

NAME = 'hsplitlora'


@dataclasses.dataclass(frozen=True)
class Options(split_bill.OneSplit, adapters.Options):
  """Holds the options of HSplitLoRA."""

  rule: str = option(
    name(
      'fixed',
      ('fixed', 'deepest'),
      'where a device splits; fixed with layers=-1: nowhere',
    )
  )
  layers: int = option(
    whole(
      -1,
      -2,
      1000,
      'on every device if rule=fixed; -1: the whole model, -2: all in front of '
      'the last point',
    )
  )
  theta: float = option(
    real(0.1, 0, 1000, 'change of the importance that moves a split')
  )
  least: int = option(whole(0, 0, 10**4, 'smallest rank of a layer'))
  every: int = option(whole(5, 1, 10**6, 'rounds between measurements'))
  rho: float = option(
    real(0.5, 0, 1, 'weight of a new measurement', above=True)
  )
  merge: str = option(
    name('exact', ('exact', 'apart'), 'of products, or of factors')
  )


class State(NamedTuple):
  """Holds the server's state.

  Attributes:
    merged: of the merges.
    known: of the layers.
  """

  merged: Merged
  known: layer_importance.Known


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


KINDS = {
  'exact': Kind(
    down=lambda index: Halves(False, False),
    budgeted=True,
    padded=False,
    merge=restart,
    merges=True,
    layered=True,
  ),
  'apart': Kind(budgeted=True, layered=True),
}


def on_device(points: SplitPoints) -> tuple[int, ...]:
  """Leaves out that inputs go up."""
  return tuple(s for s, layers in enumerate(points.layers) if layers)


@Facts(options=Options, adapters=True, budgeted=True, splits=True)
def hsplitlora(task: Task, setting: Setting) -> Method:
  """Builds HSplitLoRA.

  Raises:
    InputError: a smallest rank above the model's; a model without the split
      that is asked for.
  """
  planner = Planner(task, setting)
  family, method = planner.family, planner.family.method()
  client = family.client()

  def noisy(received: Received, device: Device) -> Update:
    update = client(received, device)
    return weighted(task, family.ranks, update, received, device)

  def server(state: Server, mean: Mean, round: Round) -> tuple[Server, Kept]:
    known: State = state.method_state
    told: Told = round.plan.client_args.more
    kept: Kept = round.clients
    after, heard = method.server(
      state._replace(method_state=known.merged),
      mean,
      round._replace(clients=kept.heard),
    )
    works = round.plan.run.any(-1)
    moves = works & ~told.stays
    seen = known.known.importance[None]
    if family.kind.merges:
      held = planner.prices.held(told.at)
      heard = jnp.where(held, heard, kept.heard)
    return after._replace(
      method_state=State(
        after.method_state,
        planner.importance.after(known.known, round, told.measures, told.found),
      )
    ), Kept(
      heard,
      jnp.where(works, told.at, kept.at),
      jnp.where(moves[:, None], seen, kept.seen),
    )

  def init(params: PyTree) -> State:
    return State(family.init(params), planner.importance.init())

  def client_init(params: PyTree) -> Kept:
    zero = jnp.zeros(len(family.ranks.layers))
    return Kept(family.client_init(params), jnp.int32(-1), zero)

  def inner(server: Server) -> Server:
    return server._replace(method_state=server.method_state.merged)

  apart = setting.options.merge == 'apart'
  return method._replace(
    plan=planner.plan,
    client=noisy if apart else client,
    server=server,
    init=init,
    client_init=client_init,
    base=method.base
    and (lambda server, frozen: family.rebased(inner(server), frozen)),
    report=lambda server: family.report(inner(server)),
    check=partial(rank_check.check, task, setting, NAME, planner.able),
    traits=method.traits._replace(finds_weights=apart),
  )


class Planner:
  """Plans splits and ranks, and what they cost.

  Args:
    task: the model, with adapters.
    setting: the round, with `Options`.

  Raises:
    InputError: as `hsplitlora`.
  """

  def __init__(self, task: Task, setting: Setting):
    options: Options = setting.options
    self.task, self.setting, self.options = task, setting, options
    self.family = Family(task, setting, NAME, KINDS[options.merge])
    ranks = self.family.ranks
    if options.least > ranks.rank:
      raise InputError(
        f'config.{NAME}.least={options.least} of adapters of rank {ranks.rank}',
        "at most the model's",
        f'set --config.model.rank={options.least}, or lower it',
      )
    bill = None
    if options.rule != 'fixed' or options.layers != -1:
      bill = split_bill.bill(task, setting, NAME, among=on_device)
    table = self.family.table
    self.prices = Prices(task, table, setting.memory_step, bill)
    self.importance = Importance(task, setting, table, options.rho)
    self.levels = layer_ranks.levels(ranks.rank, options.least)

  def rank(self, round: Round, level: int) -> Array:
    """Gives all layers of all devices one rank, [K, L]."""
    shape = *round.active.shape, len(self.family.ranks.layers)
    return jnp.full(shape, level, jnp.int32)

  def places(self, round: Round, whole: Plan) -> tuple[Array, Array]:
    """Finds the deepest split of every device, [S] -> [K], and all that fit.

    Returns:
      [K] int32 points, and [K, S] bool, which fit.
    """
    bill = self.prices.bill
    least = self.levels[min(1, len(self.levels) - 1)]
    if self.levels[0]:
      least = self.levels[0]
    rank = self.rank(round, least)
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
      found = self.importance.measure(server.params, round, measures, flops)
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
    turn = round.round_index % self.options.every == 0
    may = turn & self.measured(round)
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
    cost = plan.cost
    more = {
      'flops': jnp.where(measures, flops, 0.0),
      'upload': jnp.where(measures, 4.0 * held.sum(-1), 0.0),
    }
    for field, value in more.items():
      before = getattr(cost, field)
      cost = cost._replace(
        **{field: value if before is None else before + value}
      )
    args = plan.client_args._replace(more=told)
    return plan._replace(cost=cost, client_args=args)
