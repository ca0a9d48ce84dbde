"""FedEL (https://arxiv.org/abs/2509.16902): elastic training in a window.

ElasticTrainer (elastic_fl.py) favours the output side, since deep groups need
the gradients of all above them. FedEL lets a window slide over the blocks of
the model from the input on. A device holds the layers up to the window's end,
leaves the model there by an early exit, and chooses among the groups of the
window and of that exit. Grade: published.

*Window.* At first it begins at block 0 and ends with the first block hi at
which training all of it costs the budget or more. In the device's next round
its end moves on by blocks that again cost as much, and its beginning leaves
those behind in which nothing was chosen; past the last block it starts again.
Ours: blocks are the depth levels of all encoders together, and what a stretch
of blocks costs is F_n of the sub-model that ends with it.

*Importance.* beta I_n + (1 - beta) I_g with I_n of elastic_fl.py (and its
departures) and I_g = |theta_r - theta_{r-1}|^2 / eta of every group, with the
clients' rate eta.

*Budget*: `elastic.most_valuable` under b_n; a device that affords no group of
its window sits out for a round while the window moves on. *FLOPs* are those of
the layers held, of one exit and of what is chosen. *Bytes*: layers and exit
held come down, the chosen groups go up; the mean of a group is over those who
trained it. The model answers by its last exit.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks as blocks_lib
from relief_jax import costs, tree
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms import elastic_fl, fedavg
from relief_jax.budgets import depth, elastic
from relief_jax.clients import batches, training
from relief_jax.clients.device import Device
from relief_jax.clients.work import local_sgd
from relief_jax.keys import option, real
from relief_jax.rounds import legality
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan, Task
from relief_jax.types import Array


class ClientState(NamedTuple):
  """Holds the state of a device between rounds.

  Attributes:
    importance: [G] of every group to the device; +inf: never measured.
    low: [] int32, first block of its next window.
    start: [] int32, first block that the window is to reach beyond.
  """

  importance: Array
  low: Array
  start: Array


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of FedEL."""

  beta: float = option(
    real(0.6, 0, 1, "of a device's own importance; the rest is everybody's")
  )


@Facts(options=Options, exits=True, budgeted=True, classes=True)
def fedel(task: Task, setting: Setting) -> Method:
  """Builds FedEL; without a deadline it is FedAvg.

  Args:
    task: the model, with `exits`.
    setting: the round, with `Options`. The server remembers its model of one
      round ago, P.

  Raises:
    InputError: a model without early exits, or another local optimiser.
  """
  legality.local(
    setting,
    'fedel',
    "takes the model's way over the learning rate for gradients",
    ('momentum', 'sgd'),
  )
  options, count = setting.options, task.cuts
  exits = depth.required(task, 'fedel')
  num, beta = task.num_blocks, options.beta
  # A run is traced around this, and what is read on the host must be there.
  with jax.ensure_compile_time_eval():
    subs = [exits.until(d, False) for d in range(1, count + 1)]
    levels = costs.stack([sub.work for sub in subs])
    each = [jax.tree.map(lambda v, i=i: v[i], levels) for i in range(count)]
    chains = jax.tree.map(
      lambda *v: jnp.stack(v),
      *[elastic.chains(work, task.blocks.modality) for work in each],
    )
  contained = jnp.asarray(
    np.stack([exits.contained(i + 1, False) for i in range(count)])
  )
  block = np.full(num, -1)  # of an exit's groups
  for owners in task.blocks.layers:
    block[list(owners)] = np.arange(count)

  def inside(low: Array, high: Array) -> Array:
    """Marks the groups of a window and of the exit at its end, [G] bool."""
    among = (block < 0) | ((block >= low) & (block <= high))
    return contained[high] & among

  def end(run: Array, access: Array, start: Array, budget: Array) -> Array:
    """Finds the first block until which training from `start` costs b_n, []."""
    high = jnp.arange(count)
    groups = jax.vmap(inside, (None, 0))(start, high) & access[None]
    cost = jax.vmap(costs.step_flops, (0, None, 0))(levels, run, groups)
    enough = (high >= start) & (cost >= budget)
    return jnp.argmax(enough.at[-1].set(True)).astype(jnp.int32)

  def choose(row) -> Array:
    high, *rest = row
    model, work = jax.tree.map(lambda v: v[high], (chains, levels))
    return elastic.most_valuable(model, work, *rest)

  base = fedavg.fedavg(task, setting)

  def plan(server, round: Round) -> Plan:
    own: ClientState = round.clients
    run, access = blocks_lib.reach(
      round.fleet, task.blocks.modality, setting.fill == 'input'
    )
    high = jax.vmap(end)(run, access, own.start, round.budget)
    window = jax.vmap(inside)(own.low, high)
    moved = jax.tree.map(jnp.subtract, server.params, server.method_state)
    overall = tree.group_sq_norms(task.groups, moved, num)
    overall = jnp.where(round.round_index > 0, overall, 0.0)
    # They moved by the last round's rate.
    last = jnp.maximum(round.round_index - 1, 0)
    overall /= setting.client_rate(round.hparams, last)
    mixed = beta * own.importance + (1 - beta) * overall[None]
    among = access & window & round.active[:, None]
    keys = batches.client_keys(round.key, round.fleet)
    value = jax.vmap(elastic_fl.worth)(keys, mixed, among)
    trained = jax.lax.map(
      choose,
      (high, run, among, value, round.budget),
      batch_size=elastic_fl.TOGETHER,
    )
    works = trained.any(-1, keepdims=True)
    return Plan(
      run=run & works,
      trained=trained,
      counted=trained.astype(jnp.float32),
      client_args=high,
      cost=CostOverride(
        work=jax.tree.map(lambda v: v[high], levels),
        received=access & contained[high] & works,
      ),
    )

  def objective(received, device: Device):
    del received
    high = device.args
    if device.branch:
      return partial(jax.lax.switch, high, [device.loss(s) for s in subs])

    def criterion(scores, y, weight):
      return training.cross_entropy(scores[high], y, weight)

    return device.loss(exits.until(count, True), criterion)

  def server(state, mean: Mean, round: Round):
    high = round.plan.client_args
    among = block[None] == np.arange(count)[:, None]
    chosen = (round.plan.trained[:, None] & among[None]).any(-1)
    low = jnp.where(chosen.any(-1), jnp.argmax(chosen, -1), high + 1)
    over = high == count - 1
    new, own = base.server(
      state._replace(method_state=state.params), mean, round
    )

    def moved(old, new):
      return jnp.where(round.active, new, old).astype(jnp.int32)

    return new, ClientState(
      elastic_fl.measured(own.importance, mean, round),
      low=moved(own.low, jnp.where(over, 0, low)),
      start=moved(own.start, jnp.where(over, 0, high + 1)),
    )

  return base._replace(
    plan=plan,
    client=local_sgd(
      task,
      objective=objective,
      observe=partial(elastic_fl.importance, task),
    ),
    server=server,
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
    client_init=lambda params: ClientState(
      jnp.full(num, jnp.inf, jnp.float32), jnp.int32(0), jnp.int32(0)
    ),
  )
