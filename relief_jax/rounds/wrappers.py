"""One device's part of a round: it receives, trains and sends.

Authors of methods write functions of one device (`method.py`); here they become
the function that is mapped over the cohort.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.clients import device, training
from relief_jax.rounds import similarity
from relief_jax.rounds.method import Recipe
from relief_jax.settings import Setting
from relief_jax.types import Array, Fleet, Population, PyTree, Task
from relief_jax.updates import faults
from relief_jax.updates import link as link_lib


class Shared(NamedTuple):
  """What all participants see.

  Attributes:
    params: P, as broadcast.
    sent: beside it, of `Recipe.send`.
    population: the bank and the frozen base, nobody's rows.
    number: [] int32 of the round.
    step_key: of the local steps.
    link_key: of the messages.
    part_key: of `method.Client`, None where no recipe asks.
  """

  params: PyTree
  sent: PyTree
  population: Population
  number: Array
  step_key: Array
  link_key: Array
  part_key: Array | None


class Sums(NamedTuple):
  """What is added up over the cohort; () where robust means stack updates.

  Attributes:
    total: P, weighted updates.
    squares: [G], weighted squared norms.
    measured: of `Recipe.measure`.
    told: of `Recipe.tell`.
    held: P, weights of those who hold an element; None where groups are whole.
  """

  total: PyTree = ()
  squares: PyTree = ()
  measured: PyTree = ()
  told: PyTree = ()
  held: PyTree = None


class Record(NamedTuple):
  """What is kept apart by participant, [K, ...] after the map.

  Attributes:
    loss: [] mean over the local steps.
    local: state of the optimiser where it stays on the device.
    residual: of the uplink's memory.
    seen: of `Recipe.observe`.
    found: of `Recipe.weigh`.
    own: of `Recipe.tell`.
    arrived: the update itself and what of it is held, for robust means.
    blocks: of `similarity.kept`.
    sound: [] bool, the update is finite; () where that is not asked.
    right: [] int32, fresh windows that the model told; () without a stream.
  """

  loss: Array
  local: PyTree
  residual: PyTree
  seen: PyTree = ()
  found: PyTree = ()
  own: PyTree = ()
  arrived: PyTree = ()
  blocks: PyTree = ()
  sound: PyTree = ()
  right: PyTree = ()


def unlike(recipe: Recipe) -> bool:
  """Whether devices differ in more than their groups and their data."""
  return bool(recipe.part or recipe.objective or recipe.weigh or recipe.tell)


def streaming(fleet: Fleet) -> bool:
  """Windows arrive round by round."""
  return fleet.scene is not None and fleet.scene.fresh is not None


def local_tx(
  setting: Setting, recipe: Recipe, number: Array | int = 0
) -> optax.GradientTransformation:
  """The local optimiser, watched where the recipe does.

  Args:
    setting: of the round.
    recipe: of the method.
    number: of the round.
  """
  tx = setting.client_tx(number)
  return training.observing(tx, recipe.observe) if recipe.observe else tx


def participant(
  task: Task, setting: Setting, recipe: Recipe, links: link_lib.Links
):
  """The function of one participant: (present, Shared, Row) -> Sums, Record.

  Args:
    task: the model.
    setting: the round.
    recipe: the differences from FedAvg.
    links: both of them.
  """
  num, against = len(task.group_names), setting.guard
  branch = setting.layout.branch

  def client(present, shared, row):
    params, population = shared.params, shared.population

    def train(row):
      mask, view = tree.spread(task.groups, row.trained), recipe.view
      if unlike(recipe):
        learner = device.learner(
          task, setting, population, shared.part_key, row, shared.sent, present
        )
      if recipe.part:
        held, view = recipe.part(params, learner.client)
        mask = tree.both(mask, held)
      steps = device.draw_steps(
        shared.step_key, setting, row.fleet, row.own, row.run
      )
      if row.steps is not None:
        steps = device.cut(steps, row.steps)
      told = recipe.tell(params, learner) if recipe.tell else ((), ())
      if recipe.objective:
        objective = recipe.objective(learner)
        steps = device.with_keys(learner.client.key, steps)
      else:
        objective = device.client_loss(
          task, population, row.trained, branch, present
        )

      def loss(p, step):
        value = objective(view(p) if view else p, step)
        return value + recipe.penalty(p, params) if recipe.penalty else value

      delta, value, local = training.local_update(
        loss,
        local_tx(setting, recipe, shared.number),
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
        delta = faults.tamper(
          against.faults, shared.link_key, row.fleet.id, row.faulty, mask, delta
        )
      sound = faults.finite(value, weight, delta) if against.drop else ()
      if against.clip:
        delta = faults.clip(delta, setting.hparams['clip_norm'])
      delta, residual = link_lib.upload(
        links,
        task,
        shared.link_key,
        row.fleet.id,
        delta,
        row.residual,
        row.trained,
      )
      holds = None
      if recipe.part:
        holds = jax.tree.map(lambda m: m.astype(jnp.float32), mask)
        holds = tree.scale(tree.spread(task.groups, weight), holds)
      sums = Sums(
        tree.scale(tree.spread(task.groups, weight), delta),
        tree.scale(weight, tree.group_sq_norms(task.groups, delta, num)),
        recipe.measure(row.weight, delta),
        told[0],
        holds,
      )
      arrived = ()
      if against.robust:
        arrived, sums = (delta, mask if recipe.part else None), Sums()
      seen = ()
      if recipe.observe:
        seen, local = training.observed(local)
      return sums, Record(
        loss=value,
        local=local if setting.keep_client_state else (),
        residual=residual,
        seen=seen,
        found=found,
        own=told[1],
        arrived=arrived,
        blocks=similarity.kept(task, delta) if setting.cosines else (),
        sound=sound,
      )

    def sit_out(row):
      sums, record = tree.zeros_like_output(train, row)
      return sums, record._replace(local=row.local, residual=row.residual)

    def checked(row):
      sums, record = train(row)
      kept = partial(jnp.where, record.sound)
      return jax.tree.map(kept, (sums, record), sit_out(row))

    # Padding and devices that train nothing do no work at all.
    sums, record = tree.choose(
      row.active,
      checked if against.drop else train,
      sit_out,
      row,
      branch=branch,
    )
    if streaming(row.fleet):
      seen = recipe.view(params) if recipe.view else params
      right = device.right(task, setting, population, row, seen, present)
      record = record._replace(right=right)
    return sums, record

  return client
