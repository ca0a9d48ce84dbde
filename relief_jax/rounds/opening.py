"""Begins a round: who takes part, plans what, is sent what, at what cost."""

import dataclasses
from collections.abc import Callable
from typing import Any

from relief_jax.budgets import memory
from relief_jax.rounds import (
  accounting,
  frame,
  participants,
  privacy,
  stragglers,
)
from relief_jax.rounds.method import Method
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Population, PyTree
from relief_jax.updates import link, rateless


def opening(
  task: Task, setting: Setting, method: Method, links: link.Links, name: str
) -> Callable[..., frame.Begun]:
  """Builds the begin of a round, up to the training of its participants.

  Args:
    task: the model.
    setting: the round.
    method: what is done in it.
    links: of the setting.
    name: of the method, for messages.

  Returns:
    (key, state, population, hparams) -> Begun; the state is
    `parallel.RoundState`.
  """

  def begin(key, state: Any, population: Population, hparams: HParams):
    now = state.round
    picked = participants.pick(
      key, task, setting, hparams, population, state.seen, now
    )
    round, known = frame.open_round(
      key, task, setting, hparams, population, now, *(picked or ())
    )
    fleet, server = round.fleet, state.server
    store = frame.take(state.clients, round.place)
    round = round._replace(clients=store.method)
    if setting.guard.noise:
      privacy.check_plan(setting, method, server, round, name)
    plan, extra = method.plan(server, round), {}
    if fleet.memory is not None:
      plan, extra['memory'] = memory.within(
        task, setting.memory_step, plan, fleet
      )
    asked = accounting.received(task, fleet, plan)
    given = links, task, known.link_key, server.params
    stale: PyTree = ()
    billed = round
    if links.air:
      start, wire = link.message(*given, plan)
      sent = rateless.send(
        links.air,
        known.link_key,
        hparams,
        fleet,
        round.place,
        state.replica.score,
        wire,
        asked,
      )
      heard = rateless.held(task, sent.decoded, start, store.heard)
      replica, download, stale = state.replica, sent.size, sent.stale
      slow = dataclasses.replace(fleet, downlink=sent.rate)
      billed = round._replace(fleet=slow)
      extra |= rateless.told(sent, asked)
    else:
      start, replica, heard, download = link.broadcast(
        *given, state.replica, store.heard, plan, asked
      )
    upload = link.message_bytes(
      links.up, task, server.params, plan, accounting.sent(plan), link.UP
    )
    if picked is not None:
      upload += participants.told(setting)
    info, end = accounting.account(
      task, setting, plan, billed, upload, download
    )
    if end is not None:
      plan = stragglers.arrived(plan, end.late)
    return frame.Begun(
      round=round,
      known=known,
      plan=plan,
      received=method.send(server)._replace(params=start),
      store=store._replace(heard=heard),
      replica=replica,
      info=info,
      extra=extra,
      steps=end.steps if end and setting.late == 'partial' else None,
      picked=picked,
      stale=stale,
    )

  return begin
