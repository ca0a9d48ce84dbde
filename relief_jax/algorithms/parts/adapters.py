"""Builds the methods of the LoRA family from what they differ in.

Who has a block trains its half or halves of the adapters, and the rest of the
block; those who trained a block count in its mean. Devices of a lower rank
(budgets/ranks.py) hold a cut of the adapters. What the server makes of the
updates is a merge (aggregation/lora.py).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.aggregation import lora
from relief_jax.aggregation.lora import Args, Merged, Sums
from relief_jax.aggregation.mean import Mean, masked_mean
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import merges, rank_check
from relief_jax.budgets import ranks as ranks_lib
from relief_jax.budgets.ranks import Halves, Table
from relief_jax.clients.device import Device, Received, Update
from relief_jax.clients.work import local_sgd
from relief_jax.errors import InputError
from relief_jax.keys import name, option, switch, whole
from relief_jax.rounds import frame
from relief_jax.rounds.method import Method, Round, Server, Traits
from relief_jax.rounds.records import SubModels
from relief_jax.rounds.server import server_step
from relief_jax.settings import Setting
from relief_jax.task import Plan, SubModel, Task
from relief_jax.types import Array, Fleet, PyTree

# Purpose of a round's key beside the devices' ids: factors drawn anew.
RESTART = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of all methods of the family."""

  merge_error: bool = option(
    switch(False, 'record how far merged products are from their mean')
  )


@dataclasses.dataclass(frozen=True)
class RankOptions(Options):
  """Holds the options of methods with a rank per device."""

  rule: str = option(
    name('budget', ranks_lib.RULES, 'how a device comes by its rank')
  )
  rank: int = option(
    whole(0, 0, 10**4, "of every device if rule=fixed; 0: the model's")
  )


class Merging(NamedTuple):
  """Holds what a merge is made of.

  Attributes:
    params: P, after the step along the mean of the factors.
    goal: means of the devices' products (`lora.goals`).
    sums: of products (`lora.Sums`).
    key: of the round.
  """

  params: PyTree
  goal: Mapping[str, Array]
  sums: Mapping[str, Sums]
  key: Array


# -> P, and what is added to the base, {} for nothing.
Merge = Callable[[Merging], tuple[PyTree, Mapping[str, Array]]]


class Kind(NamedTuple):
  """Says in what a method of the family differs from FedIT.

  Attributes:
    halves: number of the round -> those that train, and are sent; None: both.
    down: likewise -> halves that devices are sent; None: both.
    budgeted: devices have ranks of their own (`RankOptions`).
    padded: factors beyond a device's rank count as zeros in the means; else
      its mean leaves them out.
    most: (Round) -> [K] int32, bound of the ranks, or None.
    merge: of the products; None: factors are averaged apart.
    merges: it adds to the base, which devices are then sent.
    layered: devices have a rank of every layer, which the method's own plan
      chooses (`Family.planned`); it checks the fleet, too.
  """

  halves: Callable[[Array], Halves] | None = None
  down: Callable[[Array], Halves] | None = None
  budgeted: bool = False
  padded: bool = True
  most: Callable[[Round], Array] | None = None
  merge: Callable[['Family'], Merge] | None = None
  merges: bool = False
  layered: bool = False


