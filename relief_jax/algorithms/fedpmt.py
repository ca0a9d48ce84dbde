"""FedPMT (https://doi.org/10.1109/TNSE.2025.3577910), partial model training.

Every device runs the whole model forward and trains the levels nearest the
output; slow devices never compute gradients of shallow layers. Grade: the
abstract is published, the rule is secondary (FedProC,
https://github.com/nclabteam/FedProC): trust orderings, not numbers.

*Budget* (ours): the largest depth whose F_n fits b_n; who cannot even train
the head within it sits out. The paper's solver for its vector of layers is not
public. *Bytes*: the groups that run come down (frozen layers still change,
since others train them), the trained ones go up.
"""

import dataclasses

import jax
import jax.numpy as jnp

from relief_jax import blocks
from relief_jax.algorithms import fedavg
from relief_jax.budgets import depth, memory
from relief_jax.keys import name, option
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Fleet


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of FedPMT."""

  depth: str = option(
    name('budget', ('budget', 'cycle'), 'how deep a device trains')
  )
  side: str = option(
    name(
      'output',
      ('output', 'input'),
      'trained from: output, or input (prefix training)',
    )
  )


@Facts(options=Options, budgeted=True)
def fedpmt(task: Task, setting: Setting) -> Method:
  """Builds FedPMT and its ablation, prefix training.

  The mean of a group is over the clients that trained it. With all levels
  trained by everybody it is FedAvg.

  Args:
    task: the model; `config.model.groups='layer'` gives a level per layer.
    setting: the round, with `Options`. `depth='cycle'` is the library's default
      of depths 1..L by device, whatever the deadline; `side='input'` trains
      shallow and freezes deep.
  """
  rank = depth.levels(task)
  if setting.options.side == 'input':
    rank = rank.max() - rank
  count = int(rank.max()) + 1
  everywhere = setting.fill == 'input'

  def reach(fleet: Fleet):
    return blocks.reach(fleet, task.blocks.modality, everywhere)

  def depths(fleet: Fleet, limit: memory.Limit):
    """Finds the levels that each device trains, [K] int32."""
    if setting.options.depth == 'cycle':
      return 1 + fleet.id % count
    run, access = reach(fleet)

    def one(run, access, limit):
      price = memory.priced(task, setting.memory_step, run, limit)
      return depth.largest(*price, access, rank)

    return jax.vmap(one)(run, access, limit)

  def plan(server, round) -> Plan:
    del server
    run, access = reach(round.fleet)
    deep = depths(round.fleet, round.limit)
    trained = access & (rank[None] < deep[:, None]) & round.active[:, None]
    run &= trained.any(-1, keepdims=True)
    return Plan(run, trained, trained.astype(jnp.float32))

  def check(fleet: Fleet, deadline: float) -> None:
    limit = memory.Limit(fleet.budget * deadline, fleet.memory)
    whole = depths(fleet, limit) == count
    depth.check(task, fleet, reach(fleet)[0], whole, count)

  return fedavg.fedavg(task, setting)._replace(plan=plan, check=check)
