"""Ends rounds without waiting for stragglers. **Ours.**

The server waits a multiple of the median participant's time. A later update is
lost, although the device has paid for it, or (`partial`) the device, which
knows the limit, takes as many local steps as fit beside its transfers.
"""

from typing import NamedTuple

import jax.numpy as jnp

from relief_jax.costs import Costs
from relief_jax.task import Plan
from relief_jax.types import Array


class RoundEnd(NamedTuple):
  """Describes the end of a round: its limit, stragglers and local steps.

  Attributes:
    limit: [] seconds, when the round ends.
    late: [K] bool, stragglers, whose update does not come.
    steps: [K] int32, local steps that a device takes.
    share: [K] of those planned.
  """

  limit: Array
  late: Array
  steps: Array
  share: Array


def round_end(
  kind: str, wait: Array, cost: Costs, works: Array, steps: Array
) -> RoundEnd:
  """Finds the stragglers of a round, or the steps that fit before its end.

  Args:
    kind: `lost` or `partial`.
    wait: [] in medians of the participants' seconds.
    cost: of the round as planned, [K].
    works: [K] bool, participants.
    steps: [K] int32, local steps as planned.
  """
  limit = wait * jnp.nanmedian(jnp.where(works, cost.seconds, jnp.nan))
  if kind == 'lost':
    late = works & (cost.seconds > limit)
    return RoundEnd(limit, late, steps, jnp.ones(steps.shape))
  transfer = cost.sending + cost.receiving
  compute = jnp.maximum(cost.seconds - transfer, 1e-30)
  fits = jnp.clip((limit - transfer) / compute, 0.0, 1.0)
  # Not one step less for rounding where the time is enough.
  fits = jnp.where(cost.seconds <= limit, 1.0, fits)
  taken = jnp.floor(fits * steps).astype(jnp.int32)
  share = taken / jnp.maximum(steps, 1)
  return RoundEnd(limit, works & (taken == 0), taken, share)


def arrived(plan: Plan, late: Array) -> Plan:
  """Removes the stragglers' work from the plan, as the server sees it."""
  return plan._replace(
    trained=plan.trained & ~late[:, None],
    counted=jnp.where(late[:, None], 0.0, plan.counted),
  )
