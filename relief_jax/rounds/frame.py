"""Opens a round of any kind, and takes and puts rows of the client store."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import blocks
from relief_jax.clients.device import ClientStore, Known, Received
from relief_jax.engine import ambient, placement
from relief_jax.online import conditions
from relief_jax.rounds import cohort
from relief_jax.rounds.method import Round
from relief_jax.rounds.records import RoundInfo
from relief_jax.selection.record import Picked
from relief_jax.settings import HParams, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet, Population, PyTree


class Opened(NamedTuple):
  """Holds an open round.

  Attributes:
    round: what the server knows.
    known: what all devices know.
  """

  round: Round
  known: Known


class Begun(NamedTuple):
  """Holds a round up to its training: who trains what, on which model.

  Attributes:
    round: of the participants, with what the method keeps on them.
    known: what all devices know.
    plan: of the participants; what is late has trained nothing in it.
    received: of the server.
    store: [K, ...] what stays on the participants.
    replica: the server's state of a coded broadcast.
    info: costs.
    extra: of `RoundInfo.extra`.
    steps: [K] int32, local steps that a device has time for; None: all.
    started: [K, ...] where a device's model is, with an event driver.
    stale: [K, G] bool, of `Row`, where the broadcast may be lost.
    flight: of the event driver, after the round.
    picked: by a rule of selection; None: drawn at random.
  """

  round: Round
  known: Known
  plan: Plan
  received: Received
  store: ClientStore
  replica: Any
  info: RoundInfo
  extra: dict[str, Array]
  steps: Array | None = None
  started: PyTree = ()
  stale: PyTree = ()
  flight: PyTree = ()
  picked: Picked | None = None


def weights(setting: Setting, fleet: Fleet, active: Array) -> Array:
  """Computes each client's weight in the mean, [K] float32; 0 if inactive."""
  base = (
    fleet.samples.astype(jnp.float32)
    if setting.weight == 'samples'
    else jnp.ones(fleet.samples.shape)
  )
  return jnp.where(active, base, 0.0)


def deadline(setting: Setting, hparams: HParams, index: Array) -> Array:
  """Computes the deadline of a round, []; linear in it with a schedule."""
  start = hparams['deadline']
  if not setting.schedule:
    return start
  last = jnp.maximum(hparams['rounds'] - 1, 1)
  done = index.astype(jnp.float32) / last
  return start + (hparams['deadline_end'] - start) * done


def seen(
  key: Array,
  task: Task,
  setting: Setting,
  hparams: HParams,
  fleet: Fleet,
  place: Array,
  index: Array,
) -> Round:
  """Gathers the data that a plan may look at.

  Args:
    key: of the round's plan.
    task: the model.
    setting: the round.
    hparams: traced hyperparameters.
    fleet: [K] participants.
    place: [K] of them in the population.
    index: [] int32, number of the round.
  """
  return Round(
    key=key,
    round_index=index,
    place=place,
    fleet=fleet,
    access=blocks.owned_groups(fleet.owned, task.blocks.modality),
    active=fleet.samples > 0,
    budget=fleet.budget * deadline(setting, hparams, index),
    hparams=hparams,
  )


def last(
  task: Task, setting: Setting, hparams: HParams, fleet: Fleet, done: Array
) -> Round:
  """Gathers the data that the last round's plan saw, of a whole static fleet.

  Args:
    task: the model.
    setting: the round.
    hparams: traced hyperparameters.
    fleet: [N].
    done: [] int32, rounds; before the first one it is the first one's.
  """
  return seen(
    ambient.key(0),  # of plans that draw; sizes of sub-models do not
    task,
    setting,
    hparams,
    fleet,
    jnp.arange(fleet.id.size),
    jnp.maximum(done - 1, 0),
  )


def open_round(
  key: Array,
  task: Task,
  setting: Setting,
  hparams: HParams,
  population: Population,
  index: Array,
  place: Array | None = None,
  asked: Array | None = None,
) -> Opened:
  """Draws the participants and takes their part of the world.

  Args:
    key: of the round.
    task: the model.
    setting: the round.
    hparams: traced hyperparameters.
    population: all clients.
    index: [] int32, number of the round.
    place: [K] int32, participants; None: they are drawn.
    asked: [K] bool, who of them is not left out; None: nobody is.
  """
  cohort_key, plan_key, step_key, link_key = jax.random.split(key, 4)
  if place is None:
    place = cohort.draw(cohort_key, population.fleet, setting.cohort)
  fleet, windows = conditions.take(population, place, index)
  if asked is not None:
    fleet = conditions.only(fleet, asked)
  everybody = cohort.shared(population)

  def each(function, shared, rows, work=None):
    return placement.map_reduce(function, shared, rows, setting.layout, work)

  round = seen(plan_key, task, setting, hparams, fleet, place, index)
  return Opened(
    round._replace(
      population=everybody,
      windows=windows,
      everyone=population.fleet,
      each=each,
    ),
    Known(everybody, index, hparams, plan_key, step_key, link_key),
  )


def take(every: PyTree, place: Array) -> PyTree:
  """Takes the participants' rows out of [N, ...]."""
  return jax.tree.map(lambda v: v[place], every)


def put(every: PyTree, place: Array, rows: PyTree) -> PyTree:
  """Puts the participants' rows back into [N, ...]."""
  return jax.tree.map(lambda a, v: a.at[place].set(v), every, rows)


def everyone(one: PyTree, clients: int) -> PyTree:
  """Repeats one client's store for all of them, [N, ...]."""
  return jax.tree.map(lambda v: jnp.broadcast_to(v, (clients, *v.shape)), one)


def streaming(fleet: Fleet) -> bool:
  """Tells whether windows arrive round by round."""
  return fleet.conditions is not None and fleet.conditions.fresh is not None
