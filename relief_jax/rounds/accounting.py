"""What a round costs its participants, and what an online world shows."""

import jax.numpy as jnp

from relief_jax import blocks, costs
from relief_jax.rounds import stragglers
from relief_jax.rounds.method import Context
from relief_jax.settings import Setting
from relief_jax.types import Array, Fleet, Online, Plan, RoundInfo, Task


def received(task: Task, fleet: Fleet, plan: Plan) -> Array:
  """Groups that a device is sent: those that it runs, [K, G] bool."""
  if plan.charge.received is not None:
    return plan.charge.received
  groups = blocks.owned_groups(plan.run, task.group_modality)
  return groups & costs.working(fleet, plan)[:, None]


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
) -> tuple[RoundInfo, stragglers.Patience | None]:
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
    end = stragglers.patience(
      setting.late,
      setting.hparams['wait'],
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
