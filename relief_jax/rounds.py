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

from relief_jax import (
  buckets,
  cohort,
  cosines,
  costs,
  guard,
  local_training,
  patience,
  robust,
  training,
  tree,
)
from relief_jax import links as links_lib
from relief_jax.online import scene
from relief_jax.recipe import Context, Merge, Recipe, Setting
from relief_jax.types import (
  Algorithm,
  Array,
  Fleet,
  Online,
  Plan,
  PyTree,
  RoundInfo,
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
    params=params,
  )


def merge_sums(
  task: Task,
  weight: Array,
  trained: Array,
  sums,
  held: PyTree | None = None,
  dilute: bool = False,
) -> Merge:
  """Means and divergences from sums: E|D|^2 - |ED|^2, never negative.

  Devices that count without training contribute zeros to `total`, so the
  trainers' own mean is the same total over their own weight.

  A difference of sums in float32 loses what the mean has in common. With
  10^5 clients, one added at a time, the spread is off by less than 5e-5 (1 + R)
  of itself, R = mean_sq / spread (numerics_test.py measures 1e-5 (1 + R); in
  blocks it is a hundredth of that). Updates of unlike devices have R of about
  1; beyond 10^3 read the spread as a bound only.

  Args:
    task: the model.
    weight: [K, G] weights in the mean.
    trained: [K, G] bool.
    sums: total weighted update P, weighted squared norms [G], extra.
    held: P, summed weights of those who hold an element, where groups are not
      held whole; the mean is then over them.
    dilute: the mean is over all that count even so.
  """
  total, sq, extra = sums
  num = len(task.group_names)
  moved = weight * trained
  counted, trainers = weight.sum(0), moved.sum(0)
  total_sq = tree.group_sq_norms(task.groups, total, num)
  mean_sq = tree.divide(total_sq, jnp.square(trainers))
  everybody = held is None or dilute
  over = tree.spread(task.groups, counted) if everybody else held
  touched = (
    tree.spread(task.groups, trainers > 0)
    if held is None
    else jax.tree.map(lambda v: v > 0, held)
  )
  return Merge(
    mean=tree.divide(total, over),
    touched=touched,
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
  robust.check(task, setting, recipe)
  num, against = len(task.group_names), setting.guard
  server_tx = setting.server_tx()
  links, branch = links_lib.make(setting, recipe), setting.layout.branch
  unlike = recipe.part or recipe.objective or recipe.weigh or recipe.tell

  def local_tx(number):
    tx = setting.client_tx(number)
    return training.observing(tx, recipe.observe) if recipe.observe else tx

  def client(present, shared, row):
    params, sent, population, number, step_key, link_key, part_key = shared

    def train(row):
      mask, view = tree.spread(task.groups, row.trained), recipe.view
      if unlike:
        learner = local_training.learner(
          task, setting, population, part_key, row, sent, present
        )
      if recipe.part:
        held, view = recipe.part(params, learner.client)
        mask = tree.both(mask, held)
      steps = local_training.draw_steps(
        step_key, setting, row.fleet, row.own, row.run
      )
      if row.steps is not None:
        steps = local_training.cut(steps, row.steps)
      told = recipe.tell(params, learner) if recipe.tell else ((), ())
      if recipe.objective:
        objective = recipe.objective(learner)
        steps = local_training.with_keys(learner.client.key, steps)
      else:
        objective = local_training.client_loss(
          task, population, row.trained, branch, present
        )

      def loss(p, step):
        value = objective(view(p) if view else p, step)
        return value + recipe.penalty(p, params) if recipe.penalty else value

      delta, value, local = training.local_update(
        loss,
        local_tx(number),
        params,
        mask,
        steps,
        row.local or None,
        ragged=setting.epochs > 0 or row.steps is not None,
        branch=branch,
      )
      weight, found = row.weight, ()
      if recipe.weigh or recipe.finish:
        after = jax.tree.map(jnp.add, params, delta)
      if recipe.weigh:
        found = recipe.weigh(after, learner)
        weight *= found
      if recipe.finish:
        final = tree.select(mask, recipe.finish(after), params)
        delta = jax.tree.map(jnp.subtract, final, params)
      if against.faults.kind:
        delta = guard.tamper(
          against.faults, link_key, row.fleet.id, row.faulty, mask, delta
        )
      sound = guard.finite(value, weight, delta) if against.drop else ()
      if against.clip:
        delta = guard.clip(delta, setting.hparams['clip_norm'])
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
        tree.scale(tree.spread(task.groups, weight), delta),
        tree.scale(weight, tree.group_sq_norms(task.groups, delta, num)),
        recipe.measure(row.weight, delta),
        told[0],
      )
      if recipe.part:
        holds = jax.tree.map(lambda m: m.astype(jnp.float32), mask)
        sums += (tree.scale(tree.spread(task.groups, weight), holds),)
      arrived = ()
      if against.robust:
        arrived, sums = (delta, mask if recipe.part else None), 4 * ((),)
      seen = ()
      if recipe.observe:
        seen, local = training.observed(local)
      local = local if setting.keep_client_state else ()
      blocks = cosines.kept(task, delta) if setting.cosines else ()
      record = value, local, residual, seen, found, told[1], arrived, blocks
      return sums, (*record, sound)

    def sit_out(row):
      sums, record = tree.zeros_like_output(train, row)
      return sums, (record[0], row.local, row.residual, *record[3:])

    def checked(row):
      sums, record = train(row)
      kept = partial(jnp.where, record[-1])
      return jax.tree.map(kept, (sums, record), sit_out(row))

    # Padding and devices that train nothing do no work at all.
    sums, record = tree.choose(
      row.active,
      checked if against.drop else train,
      sit_out,
      row,
      branch=branch,
    )
    right = ()
    if streaming(row.fleet):
      seen = recipe.view(params) if recipe.view else params
      right = local_training.right(
        task, setting, population, row, seen, present
      )
    return sums, (*record, right)

  def init(key, params):
    del key
    # Only where devices keep something.
    local, num_clients = (), setting.options.get('clients', 0)
    if setting.keep_client_state:
      mask = tree.spread(task.groups, jnp.ones(num))
      one = training.gated_optimizer(local_tx(0), mask).init(params)
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
    fleet, own = scene.take(population, index, state.round)
    context = make_context(
      plan_key, task, setting, fleet, index, state.round, state.params
    )
    if recipe.probe:
      seen = recipe.probe(context, population, own)
      context = context._replace(seen=seen)
    plan = recipe.plan(state.memory, context)
    start, link_state, download = links_lib.broadcast(
      links,
      task,
      link_key,
      state.params,
      state.links,
      index,
      plan,
      received(task, fleet, plan),
    )
    upload = links_lib.message_bytes(
      links.up, task, state.params, plan, plan.trained, links_lib.UP
    )
    info, end = account(task, setting, plan, context, upload, download)
    if end is not None:
      plan = patience.arrived(plan, end.late)
    weight = plan.counted * weights(setting, fleet, context.active)[:, None]
    row = local_training.Row(
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
    part_key = plan_key if unlike else None
    sent = recipe.send(state.memory) if recipe.send else ()
    sums, record = buckets.map_reduce(
      lambda present: partial(client, present),
      (
        start,
        sent,
        cohort.shared(population),
        state.round,
        step_key,
        link_key,
        part_key,
      ),
      row,
      setting.layout,
      setting.buckets,
      costs.plan_flops(task.work, plan),
    )
    loss, local, residual, seen, found, own, arrived, blocks, sound, right = (
      record
    )
    if recipe.weigh:
      weight *= found
    heard, dropped = plan, None
    if against.drop:
      dropped = row.active & ~sound
      weight = jnp.where(dropped[:, None], 0.0, weight)
      heard = plan._replace(trained=plan.trained & ~dropped[:, None])
    if against.robust:
      merge = robust.merge(task, against, weight, plan.trained, *arrived)
    else:
      merge = merge_sums(
        task, weight, plan.trained, sums[:3], *sums[4:], dilute=recipe.dilute
      )
    merge = merge._replace(seen=seen, told=sums[3], own=own)
    params, opt_state = server_update(
      server_tx, state, recipe.adjust(merge), merge.touched
    )
    if recipe.settle:
      params = tree.select(merge.touched, recipe.settle(params), params)
    memory = recipe.remember(state.memory, merge, heard, context)

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
    info = info._replace(
      loss=loss,
      trained=plan.trained,
      divergence=divergence,
      found=found if recipe.weigh else None,
      dropped=dropped,
      cosines=cosines.pairwise(blocks) if setting.cosines else None,
    )
    if streaming(fleet):
      info = tested(info, fleet, right)
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
  if plan.charge.received is not None:
    return plan.charge.received
  groups = cohort.owned_groups(plan.run, task.group_modality)
  return groups & costs.working(fleet, plan)[:, None]


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


def streaming(fleet: Fleet) -> bool:
  """Windows arrive round by round."""
  return fleet.scene is not None and fleet.scene.fresh is not None


def tested(info: RoundInfo, fleet: Fleet, right: Array) -> RoundInfo:
  """The record of a round with its test of what has just arrived.

  Args:
    info: of the round.
    fleet: [K] participants.
    right: [K] int32 windows that the model told.
  """
  assert info.online is not None  # there is a scene
  online = info.online._replace(tested=fleet.scene.arrived, right=right)
  return info._replace(online=online)


def account(
  task: Task,
  setting: Setting,
  plan: Plan,
  context: Context,
  upload: Array,
  download: Array,
) -> tuple[RoundInfo, patience.Patience | None]:
  """What the round cost; loss and divergence are filled in by the caller.

  Args:
    task: the model.
    setting: the round.
    plan: of the round.
    context: of the plan.
    upload: [K] float32 bytes sent by each participant that works.
    download: [K] float32 bytes sent to it.

  Returns:
    The record, and who was late for the end, None where the server waits.
  """
  fleet = context.fleet
  samples, end = setting.samples(fleet), None
  cost = costs.round_costs(task.work, fleet, plan, samples, upload, download)
  seconds = cost.seconds
  if setting.late:
    works = costs.working(fleet, plan)
    end = patience.patience(
      setting.late,
      setting.hparams['wait'],
      cost,
      works,
      setting.local_steps(fleet),
    )
    cost = costs.round_costs(
      task.work, fleet, plan, samples * end.share, upload, download
    )
    seconds = jnp.minimum(cost.seconds, end.limit)
  joules = cost.joules
  if setting.idle_power:
    joules += costs.idle_joules(fleet, seconds)
  online = None
  if fleet.scene is not None:
    transfer = jnp.stack([cost.sending, cost.receiving], -1)
    online = Online(transfer, end.late if end else None)
  return RoundInfo(
    client=fleet.id,
    loss=jnp.zeros(fleet.id.shape),
    trained=plan.trained,
    upload=cost.upload,
    download=cost.download,
    seconds=seconds,
    joules=joules,
    divergence=jnp.zeros(len(task.group_names)),
    online=online,
  ), end
