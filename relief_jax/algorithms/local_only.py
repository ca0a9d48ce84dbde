"""Everybody for himself: no server, no traffic (a lower bound, **ours**).

Every device keeps a model of its own, which is inherently [N, *P].
"""

from functools import partial

import jax
import jax.numpy as jnp

from relief_jax import (
  buckets,
  cohort,
  guard,
  links,
  local_training,
  rounds,
  training,
  tree,
)
from relief_jax.algorithms import fedavg
from relief_jax.recipe import Setting
from relief_jax.types import Algorithm, Task


def local_only(task: Task, setting: Setting) -> Algorithm:
  """Local training without a federation; state is (params [N, *P], round).

  A device trains the groups of its own modalities; nothing is sent.

  Raises:
    InputError: a codec or a guard is set, and there is no link that would use
      it.
  """
  links.refuse(setting, 'local_only')
  guard.refuse(setting.guard, 'local_only')
  num = len(task.group_names)
  clients = setting.options['clients']
  client_tx, branch = setting.client_tx(), setting.layout.branch
  alone = setting._replace(fill='skip')

  def client(present, shared, row):
    population, step_key = shared
    params, fleet, own, run, trained, active = row
    loss = local_training.client_loss(
      task, population, trained, branch, present
    )
    mask = tree.spread(task.groups, trained)

    def train(params):
      delta, value, _ = training.local_update(
        loss,
        client_tx,
        params,
        mask,
        local_training.draw_steps(step_key, alone, fleet, own, run),
        ragged=setting.epochs > 0,
        branch=branch,
      )
      return jax.tree.map(jnp.add, params, delta), value

    record = tree.choose(
      active,
      train,
      lambda params: (params, jnp.float32(0.0)),
      params,
      branch=branch,
    )
    return (), record

  def init(key, params):
    del key
    every = jax.tree.map(
      lambda v: jnp.broadcast_to(v, (clients,) + v.shape), params
    )
    return every, jnp.int32(0)

  def step(key, state, population):
    params, number = state
    cohort_key, plan_key, step_key, _ = jax.random.split(key, 4)
    index = cohort.draw(cohort_key, population.fleet, setting.cohort)
    fleet, own = cohort.take(population, index)
    context = rounds.make_context(plan_key, task, alone, fleet, index, number)
    plan = fedavg.plan(alone, context)
    mine = jax.tree.map(lambda v: v[index], params)
    _, (new, loss) = buckets.map_reduce(
      lambda present: partial(client, present),
      (cohort.shared(population), step_key),
      (mine, fleet, own, plan.run, plan.trained, context.active),
      setting.layout,
      setting.buckets,
    )
    params = jax.tree.map(lambda a, v: a.at[index].set(v), params, new)
    silence = jnp.zeros(index.shape)  # nothing is sent in either direction
    info = rounds.account(task, setting, plan, context, silence, silence)
    info = info._replace(loss=loss, divergence=jnp.full(num, jnp.nan))
    return (params, number + 1), info

  return Algorithm(init, step, params=lambda state: state[0], personal=True)
