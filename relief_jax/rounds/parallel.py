"""Builds the parallel-then-average round of a method.

    plan -> send -> train -> updates' chain -> mean -> (noise) -> server

Updates are summed as they are made and never stacked over clients, except for
robust means.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from relief_jax import costs
from relief_jax.aggregation import robust
from relief_jax.clients import device as devices
from relief_jax.clients import prequential
from relief_jax.clients.device import (
  ClientStore,
  Device,
  Known,
  Received,
  Row,
  Update,
)
from relief_jax.engine import buckets, debug
from relief_jax.rounds import (
  accounting,
  events,
  frame,
  legality,
  opening,
  participants,
  privacy,
  similarity,
  split,
  wrappers,
)
from relief_jax.rounds.method import Method, Server
from relief_jax.rounds.records import Algorithm
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree
from relief_jax.updates import link, noise, rateless, stack, transform


class RoundState(NamedTuple):
  """Holds the state between rounds.

  Attributes:
    server: model, optimiser and the method's state.
    clients: [N, ...] what stays on the devices.
    round: [] int32, rounds done.
    replica: the server's state of a coded broadcast.
    flight: devices at work where the server acts on arrivals.
    seen: what a rule of selection remembers of all devices.
  """

  server: Server
  clients: ClientStore
  round: Array
  replica: link.Replica = link.Replica()
  flight: PyTree = ()
  seen: PyTree = ()

  @property
  def params(self) -> PyTree:
    """The server's model, P."""
    return self.server.params


class Shared(NamedTuple):
  """Holds the data that all devices of a round see.

  Attributes:
    known: beside what they receive.
    received: of the server.
  """

  known: Known
  received: Received


