"""Computes costs of a round's participants, and an online world's record."""

import jax.numpy as jnp

from relief_jax import blocks, costs
from relief_jax.rounds import stragglers
from relief_jax.rounds.method import Round
from relief_jax.rounds.records import Online, RoundInfo
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet


def received(task: Task, fleet: Fleet, plan: Plan) -> Array:
  """Marks the blocks that a device is sent: those that it runs, [K, G]."""
  if plan.cost.received is not None:
    return plan.cost.received
  found = blocks.owned_groups(plan.run, task.blocks.modality)
  found &= costs.working(fleet, plan)[:, None]
  return found if plan.private is None else found & ~plan.private[None]


def sent(plan: Plan) -> Array:
  """Marks the blocks that a device sends: those that it trains, [K, G]."""
  if plan.cost.sent is not None:
    return plan.cost.sent
  if plan.private is None:
    return plan.trained
  return plan.trained & ~plan.private[None]


def prequential(info: RoundInfo, fleet: Fleet, correct: Array) -> RoundInfo:
  """Adds the test on windows just arrived to the record of a round.

  Args:
    info: of the round.
    fleet: [K] participants.
    correct: [K] int32 windows that the model classified correctly.
  """
  assert info.online is not None  # the world is online
  online = info.online._replace(
    arrived_samples=fleet.conditions.arrived, correct=correct
  )
  return info._replace(online=online)


def account(
  task: Task,
  setting: Setting,
  plan: Plan,
  round: Round,
  upload: Array,
  download: Array,
) -> tuple[RoundInfo, stragglers.RoundEnd | None]:
  """Computes the costs of a round; the caller fills in loss and divergence.

  Args:
    task: the model.
    setting: the round.
    plan: of the round.
    round: of the plan.
    upload: [K] float32 bytes sent by each participant that works.
    download: [K] float32 bytes sent to it.

  Returns:
    The record, and the stragglers [K] bool, None where the server waits.
  """
  fleet = round.fleet
  samples, end = setting.samples(fleet), None
  if plan.cost.samples is not None:
    samples = plan.cost.samples
  cost = costs.round_costs(task.work, fleet, plan, samples, upload, download)
  seconds = cost.seconds
  if setting.late:
    works = costs.working(fleet, plan)
    end = stragglers.round_end(
      setting.late,
      round.hparams['wait'],
      cost,
      works,
      setting.local_steps(fleet),
    )
    if setting.late == 'partial':
      cost = costs.round_costs(
        task.work, fleet, plan, samples * end.share, upload, download
      )
    seconds = jnp.minimum(cost.seconds, end.limit)
  joules = cost.joules
  if setting.idle_power:
    joules += costs.idle_joules(fleet, seconds, cost.waiting)
  online = None
  if fleet.conditions is not None:
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
    divergence=jnp.zeros(task.num_blocks),
    online=online,
  ), end
