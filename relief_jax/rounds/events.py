"""Lets a server act on updates as they arrive: asynchronous rounds.

A device starts with the model that the server has then, version s, and its
update arrives after the seconds of its download, work and upload. A server step
takes the next K arrivals by simulated time,

    theta[v+1] = merge(theta[v], updates of K devices, weights w(v - s_n))

and a round, in records too, is such a step: v - s_n is the staleness, the steps
between a device's start and the arrival. At most `clients_per_round` devices
work at a time: when one arrives another starts at once, drawn from those that
neither work nor wait in the buffer. A device in the buffer starts anew after
the step, so that none is twice in a step (**ours**, and what makes a buffer of
all of them FedAvg, to the bit). Where fewer than K can work the step takes
those.

Everything is one step of the compiled program: times are [N] numbers, relative
to the last step so that none grows with the run; what trains are the K devices
that arrived, each on its version, out of a table of those that somebody still
works on. A device's draws are those of the step in which it arrives, its plan
is that of the step in which it started.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import costs, tree
from relief_jax.budgets import memory
from relief_jax.clients import batches
from relief_jax.clients.device import Received, Update
from relief_jax.errors import InputError
from relief_jax.rounds import accounting, arrivals, frame
from relief_jax.rounds.method import Events, Method, Round
from relief_jax.settings import HParams, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Population, PyTree
from relief_jax.updates import link


class Flight(NamedTuple):
  """Holds the devices at work, between two steps of the server.

  Attributes:
    busy: [N] bool.
    left: [N] seconds until the update arrives.
    version: [N] int32, step of the server in which it started.
    slot: [N] int32, place of that version in `models`.
    run: [N, M] bool, of the plan that it started with.
    trained: [N, G] bool, likewise.
    counted: [N, G] float32, likewise.
    models: [S, *P], versions that somebody works on.
  """

  busy: Array
  left: Array
  version: Array
  slot: Array
  run: Array
  trained: Array
  counted: Array
  models: PyTree


class Versions(NamedTuple):
  """Holds the models of a step, in the place of the one that is sent.

  Attributes:
    models: [S, *P], as devices received them.
    now: P, the server's.
  """

  models: PyTree
  now: PyTree


class Started(NamedTuple):
  """Tells what a device started from.

  Attributes:
    slot: [] int32, place in `Versions.models`.
    factor: [] float32, w of its staleness.
  """

  slot: Array
  factor: Array


def versions(setting: Setting, events: Events) -> int:
  """Counts the versions that devices can work on at once, S.

  >>> events = Events(1, jnp.ones_like)
  >>> versions(Setting(clients=8, cohort=8), events)
  8
  >>> versions(Setting(clients=8, cohort=8), events._replace(limit=3))
  4
  >>> versions(Setting(clients=8, cohort=8), events._replace(buffer=8))
  1

  Args:
    setting: of the round.
    events: of the method.
  """
  if events.tiers:
    most = events.tiers - 1
  else:
    most = min(setting.cohort - 1, setting.clients - events.buffer)
  return 1 + (min(most, events.limit) if events.limit else most)


def init(
  task: Task, setting: Setting, events: Events, params: PyTree
) -> Flight:
  """Gives the state before the first step: nobody works.

  Args:
    task: the model.
    setting: of the round.
    events: of the method.
    params: P.
  """
  clients, count = setting.clients, versions(setting, events)
  modalities = len(task.modalities)
  return Flight(
    busy=jnp.zeros(clients, bool),
    left=jnp.zeros(clients),
    version=jnp.zeros(clients, jnp.int32),
    slot=jnp.zeros(clients, jnp.int32),
    run=jnp.zeros((clients, modalities), bool),
    trained=jnp.zeros((clients, task.num_blocks), bool),
    counted=jnp.zeros((clients, task.num_blocks)),
    models=jax.tree.map(
      lambda v: jnp.zeros((count, *v.shape), v.dtype), params
    ),
  )


def received(received: Received, started: Started) -> Received:
  """Takes the version that a device started from.

  Args:
    received: with `Versions` as its parameters.
    started: of the device.
  """
  models = received.params.models
  return received._replace(
    params=jax.tree.map(lambda v: v[started.slot], models)
  )


def weighed(
  events: Events, update: Update, received: Received, started: Started
) -> Update:
  """Weighs an update by its staleness, as it arrives at the server.

  Args:
    events: of the method.
    update: against the version that the device started from.
    received: with `Versions` as its parameters.
    started: of the device.
  """
  if events.merge == 'weights':  # they are in the plan
    return update
  delta = update.delta
  if events.merge == 'models':
    models, now = received.params
    gap = jax.tree.map(lambda v, p: v[started.slot] - p, models, now)
    nothing = jax.tree.map(jnp.zeros_like, gap)
    gap = tree.select(update.mask, gap, nothing)
    delta = jax.tree.map(jnp.add, delta, gap)
  return update._replace(
    delta=jax.tree.map(lambda v: started.factor * v, delta)
  )


def opening(
  task: Task, setting: Setting, method: Method, links: link.Links
) -> Callable[..., frame.Begun]:
  """Builds the begin of a server step, up to the training of who arrives.

  Args:
    task: the model.
    setting: of the round.
    method: with `events`.
    links: of the setting.

  Returns:
    (key, state, population, hparams) -> Begun.

  Raises:
    InputError: the method's plan or the world is none for arrivals, when it
      is traced.
  """
  events: Any = method.events

  def begin(key, state, population: Population, hparams: HParams):
    if population.online is not None:  # of a method without `Facts(arrivals)`
      raise InputError(
        'an online world where the server acts on arrivals',
        'a static one: between two arrivals there are no rounds to change in',
        'leave --config.online off',
      )
    flight, now = state.flight, state.round
    everybody = jnp.arange(setting.clients, dtype=jnp.int32)
    whole, known = frame.open_round(
      key, task, setting, hparams, population, now, everybody
    )
    whole = whole._replace(clients=state.clients.method)
    fleet = whole.fleet
    plan, extra = _plan(task, setting, method, state, whole)
    start, _, _, download = link.broadcast(
      links,
      task,
      known.link_key,
      state.server.params,
      state.replica,
      (),
      plan,
      accounting.received(task, fleet, plan),
    )
    upload = link.message_bytes(
      links.up, task, state.server.params, plan, accounting.sent(plan), link.UP
    )
    every, _ = accounting.account(
      task, setting._replace(idle_power=False), plan, whole, upload, download
    )
    works = costs.working(fleet, plan)
    draw = jax.vmap(jax.random.uniform)(
      batches.client_keys(jax.random.split(key, 4)[0], fleet)
    )
    found, tier = arrivals.following(
      setting, events, draw, flight.busy, flight.left, works, every.seconds
    )
    flight, place = _land(events, flight, plan, start, found, now)
    arrived = found.taken[place]
    age = now - flight.version[place]
    heard = arrived & (age <= events.limit) if events.limit else arrived
    factor = events.weight(age.astype(jnp.float32))
    round, _ = frame.open_round(
      key, task, setting, hparams, population, now, place
    )
    store = frame.take(state.clients, place)
    part = Plan(
      run=plan.run[place] & arrived[:, None],
      trained=plan.trained[place] & heard[:, None],
      counted=jnp.where(heard[:, None], plan.counted[place], 0.0),
      client_args=tier[place] if events.tiers else (),
      private=plan.private,
    )
    if events.merge == 'weights':
      part = part._replace(counted=part.counted * factor[:, None])
    joules = every.joules
    if setting.idle_power:  # in the buffer, until the step
      idle = fleet.watts[:, 3] * (found.elapsed - found.left)
      joules += jnp.where(every.seconds > 0, idle, 0.0)

    def of_arrived(values):
      return jnp.where(arrived, values[place], 0.0)

    info = every._replace(
      client=round.fleet.id,
      loss=jnp.zeros(place.shape),
      upload=of_arrived(every.upload),
      download=of_arrived(every.download),
      seconds=of_arrived(every.seconds),
      joules=of_arrived(joules),
    )
    extra = {k: of_arrived(v) for k, v in extra.items()}
    return frame.Begun(
      round=round._replace(active=round.active & heard, clients=store.method),
      known=known,
      plan=part,
      received=method.send(state.server)._replace(
        params=Versions(flight.models, state.server.params)
      ),
      store=store,
      replica=state.replica,
      info=info,
      extra={
        **extra,
        'elapsed': found.elapsed,
        'staleness': jnp.where(heard, age, -1),
      },
      started=Started(flight.slot[place], factor),
      flight=flight,
    )

  return begin


def _plan(
  task: Task, setting: Setting, method: Method, state: Any, whole: Round
) -> tuple[Plan, dict[str, Array]]:
  """Plans for all devices: those at work keep the plan that they have."""
  plan, flight, extra = method.plan(state.server, whole), state.flight, {}
  if jax.tree.leaves((plan.client_args, plan.cost, plan.held, plan.batch)):
    raise InputError(
      'a plan with arguments, prices or batches of its own where the server '
      'acts on arrivals',
      'one that says who runs, trains and counts, such as of fedavg or relief',
      'leave `events` out of the method',
    )
  at_work = flight.busy[:, None]
  plan = plan._replace(
    run=jnp.where(at_work, flight.run, plan.run),
    trained=jnp.where(at_work, flight.trained, plan.trained),
    counted=jnp.where(at_work, flight.counted, plan.counted),
  )
  if whole.fleet.memory is not None:
    plan, extra['memory'] = memory.within(
      task, setting.memory_step, plan, whole.fleet
    )
  return plan, extra


def _land(
  events: Events,
  flight: Flight,
  plan: Plan,
  start: PyTree,
  found: arrivals.Arrivals,
  now: Array,
) -> tuple[Flight, Array]:
  """Takes the arrivals out; also their places, [K], in increasing order.

  Args:
    events: of the method.
    flight: at the begin of the step.
    plan: of everybody.
    start: P, the version that is sent now.
    found: the arrivals.
    now: [] int32, number of the step.
  """
  needed = flight.busy
  if events.limit:
    needed &= now - flight.version <= events.limit
  count = jax.tree.leaves(flight.models)[0].shape[0]
  slot = jnp.zeros(count, bool).at[flight.slot].max(needed).argmin()
  slot = slot.astype(jnp.int32)
  busy = (flight.busy | found.started) & ~found.taken
  order = jnp.argsort(~found.taken, stable=True)[: events.buffer]
  return Flight(
    busy=busy,
    left=jnp.where(busy, found.left - found.elapsed, 0.0),
    version=jnp.where(found.started, now, flight.version),
    slot=jnp.where(found.started, slot, flight.slot),
    run=plan.run,
    trained=plan.trained,
    counted=plan.counted,
    models=jax.tree.map(
      lambda every, one: every.at[slot].set(one), flight.models, start
    ),
  ), jnp.sort(order).astype(jnp.int32)
