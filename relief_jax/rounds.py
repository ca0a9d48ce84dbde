"""The parallel-then-average round, built once for every such algorithm.

    plan -> send -> train -> compress -> masked mean -> server optimiser ->
    remember

An algorithm is a `Recipe`: how it differs from FedAvg. Updates are summed as
they are made and never stacked over clients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import cohort, costs, placement, training, tree
from relief_jax import links as links_lib
from relief_jax.recipe import Context, Merge, Recipe, Setting
from relief_jax.types import (
  Algorithm,
  Array,
  Batch,
  Fleet,
  Gate,
  Plan,
  Population,
  PyTree,
  RoundInfo,
  Steps,
  Task,
)


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
  links: links_lib.LinkState = links_lib.LinkState()


class _Row(NamedTuple):
  """One client's row of the client map; zeros stand for nobody.

  Its local steps are drawn inside the map: numbers for every batch of every
  client at once would be the largest thing in a round of many clients.
  """

  fleet: Fleet  # of one client
  own: Array  # [W] int32, its windows in the bank
  run: Array  # [M] bool
  trained: Array  # [G] bool
  weight: Array  # [G] float32
  active: Array  # [] bool
  local: PyTree
  residual: PyTree  # P or ()


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
  key: Array, task: Task, setting: Setting, fleet: Fleet, index, number
) -> Context:
  """What the plan of this round may look at."""
  access = cohort.owned_groups(fleet.owned, task.group_modality)
  budget = fleet.budget * deadline(setting, number)
  return Context(
    key=key,
    round=number,
    place=index,
    fleet=fleet,
    access=access,
    active=fleet.samples > 0,
    budget=budget,
  )


def draw_steps(
  key: Array, setting: Setting, fleet: Fleet, own: Array, run: Array
) -> Steps:
  """Local steps of one client, [T, ...].

  Args:
    key: of the round and this purpose; the client's own follows from its id.
    setting: of the round.
    fleet: of one client, [] and [M].
    own: [W] its windows.
    run: [M] bool, branches in the forward pass.
  """
  row_key, drop_key = (
    jax.random.fold_in(k, fleet.id) for k in jax.random.split(key)
  )
  if setting.epochs:
    row, weight = cohort.draw_epochs(
      row_key, own, fleet.samples, setting.epochs, setting.batch
    )
  else:
    row, weight = cohort.draw_steps(
      row_key, own, fleet.samples, setting.steps, setting.batch
    )
  count = row.shape[0]
  if setting.dropout:
    kept = training.modality_dropout(
      drop_key, fleet.owned, setting.hparams['dropout'], count
    )
  else:
    kept = _repeat(fleet.owned, count)
  run = _repeat(run, count)
  shift = jax.tree.map(lambda v: _repeat(v, count), fleet.shift)
  if setting.fill == 'input':
    return Steps(row, weight, run, kept, shift)
  return Steps(row, weight, run & kept, None, shift)


def _repeat(value: Array, count: int) -> Array:
  """The same in all steps, [count, ...]."""
  return jnp.broadcast_to(value[None], (count, *value.shape))


def client_loss(
  task: Task, population: Population, trained: Array, branch: bool = True
):
  """The local objective of one client: (params, step) -> [].

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: of `training.logits`; `Layout.branch` where clients are mapped.
  """

  def loss(params, step):
    gate = Gate(step.run, step.sensed, trained)
    batch = Batch(population.bank, step.row, step.weight, step.shift)
    scores = training.logits(
      task, params, population.frozen, batch, gate, branch
    )
    return training.cross_entropy(
      scores, population.bank.y[step.row], step.weight
    )

  return loss


def merge_sums(task: Task, weight: Array, trained: Array, sums) -> Merge:
  """Means and divergences from sums: E|D|^2 - |ED|^2, never negative.

  Devices that count without training contribute zeros to `total`, so the
  trainers' own mean is the same total over their own weight.

  Args:
    task: the model.
    weight: [K, G] weights in the mean.
    trained: [K, G] bool.
    sums: total weighted update P, weighted squared norms [G], extra.
  """
  total, sq, extra = sums
  num = len(task.group_names)
  moved = weight * trained
  counted, trainers = weight.sum(0), moved.sum(0)
  total_sq = tree.group_sq_norms(task.groups, total, num)
  mean_sq = tree.divide(total_sq, jnp.square(trainers))
  return Merge(
    mean=tree.divide(total, tree.spread(task.groups, counted)),
    weight=trainers,
    trainers=(moved > 0).sum(0).astype(jnp.float32),
    spread=jnp.maximum(tree.divide(sq, trainers) - mean_sq, 0.0),
    mean_sq=mean_sq,
    extra=extra,
    active=(weight.max(-1) > 0).sum().astype(jnp.float32),
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
  num = len(task.group_names)
  client_tx, server_tx = setting.client_tx(), setting.server_tx()
  links, branch = links_lib.make(setting, recipe), setting.layout.branch

  def client(shared, row):
    params, population, step_key, link_key = shared
    objective = client_loss(task, population, row.trained, branch)
    mask = tree.spread(task.groups, row.trained)

    def loss(p, step):
      value = objective(p, step)
      return value + recipe.penalty(p, params) if recipe.penalty else value

    def train(row):
      delta, value, local = training.local_update(
        loss,
        client_tx,
        params,
        mask,
        draw_steps(step_key, setting, row.fleet, row.own, row.run),
        row.local or None,
        ragged=setting.epochs > 0,
        branch=branch,
      )
      delta, residual = links_lib.upload(
        links,
        task,
        link_key,
        row.fleet.id,
        delta,
        row.residual,
        row.trained,
      )
      sums = (
        tree.scale(tree.spread(task.groups, row.weight), delta),
        tree.scale(row.weight, tree.group_sq_norms(task.groups, delta, num)),
        recipe.measure(row.weight, delta),
      )
      local = local if setting.keep_client_state else ()
      return sums, (value, local, residual)

    def sit_out(row):
      sums, record = tree.zeros_like_output(train, row)
      return sums, (record[0], row.local, row.residual)

    # Padding and devices that train nothing do no work at all.
    return tree.choose(row.active, train, sit_out, row, branch=branch)

  def init(key, params):
    del key
    local, num_clients = (), setting.options['clients']
    if setting.keep_client_state:
      mask = tree.spread(task.groups, jnp.ones(num))
      one = training.gated_optimizer(client_tx, mask).init(params)
      local = jax.tree.map(
        lambda v: jnp.broadcast_to(v, (num_clients,) + v.shape), one
      )
    return RoundState(
      params=params,
      opt_state=server_tx.init(params),
      memory=recipe.memory(),
      local=local,
      round=jnp.int32(0),
      links=links_lib.init(links, task, params, num_clients),
    )

  def step(key, state, population):
    cohort_key, plan_key, step_key, link_key = jax.random.split(key, 4)
    index = cohort.draw(cohort_key, population.fleet, setting.cohort)
    fleet, own = cohort.take(population, index)
    context = make_context(plan_key, task, setting, fleet, index, state.round)
    plan = recipe.plan(state.memory, context)
    weight = plan.counted * weights(setting, fleet, context.active)[:, None]
    start, link_state, download = links_lib.broadcast(
      links,
      task,
      link_key,
      state.params,
      state.links,
      index,
      received(task, fleet, plan),
    )
    row = _Row(
      fleet=fleet,
      own=own,
      run=plan.run,
      trained=plan.trained,
      weight=weight,
      active=context.active & plan.trained.any(-1),
      local=jax.tree.map(lambda v: v[index], state.local),
      residual=jax.tree.map(lambda v: v[index], link_state.residual),
    )
    sums, (loss, local, residual) = placement.map_reduce(
      client,
      (start, cohort.shared(population), step_key, link_key),
      row,
      setting.layout,
      costs.step_flops(task.work, plan.run, plan.trained),
    )
    merge = merge_sums(task, weight, plan.trained, sums)
    params, opt_state = server_update(
      server_tx, task, state, recipe.adjust(merge), merge.weight > 0
    )
    memory = recipe.remember(state.memory, merge, plan, context)

    def put(every, own):
      return jax.tree.map(lambda a, v: a.at[index].set(v), every, own)

    link_state = link_state._replace(
      residual=put(link_state.residual, residual)
    )
    divergence = (
      recipe.report(memory)
      if recipe.report
      else jnp.where(
        merge.trainers >= 2, merge.spread / task.work.size, jnp.nan
      )
    )
    wire = links_lib.group_bytes(links.up, task, state.params)
    info = account(
      task, setting, plan, context, costs.total(plan.trained, wire), download
    )._replace(loss=loss, divergence=divergence)
    return RoundState(
      params=params,
      opt_state=opt_state,
      memory=memory,
      local=put(state.local, local),
      round=state.round + 1,
      links=link_state,
    ), info

  return Algorithm(init, step, params=lambda state: state.params)


def received(task: Task, fleet: Fleet, plan: Plan) -> Array:
  """Groups that a device is sent: those that it runs, [K, G] bool."""
  groups = cohort.owned_groups(plan.run, task.group_modality)
  return groups & costs.working(fleet, plan)[:, None]


def server_update(tx, task: Task, state: RoundState, delta, touched: Array):
  """Applies the mean update; untouched groups keep their bits.

  Args:
    tx: the server's optimiser.
    task: the model.
    state: before the round.
    delta: P, mean update.
    touched: [G] bool, groups somebody trained.

  Returns:
    Params and optimiser state.
  """
  updates, opt_state = tx.update(
    jax.tree.map(jnp.negative, delta), state.opt_state, state.params
  )
  params = tree.select(
    tree.spread(task.groups, touched),
    optax.apply_updates(state.params, updates),
    state.params,
  )
  return params, opt_state


def account(
  task: Task,
  setting: Setting,
  plan: Plan,
  context: Context,
  upload: Array,
  download: Array,
) -> RoundInfo:
  """What the round cost; loss and divergence are filled in by the caller.

  Args:
    task: the model.
    setting: the round.
    plan: of the round.
    context: of the plan.
    upload: [K] float32 bytes sent by each participant that works.
    download: [K] float32 bytes sent to it.
  """
  fleet = context.fleet
  if setting.epochs:
    samples = (setting.epochs * fleet.samples).astype(jnp.float32)
  else:
    samples = jnp.full(
      fleet.samples.shape, float(setting.steps * setting.batch)
    )
  cost = costs.round_costs(task.work, fleet, plan, samples, upload, download)
  joules = cost.joules
  if setting.idle_power:
    joules += costs.idle_joules(fleet, cost.seconds)
  return RoundInfo(
    client=fleet.id,
    loss=jnp.zeros(fleet.id.shape),
    trained=plan.trained,
    upload=cost.upload,
    download=cost.download,
    seconds=cost.seconds,
    joules=joules,
    divergence=jnp.zeros(len(task.group_names)),
  )
