"""In the manner of FedAT (https://arxiv.org/abs/2010.05958): tiers.

Devices are cut into `tiers` of equal size by their time. Within a tier a round
is synchronous; tiers come to the server each at its own pace: semi-synchronous.
The server keeps a model of every tier and the number of its rounds, T_m, and

    theta = sum_m T_{M+1-m} / T theta_m,   T = sum_m T_m

for M tiers, the fastest first: the slowest tier's model weighs as much as the
fastest one has rounds. Until the slowest tier has come for the first time the
fastest weighs nothing. With one tier it is FedAvg.

**Ours**, since the publication's text is not at hand: a block is averaged over
the tiers that have trained it, with their weights over their sum, and stays
where that is 0; tiers are of the fleet's computed times; `rho` is its pull of
devices to the model received, 0 here; no code of the links of its own.
`clients_per_round` devices are divided among the tiers, and drawn within a
tier whenever it starts. Grade: reconstruction.

*Budget*: none. *Bytes and FLOPs*: as FedAvg, for each tier's round.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.algorithms.parts import staleness
from relief_jax.keys import LARGE, MANY, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Events, Method, Round, Server
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


class Tiers(NamedTuple):
  """Holds the server's state between two arrivals.

  Attributes:
    models: [M, *P], of every tier.
    rounds: [M] float32, T_m.
    trained: [M, G] bool, blocks that a tier has ever trained.
  """

  models: PyTree
  rounds: Array
  trained: Array


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of tiers in the manner of FedAT."""

  tiers: int = option(
    whole(4, 1, MANY, 'M, of equal size by the time that devices take')
  )
  rho: float = option(
    real(0.0, 0, LARGE, 'of the pull to the model received; 0: none')
  )


@Facts(options=Options, fill='input', arrivals=True)
def fedat_style(task: Task, setting: Setting) -> Method:
  """Builds synchronous tiers that come to the server one by one.

  Args:
    task: the model.
    setting: the round, with `Options`.
  """
  options, base = setting.options, fedavg(task, setting)
  count = options.tiers

  def init(params):
    return Tiers(
      models=jax.tree.map(lambda v: jnp.repeat(v[None], count, 0), params),
      rounds=jnp.zeros(count),
      trained=jnp.zeros((count, task.num_blocks), bool),
    )

  def server(state: Server, mean: Mean, round: Round):
    old = state.method_state
    who = jnp.where(round.active, round.plan.client_args, -1).max()
    here = jnp.arange(count) == who  # [M]
    moved = here[:, None] & (mean.trainers > 0)[None]  # [M, G]
    after = jax.tree.map(jnp.add, state.params, mean.delta)
    known = Tiers(
      models=jax.vmap(
        lambda row, own: tree.select(
          tree.broadcast_groups(task.groups, row), after, own
        )
      )(moved, old.models),
      rounds=old.rounds + here,
      trained=old.trained | moved,
    )
    weight = known.rounds[::-1, None] * known.trained  # [M, G]
    total = weight.sum(0)
    weight /= jnp.maximum(total, 1.0)[None]
    parts = jax.vmap(
      lambda row, own: tree.scale(tree.broadcast_groups(task.groups, row), own)
    )(weight, known.models)
    step = jax.tree.map(lambda v, p: v.sum(0) - p, parts, state.params)
    touched = tree.broadcast_groups(task.groups, (total > 0) & here.any())
    return base.server(
      state._replace(method_state=known),
      mean._replace(delta=step, touched=touched),
      round,
    )

  return base._replace(
    client=staleness.pulled(task, options.rho),
    server=server,
    init=init,
    events=Events(
      buffer=-(-setting.cohort // count),
      weight=jnp.ones_like,
      merge='models',
      tiers=count,
    ),
  )
