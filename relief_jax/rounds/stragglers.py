"""A server that does not wait for the last one. **Ours.**

It waits so many times the median participant's time. What would come later is
lost, although the device has paid for it, or (`partial`) the device, which
knows the limit, takes as many local steps as fit beside its transfers.
"""

from typing import NamedTuple

import jax.numpy as jnp

from relief_jax.costs import Costs
from relief_jax.errors import InputError
from relief_jax.settings import Setting
from relief_jax.types import Array, Plan


class Patience(NamedTuple):
  """What a round's end makes of its participants.

  Attributes:
    limit: [] seconds, when the round ends.
    late: [K] bool, whose update does not come.
    steps: [K] int32, local steps that a device takes.
    share: [K] of those planned.
  """

  limit: Array
  late: Array
  steps: Array
  share: Array


def patience(
  kind: str, wait: Array, cost: Costs, works: Array, steps: Array
) -> Patience:
  """Who is late.

  Args:
    kind: `lost` or `partial`.
    wait: [] in medians of the participants' seconds.
    cost: of the round as planned, [K].
    works: [K] bool, who takes part.
    steps: [K] int32, local steps as planned.
  """
  limit = wait * jnp.nanmedian(jnp.where(works, cost.seconds, jnp.nan))
  if kind == 'lost':
    late = works & (cost.seconds > limit)
    return Patience(limit, late, steps, jnp.ones(steps.shape))
  transfer = cost.sending + cost.receiving
  compute = jnp.maximum(cost.seconds - transfer, 1e-30)
  fits = jnp.clip((limit - transfer) / compute, 0.0, 1.0)
  # Not one step less for rounding where the time is enough.
  fits = jnp.where(cost.seconds <= limit, 1.0, fits)
  taken = jnp.floor(fits * steps).astype(jnp.int32)
  share = taken / jnp.maximum(steps, 1)
  return Patience(limit, works & (taken == 0), taken, share)


def arrived(plan: Plan, late: Array) -> Plan:
  """The plan as the server sees it in the end: who is late did nothing."""
  return plan._replace(
    trained=plan.trained & ~late[:, None],
    counted=jnp.where(late[:, None], 0.0, plan.counted),
  )


def refuse(setting: Setting, method: str) -> None:
  """For methods without a server that waits for updates.

  Raises:
    InputError: patience is limited.
  """
  if setting.late:
    raise InputError(
      f'config.online.pace.wait for {method!r}',
      '0: nobody waits for updates there',
      'set --config.online.pace.wait=0',
    )
