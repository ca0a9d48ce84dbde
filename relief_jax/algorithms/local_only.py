"""Everybody for himself: no server, no traffic (a lower bound, **ours**).

Every device keeps a model of its own, which is inherently [N, *P].
"""

from functools import partial

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.algorithms import fedavg
from relief_jax.clients import device, training
from relief_jax.engine import buckets
from relief_jax.online import scene
from relief_jax.rounds import (
  accounting,
  cohort,
  parallel,
  stragglers,
  wrappers,
)
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Task
from relief_jax.updates import faults, link


def local_only(task: Task, setting: Setting) -> Algorithm:
  """Local training without a federation; state is (params [N, *P], round).

  A device trains the groups of its own modalities; nothing is sent.

  Raises:
    InputError: a codec or a guard is set, and there is no link that would use
      it; or a limit to the server's patience.
  """
  link.refuse(setting, 'local_only')
  faults.refuse(setting.guard, 'local_only')
  stragglers.refuse(setting, 'local_only')
  num = len(task.group_names)
  clients = setting.options['clients']
  branch = setting.layout.branch
  alone = setting._replace(fill='skip')

  def client(present, shared, row):
    population, number, step_key = shared
    params, row = row
    loss = device.client_loss(task, population, row.trained, branch, present)
    mask = tree.spread(task.groups, row.trained)

    def train(params):
      delta, value, _ = training.local_update(
        loss,
        setting.client_tx(number),
        params,
        mask,
        device.draw_steps(step_key, alone, row.fleet, row.own, row.run),
        ragged=setting.epochs > 0,
        branch=branch,
      )
      return jax.tree.map(jnp.add, params, delta), value

    record = tree.choose(
      row.active,
      train,
      lambda params: (params, jnp.float32(0.0)),
      params,
      branch=branch,
    )
    right = ()
    if wrappers.streaming(row.fleet):
      right = device.right(task, alone, population, row, params, present)
    return (), (*record, right)

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
    fleet, own = scene.take(population, index, number)
    context = parallel.make_context(plan_key, task, alone, fleet, index, number)
    plan = fedavg.plan(alone, context)
    mine = jax.tree.map(lambda v: v[index], params)
    row = device.Row(fleet, own, plan.run, plan.trained, active=context.active)
    _, (new, loss, right) = buckets.map_reduce(
      lambda present: partial(client, present),
      (cohort.shared(population), number, step_key),
      (mine, row),
      setting.layout,
      setting.buckets,
    )
    params = jax.tree.map(lambda a, v: a.at[index].set(v), params, new)
    silence = jnp.zeros(index.shape)  # nothing is sent in either direction
    info, _ = accounting.account(task, setting, plan, context, silence, silence)
    info = info._replace(loss=loss, divergence=jnp.full(num, jnp.nan))
    if wrappers.streaming(fleet):
      info = accounting.tested(info, fleet, right)
    return (params, number + 1), info

  return Algorithm(init, step, params=lambda state: state[0], personal=True)
