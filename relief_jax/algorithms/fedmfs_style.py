"""FedMFS and MFedMC in the style of one fused model: modalities by merit.

Every device scores its modalities by

    g_shapley phi + g_size (1 - size) + g_recency (t - last) / (t + 1),

phi and size scaled to 0..1 over the device's own modalities, `last` the round
in which it last trained one (-1: never), and takes the best. Grade: the score
is published code (https://github.com/liangqiyuan/mmFedMC, a third for each
weight; https://arxiv.org/abs/2310.07048, https://arxiv.org/abs/2401.16685).
There every modality has a model of its own, a random forest on the device fuses
their answers, and phi is its summed absolute SHAP value. What is different here
is **ours**, hence the name:

- one fused model; a modality is all of its groups, and the shared ones train;
- phi is exact, of the game "the loss of the server's model with these sensors
  on", on one batch of the device's own windows; all subsets are tried;
- the best that fit: down the list what fits into b_n is trained, at most `top`.
  Only trained modalities are sent. No selection of clients by their loss.

*Budget*: F_n of what is chosen plus the measurement, spread over the round's
samples, within b_n. *Measurement*: a forward pass of a batch through the
branches, and the tail once per subset. It is left out where there is nothing to
choose (one sensor, or all fit), where it does not fit beside the shared groups,
and where phi has no weight; then phi counts 0. *Bytes*: groups that run come
down, trained ones go up; the device chooses, so that no score is sent.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs, tree
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import one_batch, shapley
from relief_jax.budgets.greedy import SLACK
from relief_jax.clients import training
from relief_jax.keys import LARGE, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan, Task
from relief_jax.types import Array, PyTree


def scaled(value: Array, owned: Array) -> Array:
  """Scales to 0..1 between the least and the most of those owned, [M]; else 0.

  Args:
    value: [M].
    owned: [M] bool.
  """
  low = jnp.where(owned, value, jnp.inf).min()
  high = jnp.where(owned, value, -jnp.inf).max()
  gap = jnp.where(high > low, high - low, 1.0)
  return jnp.where(owned, (value - low) / gap, 0.0)


def worth(
  task: Task, params: PyTree, frozen: PyTree, features, y: Array, run: Array
) -> Array:
  """Computes minus the loss with each subset of the sensors that run, [2^M].

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    features: {m: [B, d_m]} of all modalities.
    y: [B] int32 classes.
    run: [M] bool; the others change nothing.
  """

  def one(inside):
    own = {
      name: tree.masked(inside[i], features[name])
      for i, name in enumerate(task.modalities)
    }
    scores = task.fuse(params, frozen, own, inside)
    return -training.criterion(task)(scores, y, jnp.ones(y.shape))

  return jax.vmap(one)(shapley.coalitions(run.size) & run[None])


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of the choice of modalities."""

  shapley: float = option(real(1 / 3, 0, LARGE, 'weight of it in the score'))
  size: float = option(real(1 / 3, 0, LARGE, 'weight of it in the score'))
  recency: float = option(real(1 / 3, 0, LARGE, 'weight of it in the score'))
  top: int = option(whole(0, 0, 8, 'modalities trained at most; 0: what fits'))


@Facts(options=Options, skips=True, budgeted=True, classes=True)
def fedmfs_style(task: Task, setting: Setting) -> Method:
  """Builds a choice of modalities by Shapley value, size and recency.

  Without a deadline it takes all.

  Args:
    task: the model.
    setting: the round, with `Options`. A device keeps the round in which it
      last trained each modality, [M].

  Raises:
    InputError: more modalities than subsets can be tried of.
  """
  options = setting.options
  modality = np.asarray(task.blocks.modality)
  num = len(task.modalities)
  shapley.coalitions(num)
  shared = jnp.asarray(task.blocks.shared)
  # [M, G], the groups of each.
  parts = jnp.asarray(modality[None] == np.arange(num)[:, None])
  size = costs.total(parts, task.work.size)
  most = options.top or num
  weighs = options.shapley != 0

  def fits(cost, budget):
    return cost <= budget * (1 + SLACK)

  def measuring(round: Round) -> tuple[Array, Array]:
    """Finds the clients that measure, [K] bool, and its FLOPs a sample, [K].

    Per sample of the round.
    """
    run = round.fleet.owned
    everything = round.access
    whole = costs.step_flops(task.work, run, everything)
    nothing = jnp.broadcast_to(shared, everything.shape)
    least = costs.step_flops(task.work, run, nothing)
    count = run.sum(-1)
    subsets = jnp.exp2(count.astype(jnp.float32))
    work = costs.of_run(task.work, run)  # all of them, at most
    once = costs.total(run, work.fwd) + subsets * work.shared
    price = once * setting.batch / setting.samples(round.fleet)
    choice = ~fits(whole, round.budget) | (count > most)
    found = round.active & (count > 1) & choice
    found &= weighs & fits(least + price, round.budget)
    return found, jnp.where(found, price, 0.0)

  def values(server, round: Round) -> Array:
    """Measures phi of every participant, [K, M]."""

    def phi(seen: one_batch.Seen) -> Array:
      found = worth(
        task, seen.params, seen.frozen, seen.features, seen.y, seen.run
      )
      return shapley.values(found)

    measures, price = measuring(round)
    return one_batch.measure(
      task, setting, server.params, round, measures, price, phi
    )

  def choose(run, owned, budget, price, score):
    """Chooses one client's groups, [G] bool."""

    def cost(chosen):
      return costs.step_flops(task.work, run, chosen) + price

    order = jnp.argsort(jnp.where(owned, -score, jnp.inf), stable=True)
    chosen, count = shared, jnp.int32(0)
    for m in order:
      more = chosen | parts[m]
      take = owned[m] & fits(cost(more), budget) & (count < most)
      chosen, count = jnp.where(take, more, chosen), count + take
    return chosen & fits(cost(shared), budget)

  def plan(server, round: Round) -> Plan:
    owned = round.fleet.owned
    now = round.round_index.astype(jnp.float32)
    recency = (now - round.clients) / (now + 1)
    phi = values(server, round) if weighs else jnp.zeros(owned.shape)
    score = (
      options.shapley * jax.vmap(scaled)(phi, owned)
      + options.size * (1 - jax.vmap(scaled, (None, 0))(size, owned))
      + options.recency * recency
    )
    _, price = measuring(round)
    run = owned & round.active[:, None]
    trained = jax.vmap(choose)(run, owned, round.budget, price, score)
    trained &= round.active[:, None]
    run &= trained.any(-1, keepdims=True)
    flops = price * setting.samples(round.fleet)
    return Plan(
      run, trained, trained.astype(jnp.float32), cost=CostOverride(flops=flops)
    )

  base = fedavg.fedavg(task, setting)

  def server(state, mean, round: Round):
    used = (round.plan.trained[:, None] & parts[None]).any(-1)
    state, last = base.server(state, mean, round)
    return state, jnp.where(used, round.round_index, last)

  return base._replace(
    plan=plan,
    server=server,
    client_init=lambda params: jnp.full(num, -1, jnp.int32),
  )
