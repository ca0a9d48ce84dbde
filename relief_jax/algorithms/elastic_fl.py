"""ElasticTrainer in federated learning, as FedEL takes it for a baseline.

Every device trains the tensors that promise to lower its loss most, as many as
its budget affords; what it freezes below the deepest of them costs no gradient
at all. Grade: published (https://arxiv.org/abs/2509.16902 and, for the device
alone, https://github.com/pittisl/ElasticTrainer).

*Importance.* I_k = -<dL/dw_k, dw_k>, the fall of the loss that step dw_k of
tensor k brings to first order, summed over a device's local steps. Departures:
the published code takes the gradient after the step, by two full passes on one
batch in which everything trains, and does not count them. Here a device
measures what it trains while it trains it, so the budget holds and nothing is
paid twice; what it did not train keeps the importance of the last time, and
what it never trained comes first, in an order of its own.

*Tensors* are the model's groups: `config.model.groups='layer'` gives one per
layer and encoder (bias included), and one for fusion bias and head. *Budget*:
the choice of `elastic.most_valuable` under b_n (ours for parallel encoders);
who cannot even train the cheapest group sits out. Room that is left is filled,
also with what seems worthless. *Bytes*: the groups that run come down, the
chosen ones go up; the mean of a group is over those who trained it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs, tree
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms import fedavg
from relief_jax.budgets import elastic
from relief_jax.budgets.greedy import SLACK
from relief_jax.clients import batches
from relief_jax.clients.work import local_sgd
from relief_jax.errors import InputError
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet, PyTree

# Devices whose choice is made at once: what they need is CELLS G numbers each.
TOGETHER = 256


def importance(task: Task, grads: PyTree, updates: PyTree) -> Array:
  """Computes -<dL/dw, dw> of every group in one step, [G]; sums add up.

  Over steps.

  Args:
    task: the model.
    grads: P, of the local loss.
    updates: P, the optimiser's step.
  """
  falls = jax.tree.map(lambda g, u: -(g * u).sum(), grads, updates)
  return tree.group_sum(task.groups, falls, task.num_blocks)


def worth(key: Array, known: Array, access: Array) -> Array:
  """Computes one device's values for `elastic.most_valuable`, [G] float32.

  Unknown groups count more than all known ones together, and are told apart
  by a draw: devices of one kind then do not all begin with the same group.

  Args:
    key: of the round and the device.
    known: [G] importance, +inf where never measured.
    access: [G] bool, groups in reach.
  """
  unknown = jnp.isinf(known)
  fall = jnp.where(access & ~unknown, jnp.maximum(known, 0.0), 0.0)
  share = fall / jnp.maximum(fall.sum(), 1e-30)
  draw = jax.random.uniform(key, known.shape) / known.size
  return jnp.where(unknown, 2.0 + draw, share)


def measured(known: Array, mean: Mean, round: Round) -> Array:
  """Updates the importance after a round, [K, G]; where trained it is new."""
  return jnp.where(round.plan.trained, mean.rows, known)


@Facts(budgeted=True)
def elastic_fl(task: Task, setting: Setting) -> Method:
  """Builds ElasticTrainer on every device; without a deadline it is FedAvg.

  Args:
    task: the model.
    setting: the round. A device keeps the importance of every block to it,
      [G] float32.

  Its `check` refuses a fleet in which nobody affords some group even alone.
  """
  num = task.num_blocks
  model = elastic.chains(task.work, task.blocks.modality)
  everywhere = setting.fill == 'input'

  base = fedavg.fedavg(task, setting)

  def plan(server, round: Round) -> Plan:
    del server
    run, access = blocks.reach(round.fleet, task.blocks.modality, everywhere)
    keys = batches.client_keys(round.key, round.fleet)
    value = jax.vmap(worth)(keys, round.clients, access)
    trained = jax.lax.map(
      lambda row: elastic.most_valuable(model, task.work, *row),
      (run, access & round.active[:, None], value, round.budget),
      batch_size=TOGETHER,
    )
    run &= trained.any(-1, keepdims=True)
    return Plan(run, trained, trained.astype(jnp.float32))

  def check(fleet: Fleet, deadline: float) -> None:
    run, access = blocks.reach(fleet, task.blocks.modality, everywhere)
    access &= (fleet.samples > 0)[:, None]
    single = jnp.eye(num, dtype=bool)[:, None]
    alone = jax.lax.map(
      lambda one: costs.step_flops(task.work, run, one), single
    )
    able = alone.T <= (fleet.budget * deadline * (1 + SLACK))[:, None]
    left = np.asarray(access.any(0) & ~(access & able).any(0))
    if left.any():
      names = [task.blocks.name[g] for g in np.flatnonzero(left)]
      raise InputError(
        f'no device that can afford to train {", ".join(names)}',
        'one for every group: else some stay as they were initialised',
        'raise --config.deadline',
      )

  def server(state, mean: Mean, round: Round):
    state, known = base.server(state, mean, round)
    return state, measured(known, mean, round)

  return base._replace(
    plan=plan,
    client=local_sgd(task, observe=partial(importance, task)),
    server=server,
    client_init=lambda params: jnp.full(num, jnp.inf, jnp.float32),
    check=check,
  )
