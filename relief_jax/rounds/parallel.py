"""The parallel-then-average round, built once for every such algorithm.

    plan -> send -> train -> compress -> masked mean -> server optimiser ->
    remember

An algorithm is a `Recipe`: how it differs from FedAvg. Updates are summed as
they are made and never stacked over clients, except for robust means.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import blocks, costs, tree
from relief_jax.aggregation import mean, robust
from relief_jax.clients import device, training
from relief_jax.engine import ambient, buckets
from relief_jax.online import scene
from relief_jax.rounds import (
  accounting,
  cohort,
  similarity,
  stragglers,
  wrappers,
)
from relief_jax.rounds.method import Context, Recipe
from relief_jax.settings import Setting
from relief_jax.types import (
  Algorithm,
  Array,
  Fleet,
  PyTree,
  SubModels,
  Task,
)
from relief_jax.updates import link as link_lib


class RoundState(NamedTuple):
  """Carried between rounds.

  Attributes:
    params: P, the global model.
    opt_state: of the server.
    memory: of the recipe.
    local: [N, ...] optimiser states kept on the devices, or ().
    round: [] int32.
    links: memories of the links.
  """

  params: PyTree
  opt_state: PyTree
  memory: PyTree
  local: PyTree
  round: Array
  links: link_lib.LinkState = link_lib.LinkState()


def weights(setting: Setting, fleet: Fleet, active: Array) -> Array:
  """Weight of each client in the mean, [K] float32; 0 for the inactive."""
  base = (
    fleet.samples.astype(jnp.float32)
    if setting.weight == 'samples'
    else jnp.ones(fleet.samples.shape)
  )
  return jnp.where(active, base, 0.0)


def deadline(setting: Setting, number: Array) -> Array:
  """The deadline of a round, []; linear in the round with a schedule."""
  start = setting.hparams['deadline']
  if not setting.schedule:
    return start
  last = jnp.maximum(setting.hparams['rounds'] - 1, 1)
  done = number.astype(jnp.float32) / last
  return start + (setting.hparams['deadline_end'] - start) * done


def make_context(
  key: Array,
  task: Task,
  setting: Setting,
  fleet: Fleet,
  index,
  number,
  params: PyTree = (),
) -> Context:
  """What the plan of this round may look at."""
  access = blocks.owned_groups(fleet.owned, task.group_modality)
  budget = fleet.budget * deadline(setting, number)
  return Context(
    key=key,
    round=number,
    place=index,
    fleet=fleet,
    access=access,
    active=fleet.samples > 0,
    budget=budget,
    params=params,
  )


def last_context(
  task: Task, setting: Setting, fleet: Fleet, done: Array
) -> Context:
  """Gives what the plan of the last round saw, of a whole static fleet.

  Args:
    task: the model.
    setting: the round.
    fleet: [N].
    done: [] int32, rounds; before the first one it is the first one's.
  """
  return make_context(
    ambient.key(0),  # of plans that draw; sizes of sub-models do not
    task,
    setting,
    fleet,
    jnp.arange(fleet.id.size),
    jnp.maximum(done - 1, 0),
  )


def federated(task: Task, setting: Setting, recipe: Recipe) -> Algorithm:
  """Builds the algorithm that a recipe describes.

  Args:
    task: the model.
    setting: the round.
    recipe: the differences from FedAvg.

  Returns:
    An Algorithm whose state is a RoundState.
  """
  robust.check(task, setting, recipe)
  num, against = len(task.group_names), setting.guard
  server_tx = setting.server_tx()
  links = link_lib.make(setting, recipe)
  client = wrappers.participant(task, setting, recipe, links)

  def init(key, params):
    del key
    # Only where devices keep something.
    local, num_clients = (), setting.options.get('clients', 0)
    if setting.keep_client_state:
      mask = tree.spread(task.groups, jnp.ones(num))
      one = training.gated_optimizer(
        wrappers.local_tx(setting, recipe), mask
      ).init(params)
      local = jax.tree.map(
        lambda v: jnp.broadcast_to(v, (num_clients,) + v.shape), one
      )
    return RoundState(
      params=params,
      opt_state=server_tx.init(params),
      memory=recipe.memory(),
      local=local,
      round=jnp.int32(0),
      links=link_lib.init(links, task, params, num_clients),
    )

  def step(key, state, population):
    cohort_key, plan_key, step_key, link_key = jax.random.split(key, 4)
    index = cohort.draw(cohort_key, population.fleet, setting.cohort)
    fleet, own = scene.take(population, index, state.round)
    context = make_context(
      plan_key, task, setting, fleet, index, state.round, state.params
    )
    if recipe.probe:
      seen = recipe.probe(context, population, own)
      context = context._replace(seen=seen)
    plan = recipe.plan(state.memory, context)
    start, link_state, download = link_lib.broadcast(
      links,
      task,
      link_key,
      state.params,
      state.links,
      index,
      plan,
      accounting.received(task, fleet, plan),
    )
    upload = link_lib.message_bytes(
      links.up, task, state.params, plan, plan.trained, link_lib.UP
    )
    info, end = accounting.account(
      task, setting, plan, context, upload, download
    )
    if end is not None:
      plan = stragglers.arrived(plan, end.late)
    weight = plan.counted * weights(setting, fleet, context.active)[:, None]
    row = device.Row(
      fleet=fleet,
      own=own,
      run=plan.run,
      trained=plan.trained,
      weight=weight,
      active=context.active & plan.trained.any(-1),
      local=jax.tree.map(lambda v: v[index], state.local),
      piece=plan.piece,
      residual=jax.tree.map(lambda v: v[index], link_state.residual),
      faulty=setting.hparams['faulty'][index] if against.faults.kind else (),
      steps=end.steps if setting.late == 'partial' else None,
    )
    shared = wrappers.Shared(
      params=start,
      sent=recipe.send(state.memory) if recipe.send else (),
      population=cohort.shared(population),
      number=state.round,
      step_key=step_key,
      link_key=link_key,
      part_key=plan_key if wrappers.unlike(recipe) else None,
    )
    sums, record = buckets.map_reduce(
      lambda present: partial(client, present),
      shared,
      row,
      setting.layout,
      setting.buckets,
      costs.plan_flops(task.work, plan),
    )
    if recipe.weigh:
      weight *= record.found
    heard, dropped = plan, None
    if against.drop:
      dropped = row.active & ~record.sound
      weight = jnp.where(dropped[:, None], 0.0, weight)
      heard = plan._replace(trained=plan.trained & ~dropped[:, None])
    if against.robust:
      merge = robust.merge(task, against, weight, plan.trained, *record.arrived)
    else:
      merge = mean.merge_sums(
        task, weight, plan.trained, sums[:3], sums.held, recipe.dilute
      )
    merge = merge._replace(seen=record.seen, told=sums.told, own=record.own)
    params, opt_state = server_update(
      server_tx, state, recipe.adjust(merge), merge.touched
    )
    if recipe.settle:
      params = tree.select(merge.touched, recipe.settle(params), params)
    memory = recipe.remember(state.memory, merge, heard, context)

    def put(every, own):
      return jax.tree.map(lambda a, v: a.at[index].set(v), every, own)

    link_state = link_state._replace(
      residual=put(link_state.residual, record.residual)
    )
    divergence = (
      recipe.report(memory)
      if recipe.report
      else jnp.where(
        merge.trainers >= 2, merge.spread / task.work.size, jnp.nan
      )
    )
    info = info._replace(
      loss=record.loss,
      trained=plan.trained,
      divergence=divergence,
      found=record.found if recipe.weigh else None,
      dropped=dropped,
      cosines=similarity.pairwise(record.blocks) if setting.cosines else None,
    )
    if wrappers.streaming(fleet):
      info = accounting.tested(info, fleet, record.right)
    return RoundState(
      params=params,
      opt_state=opt_state,
      memory=memory,
      local=put(state.local, record.local),
      round=state.round + 1,
      links=link_state,
    ), info

  def held(params, done, fleet):
    del done
    seen = recipe.view(params)
    return SubModels(jnp.ones(fleet.id.shape, jnp.int32), ((task, seen),))

  return Algorithm(
    init,
    step,
    params=lambda state: state.params,
    held=held if recipe.view else None,
  )


def server_update(tx, state: RoundState, delta: PyTree, touched: PyTree):
  """Applies the mean update; what nobody touched keeps their bits.

  Args:
    tx: the server's optimiser.
    state: before the round.
    delta: P, mean update.
    touched: prefix tree of P, bool, what somebody trained.

  Returns:
    Params and optimiser state.
  """
  updates, opt_state = tx.update(
    jax.tree.map(jnp.negative, delta), state.opt_state, state.params
  )
  params = tree.select(
    touched,
    optax.apply_updates(state.params, updates),
    state.params,
  )
  return params, opt_state