class Family:
  """Builds a method of the LoRA family.

  Args:
    task: the model, with adapters.
    setting: the round, with `Options`.
    name: of the method, for errors.
    kind: of it.

  Raises:
    InputError: a model without adapters, a rank above the layer's or the
      model's.
  """

  def __init__(self, task: Task, setting: Setting, name: str, kind: Kind):
    self.task, self.setting, self.kind, self.name = task, setting, kind, name
    self.ranks = ranks_lib.required(task, name)
    self.table: Table = ranks_lib.table(task, self.ranks, kind.layered)
    self.base = fedavg.fedavg(task, setting)
    self.whole = not (kind.halves or kind.down or kind.budgeted)
    options = setting.options
    chosen = kind.budgeted and not kind.layered
    self.rule = options.rule if chosen else 'fixed'
    self.fixed = options.rank if chosen else 0
    self.tracked = bool(options) and options.merge_error
    if self.fixed > self.ranks.rank:
      raise InputError(
        f'config.{name}.rank={self.fixed} of adapters of rank '
        f'{self.ranks.rank}',
        "at most the model's",
        f'set --config.model.rank={self.fixed}, or lower it',
      )
    if kind.merge and setting.keep_client_state:
      raise InputError(
        f'config.keep_client_state for {name}',
        'False: the server changes the factors that an optimiser was at',
        'leave it out',
      )

  def method(self) -> Method:
    """Gives the method."""
    kind = self.kind
    aggregate = masked_mean(self.task)
    if kind.merge or self.tracked:
      aggregate = lora.products(self.task, self.ranks, aggregate)
    return self.base._replace(
      plan=self.plan,
      client=self.client(),
      aggregate=aggregate,
      server=self.server,
      init=self.init,
      client_init=self.client_init,
      base=self.rebased if kind.merges else None,
      report=self.report,
      device_submodels=self.device_submodels if self._cut else None,
      check=self.check if kind.budgeted else self.base.check,
      traits=Traits(
        submodels=not self.whole,
        optimizers=('sgd',) if kind.merge else (),
      ),
    )

  @property
  def _cut(self) -> bool:
    """Devices answer with a cut of the adapters."""
    kind = self.kind
    return kind.budgeted and not kind.merges and not kind.layered

  # Who trains what, and at what price.

  def chosen(self, round: Round, everything: Plan) -> tuple[Array, Array]:
    """Gives every client's rank [K], and whether one fits [K]."""
    if not self.kind.budgeted:
      shape = round.active.shape
      return jnp.full(shape, self.ranks.rank), jnp.ones(shape, bool)
    return ranks_lib.choose(
      self.task,
      self.table,
      self.setting.memory_step,
      round.fleet,
      round.budget,
      everything,
      self.rule,
      self.fixed,
    )

  def plan(self, server: Server, round: Round) -> Plan:
    """Plans a round, `Method.plan`."""
    everything = fedavg.everybody(self.setting, round)
    rank, fits = self.chosen(round, everything)
    if self.kind.most:
      rank = jnp.minimum(rank, self.kind.most(round))
    rank = ranks_lib.by_layer(self.ranks, rank)
    return self.planned(server.method_state, round, everything, rank, fits)

  def planned(
    self,
    state: Merged,
    round: Round,
    everything: Plan,
    rank: Array,
    fits: Array,
  ) -> Plan:
    """Plans a round whose ranks are known.

    Args:
      state: of the server.
      round: before its plan; `clients` are what devices heard of merges.
      everything: the plan where all fits.
      rank: [K, L] int32.
      fits: [K] bool.
    """
    halves, down = (
      part(round.round_index) if part else Halves()
      for part in (self.kind.halves, self.kind.down)
    )
    found = everything._replace(counted=everything.trained.astype(jnp.float32))
    if not self.whole:
      found = ranks_lib.narrow(
        self.task,
        self.table,
        self.setting.memory_step,
        everything,
        rank,
        fits,
        halves,
        ranks_lib.sizes(self.table.counts, rank, down),
      )
    on = [jnp.broadcast_to(jnp.asarray(v), fits.shape) for v in halves]
    found = found._replace(client_args=Args(rank, *on))
    if not self.kind.merges:
      return found
    merged = merges.missing_bytes(
      self.task, self.ranks, state, round.clients, found.run
    )
    return found._replace(cost=found.cost._replace(download=merged))

  def check(self, fleet: Fleet, deadline: float) -> None:
    """Refuses a fleet whose devices hold no rank, `Method.check`."""
    rank_check.check(
      self.task,
      self.setting,
      self.name,
      lambda *known: self.chosen(*known)[1],
      fleet,
      deadline,
    )

  def device_submodels(self, params, done, fleet: Fleet, hparams) -> SubModels:
    """Cuts the adapters to devices' ranks, `Method.device_submodels`."""
    last = frame.last(self.task, self.setting, hparams, fleet, done)
    rank, _ = self.chosen(last, fedavg.everybody(self.setting, last))
    levels = (self.fixed,) if self.rule == 'fixed' else self.table.levels
    small = [v for v in levels if 0 < v < self.ranks.rank]
    index = sum((rank == v) * (i + 1) for i, v in enumerate(small))
    return SubModels(
      jnp.broadcast_to(jnp.asarray(index, jnp.int32), rank.shape),
      tuple(
        (
          self.task,
          ranks_lib.cut(self.ranks, params, ranks_lib.by_layer(self.ranks, v)),
        )
        for v in small
      ),
    )

  # What a device does.

  def client(self, **more: Any) -> Callable[[Received, Device], Update]:
    """Builds the client: SGD on its cut of the adapters, in its own scale.

    Args:
      **more: of `local_sgd`.
    """
    if self.whole:
      return local_sgd(self.task, **more)
    ranks = self.ranks

    def part(params: PyTree, device: Device) -> SubModel:
      args: Args = device.args
      held = ranks_lib.elements(ranks, params, args.rank, Halves())
      grown = ranks.rank / jnp.maximum(args.rank, 1).astype(jnp.float32)

      def view(p):
        p = jax.tree.map(lambda m, v: jnp.where(m, v, 0.0), held, p)
        return ranks_lib.rescaled(ranks, p, grown)

      moved = ranks_lib.elements(ranks, params, args.rank, args.halves)
      return SubModel(moved, view)

    train = local_sgd(self.task, submodel=part, **more)

    def client(received: Received, device: Device) -> Update:
      # Of rank 0 there is nothing to scale.
      share = jnp.maximum(device.args.rank, 1).astype(jnp.float32) / ranks.rank
      own = ranks_lib.rescaled(ranks, received.params, share)
      update = train(received._replace(params=own), device)
      delta = ranks_lib.rescaled(ranks, update.delta, 1 / share)
      update = update._replace(delta=delta)
      if self.kind.budgeted and self.kind.padded:
        return self.padded(update, received, device)
      return update

    return client

  def padded(
    self, update: Update, received: Received, device: Device
  ) -> Update:
    """Lets factors beyond a device's rank count as zeros."""
    held = ranks_lib.elements(
      self.ranks, update.delta, device.args.rank, Halves()
    )

    def leaf(on, kept, change, value):
      return jax.tree.map(
        lambda k, d, v: jnp.where(k, d, jnp.where(on, -v, 0.0)),
        kept,
        change,
        value,
      )

    delta = jax.tree.map(leaf, device.mask, held, update.delta, received.params)
    return update._replace(delta=delta, mask=device.mask, submodel_mask=None)

  # What the server does.

  def init(self, params: PyTree) -> Merged:
    """Gives the server's state, `Method.init`."""
    zero = jnp.zeros((), jnp.float32)
    merges = self.kind.merges
    return Merged(
      offset=lora.offsets(self.ranks, params) if merges else {},
      stacked=jnp.zeros(len(self.ranks.layers)) if merges else (),
      error=zero if self.tracked else (),
      dense=zero if merges else (),
    )

  def client_init(self, params: PyTree) -> PyTree:
    """Gives what is kept on a device: the ranks of merges that it heard of."""
    return jnp.zeros(len(self.ranks.layers)) if self.kind.merges else ()

  def rebased(self, server: Server, frozen: PyTree) -> PyTree:
    """Gives the base of the round, `Method.base`."""
    return lora.rebased(frozen, server.method_state.offset)

  def report(self, server: Server) -> dict[str, Array]:
    """Tells of the merge, `Method.report`."""
    state: Merged = server.method_state
    found = {'merge_error': state.error, 'merge_dense': state.dense}
    return {k: v for k, v in found.items() if not isinstance(v, tuple)}

  def server(
    self, state: Server, mean: Mean, round: Round
  ) -> tuple[Server, PyTree]:
    """Steps along the mean of the factors and merges, `Method.server`."""
    kind = self.kind
    after, mine = server_step(self.setting)(state, mean, round)
    if not (kind.merge or self.tracked):
      return after, mine
    sums: Mapping[str, Sums] = mean.extra
    rate = round.hparams['server_lr']
    goal = lora.goals(self.ranks, state.params, sums, rate)
    params = after.params
    into: Mapping[str, Array] = {}
    if kind.merge:
      merge = kind.merge(self)
      params, into = merge(Merging(params, goal, sums, round.key))
    merged: Merged = state.method_state
    if self.tracked:
      found = lora.pieces(self.ranks, params)
      found = {k: v + into[k] if k in into else v for k, v in found.items()}
      merged = merged._replace(error=lora.error(found, goal))
    if kind.merges:
      merged, mine = merges.added(self.task, self.ranks, merged, into, round)
    return after._replace(params=params, method_state=merged), mine

  def fresh(self, key: Array) -> PyTree:
    """Draws the factors that all devices start again from, P."""
    return self.task.init(jax.random.fold_in(key, RESTART))
