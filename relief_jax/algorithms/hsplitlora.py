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

import jax.numpy as jnp

from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms.flora import restart
from relief_jax.algorithms.hetlora import weighted
from relief_jax.algorithms.parts import adapters, rank_check, split_bill
from relief_jax.algorithms.parts.adapters import Family, Kind
from relief_jax.algorithms.parts.layer_plans import Kept, Planner, State, Told
from relief_jax.budgets.ranks import Halves
from relief_jax.clients.device import Device, Received, Update
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Server
from relief_jax.settings import Setting
from relief_jax.task import SplitPoints, Task
from relief_jax.types import PyTree

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


def planned(task: Task, setting: Setting) -> Planner:
  """Builds the planner, and refuses what it cannot plan for.

  Args:
    task: the model.
    setting: the round, with `Options`.

  Raises:
    InputError: as `hsplitlora`.
  """
  options: Options = setting.options
  family = Family(task, setting, NAME, KINDS[options.merge])
  if options.least > family.ranks.rank:
    raise InputError(
      f'config.{NAME}.least={options.least} of adapters of rank '
      f'{family.ranks.rank}',
      "at most the model's",
      f'set --config.model.rank={options.least}, or lower it',
    )
  bill = None
  if options.rule != 'fixed' or options.layers != -1:
    bill = split_bill.bill(task, setting, NAME, among=on_device)
  return Planner(family, options, bill)


@Facts(options=Options, adapters=True, budgeted=True, splits=True)
def hsplitlora(task: Task, setting: Setting) -> Method:
  """Builds HSplitLoRA.

  Raises:
    InputError: a smallest rank above the model's; a model without the split
      that is asked for.
  """
  planner = planned(task, setting)
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
