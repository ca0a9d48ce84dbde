"""Refuses fleets whose devices can train adapters of no rank."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms import fedavg
from relief_jax.errors import InputError
from relief_jax.rounds import frame
from relief_jax.rounds.method import Round
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet


def check(
  task: Task,
  setting: Setting,
  name: str,
  able: Callable[[Round, Plan], Array],
  fleet: Fleet,
  deadline: float,
) -> None:
  """Refuses a fleet whose devices hold no rank, for `Method.check`.

  Args:
    task: the model.
    setting: the round.
    name: of the method.
    able: (Round, the plan where all fits) -> [N] bool, who has a rank.
    fleet: [N].
    deadline: the latest, seconds.

  Raises:
    InputError: devices that may not sit out, or nobody has a rank.
  """
  now = {'deadline': deadline, 'deadline_end': deadline, 'rounds': 1.0}
  first = frame.last(task, setting, now, fleet, jnp.int32(0))
  everything = fedavg.everybody(setting, first)
  anytime = first._replace(budget=jnp.full(fleet.id.shape, jnp.inf))
  real = np.asarray(fleet.samples) > 0
  fits, holds = (
    real & np.asarray(able(one, everything)) for one in (first, anytime)
  )
  if fits.any() and (setting.sit_out or (holds == real).all()):
    return
  short = 'time' if holds.any() and not fits.any() else 'memory'
  left = (real & ~(fits if short == 'time' else holds)).sum()
  raise InputError(
    f'{left} of {real.sum()} devices whose {short} is enough for no rank of '
    f'adapters by {name}',
    'a rank for each of them',
    "raise --config.deadline or the fleet's memory_mb, lower "
    '--config.batch, or set --config.over_budget=sit_out',
  )
