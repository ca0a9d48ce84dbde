"""Picks the participants of a round by a rule, and remembers them.

The rules are in `selection/`; here is what they look at. State and draws are
tied to the ids of clients.
"""

import jax
import jax.numpy as jnp

from relief_jax import blocks, costs, selection
from relief_jax.clients import batches
from relief_jax.online import conditions
from relief_jax.rounds.records import RoundInfo
from relief_jax.selection import record
from relief_jax.selection.record import Picked, Seen, View
from relief_jax.settings import HParams, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet, Population, PyTree


def begin(setting: Setting) -> PyTree:
  """Gives the record before the first round; () of a random draw.

  Args:
    setting: of the round.
  """
  if setting.selection == selection.RANDOM:
    return ()
  return record.nobody(setting.clients)


def told(setting: Setting) -> float:
  """Gives the bytes that a participant sends for the rule."""
  return selection.READS[setting.selection].told


def pick(
  key: Array,
  task: Task,
  setting: Setting,
  hparams: HParams,
  population: Population,
  seen: Seen,
  round_index: Array,
) -> Picked | None:
  """Picks the participants of a round; None: they are drawn at random.

  Args:
    key: of the round.
    task: the model.
    setting: of the round.
    hparams: traced hyperparameters.
    population: all clients.
    seen: of the rounds before.
    round_index: [] int32.
  """
  if setting.selection == selection.RANDOM:
    return None
  fleet = population.fleet
  if population.online is not None:  # who is there, at which speed today
    everybody = jnp.arange(setting.clients, dtype=jnp.int32)
    fleet, _ = conditions.take(population, everybody, round_index)
  # Where a random draw would take its key.
  keys = batches.client_keys(jax.random.split(key, 4)[0], fleet)
  seconds, joules = expected(task, setting, fleet)
  before = seen.picks > 0
  view = View(
    id=fleet.id,
    here=fleet.samples > 0,
    windows=windows(setting, fleet),
    seconds=jnp.where(before, seen.seconds, seconds),
    joules=jnp.where(before, seen.joules, joules),
    noise=jax.vmap(jax.random.gumbel)(keys),
    round_index=round_index,
    seen=seen,
    hparams=hparams,
  )
  return selection.SELECTION[setting.selection](view, setting.cohort)


def windows(setting: Setting, fleet: Fleet) -> Array:
  """Counts the different windows of a device's round, at most; [K] float32."""
  most = fleet.samples.astype(jnp.float32)
  return jnp.minimum(most, setting.samples(fleet))


def expected(task: Task, setting: Setting, fleet: Fleet) -> tuple[Array, Array]:
  """Computes seconds and joules of a round that trains all that a device owns.

  What a server can expect of a device that it has not met: from its sensors,
  speed, links and power, whatever the method then makes it do (**ours**).

  Args:
    task: the model.
    setting: of the round.
    fleet: [N].

  Returns:
    Both [N] float32; 0 of who has no window.
  """
  access = blocks.owned_groups(fleet.owned, task.blocks.modality)
  plan = Plan(fleet.owned, access, access.astype(jnp.float32))
  size = costs.total(access, 4.0 * task.work.size)
  found = costs.round_costs(
    task.work, fleet, plan, setting.samples(fleet), size, size
  )
  return found.seconds, found.joules


def remember(
  setting: Setting,
  seen: PyTree,
  picked: Picked | None,
  info: RoundInfo,
  fleet: Fleet,
  round_index: Array,
) -> PyTree:
  """Adds what a round showed to the record.

  Args:
    setting: of the round.
    seen: before it.
    picked: its participants.
    info: of it; `loss` is 0 where no update came.
    fleet: [K] of the round.
    round_index: [] int32.
  """
  if picked is None:
    return seen
  spent = jnp.stack([info.seconds, info.joules], -1)
  utility = windows(setting, fleet) * jnp.abs(info.loss)
  return record.after(seen, picked, round_index, utility, spent)