def build(
  task: Task, setting: Setting, method: Method, name: str = 'the method'
) -> Algorithm:
  """Builds the round of a method.

  Args:
    task: the model.
    setting: the round.
    method: what is done in it.
    name: of the method, for messages.

  Returns:
    An Algorithm whose state is a RoundState.

  Raises:
    InputError: what the method cannot be combined with.
  """
  against, layout = setting.guard, setting.layout
  links = link.make(setting)
  legality.check(setting, method, links, name)
  if against.noise:
    privacy.check(setting, method, links, name)
  chain = stack.stack(setting, links)
  if method.transforms:
    chain = transform.chain(*method.transforms, chain)
  aggregate = method.aggregate
  if against.robust:
    aggregate = robust.robust_mean(task, against)
  observers = list(method.observers)
  if setting.similarity and not method.traits.silent:
    observers.append(similarity.observer(task))

  def finish(
    update: Update, device: Device, known: Known, row: Row, arrive=None
  ):
    """Treats and sums the update of one client."""
    if layout.debug and not against.drop:
      debug.check_finite(task, update.loss, update.delta)
    update, states = chain.update(
      update, row.store.updates, device, known.link_key
    )
    if arrive:
      update = arrive(update)
    summed, stacked = aggregate.client(update, device)
    record = wrappers.Record(
      loss=update.loss,
      store=ClientStore(
        method=update.client_state,
        updates=states,
        optimizer=update.opt_state if setting.keep_client_state else (),
        heard=row.store.heard,
      ),
      rows=update.rows,
      factor=update.factor,
      stacked=stacked,
      finite=update.finite,
      observed=tuple(one.client(device, update) for one in observers),
    )
    return (summed, update.sums), record

  def client(present, shared: Shared, row: Row):
    known, received = shared
    if links.air:
      received = rateless.started(task, received, row)
    arrive, device = None, devices.make(task, setting, known, row, present)
    if method.events:
      arrive = partial(
        events.weighed, method.events, received=received, started=row.started
      )
      received = events.received(received, row.started)
    update = method.client(received, device)
    return finish(update, device, known, row, arrive)

  def test(present, shared: Shared, row: Row):
    received = shared.received
    if links.air:
      received = rateless.started(task, received, row)
    model = method.model(received, row.store.method)
    return prequential.correct(
      task, setting, shared.known.population, row, model, present
    )

  def client_of(client, streaming, present):
    found: Any = partial(client, present)
    if against.drop:
      found = wrappers.drop_nonfinite(found)
    found = wrappers.skip_inactive(found, layout.branch)
    if streaming:
      found = wrappers.test_then_train(found, partial(test, present))
    return found

  def init(key, params):
    del key
    optimizer: PyTree = ()
    if setting.keep_client_state:
      optimizer = setting.client_tx().init(params)
    replica, heard = link.init(links, task, params)
    one = ClientStore(
      method.client_init(params), chain.init(params), optimizer, heard
    )
    return RoundState(
      server=Server(
        params, setting.server_tx().init(params), method.init(params)
      ),
      clients=frame.everyone(one, setting.clients),
      round=jnp.int32(0),
      replica=replica,
      flight=(
        events.init(task, setting, method.events, params)
        if method.events
        else ()
      ),
      seen=participants.begin(setting),
    )

  begin = (
    events.opening(task, setting, method, links)
    if method.events
    else opening.opening(task, setting, method, links, name)
  )

  def step(key, state: RoundState, population, hparams: HParams):
    if method.base:
      frozen = method.base(state.server, population.frozen)
      population = population.replace(frozen=frozen)
    begun = begin(key, state, population, hparams)
    round, plan, extra, info = begun.round, begun.plan, begun.extra, begun.info
    fleet, place, server = round.fleet, round.place, state.server
    weight = plan.counted * frame.weights(setting, fleet, round.active)[:, None]
    row = Row(
      fleet=fleet,
      windows=round.windows,
      run=plan.run,
      trained=plan.trained,
      active=round.active & plan.trained.any(-1),
      weight=weight,
      args=plan.client_args,
      store=begun.store,
      faulty=hparams['faulty'][place] if against.faults.kind else (),
      steps=begun.steps,
      number=jnp.arange(len(place)),
      held=plan.held,
      batch=plan.batch,
      started=begun.started,
      stale=begun.stale,
    )
    shared = Shared(begun.known, begun.received)
    flops, moved = costs.plan_flops(task.work, plan), None
    streaming, trained = frame.streaming(fleet), plan.trained
    if method.lockstep:
      (summed, sums), record, moved = split.train(
        task,
        setting,
        method,
        partial(client_of, streaming=streaming, present=None),
        finish,
        split.Together(shared, server.params, weight.sum(0)),
        row,
        flops,
      )
      trained = split.averaged(method.lockstep, plan)
    else:
      (summed, sums), record = buckets.map_reduce(
        partial(client_of, client, streaming),
        shared,
        row,
        layout,
        # Static, of the whole population in its order.
        setting.buckets if len(place) == setting.clients else (),
        flops,
      )
    if not isinstance(record.factor, tuple):
      weight *= record.factor
      extra['weight_factor'] = record.factor
    heard_plan = plan
    if against.drop:
      dropped = row.active & ~record.finite
      weight = jnp.where(dropped[:, None], 0.0, weight)
      heard_plan = plan._replace(trained=plan.trained & ~dropped[:, None])
      extra['dropped'] = dropped
    mean = aggregate.server(summed, record.stacked, weight, trained)
    mean = mean._replace(sums=sums, rows=record.rows)
    if moved is not None:
      mean = split.with_server(task, mean, moved, plan)
    if plan.cost.steps is not None:
      extra['steps'] = plan.cost.steps
    if plan.cost.server_joules is not None:
      extra['server_joules'] = plan.cost.server_joules
    if against.noise == 'server':
      delta = noise.on_mean(
        begun.known.link_key, hparams, task, mean.delta, mean.touched, weight
      )
      mean = mean._replace(delta=delta)
    round = round._replace(plan=heard_plan, clients=record.store.method)
    if against.noise == 'device':
      extra['noisy_weight'] = weight * trained
    if against.noise:
      privacy.check_server(setting, method, server, mean, round, name)
    server, mine = method.server(server, mean, round)
    for one, rows in zip(observers, record.observed, strict=True):
      extra |= one.server(rows)
    extra |= method.report(server)
    divergence = (
      method.divergence(server.method_state)
      if method.divergence
      else jnp.where(
        mean.trainers >= 2, mean.variance / task.work.size, jnp.nan
      )
    )
    info = info._replace(
      loss=record.loss,
      trained=plan.trained,
      divergence=divergence,
      extra=extra,
    )
    replica = begun.replica
    if links.air:
      score = jnp.where(jnp.isnan(divergence), replica.score, divergence)
      replica = replica._replace(score=score)
    if streaming:
      info = accounting.prequential(info, fleet, record.correct)
    seen = participants.remember(
      setting, state.seen, begun.picked, info, fleet, state.round
    )
    return RoundState(
      server=server,
      clients=frame.put(
        state.clients, place, record.store._replace(method=mine)
      ),
      round=state.round + 1,
      replica=replica,
      flight=begun.flight,
      seen=seen,
    ), info

  def base(state, frozen):
    assert method.base is not None
    return method.base(state.server, frozen)

  return Algorithm(
    init,
    step,
    params=lambda state: method.evaluate(state.server, state.clients.method),
    personal=method.traits.personal,
    frozen=base if method.base else None,
    device_submodels=method.device_submodels,
    ensemble=method.traits.ensemble,
    check=method.check,
  )
