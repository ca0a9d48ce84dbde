"""Finds who starts and whose update arrives next, by simulated time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.rounds.method import Events
from relief_jax.settings import Setting
from relief_jax.types import Array


class Arrivals(NamedTuple):
  """Holds what happens until the end of a step.

  Attributes:
    taken: [N] bool, arrived.
    started: [N] bool, started meanwhile.
    left: [N] seconds from the begin of the step to each one's arrival.
    elapsed: [] seconds of the step.
  """

  taken: Array
  started: Array
  left: Array
  elapsed: Array


def following(
  setting: Setting,
  events: Events,
  draw: Array,
  busy: Array,
  left: Array,
  works: Array,
  seconds: Array,
) -> tuple[Arrivals, Array]:
  """Starts devices and finds who arrives next; also the tiers, [N] int32.

  Args:
    setting: of the round.
    events: of the method.
    draw: [N], those of the least start.
    busy: [N] bool, at work at the begin of the step.
    left: [N] seconds until they arrive.
    works: [N] bool, who can start.
    seconds: [N] that each takes.
  """
  idle, tier = works & ~busy, jnp.zeros(works.shape, jnp.int32)
  if events.tiers:
    tier = tiers_of(seconds, works, events.tiers)
    there = jnp.zeros(events.tiers, bool).at[tier].max(busy)
    starts = idle & ~there[tier]
    starts &= _rank(draw, starts, tier) < events.buffer
  elif setting.cohort == setting.clients:
    starts = idle
  else:
    starts = idle & (_rank(draw, idle) < setting.cohort - busy.sum())
  out = busy | starts
  left = jnp.where(starts, seconds, left)
  if events.tiers:
    ends = jnp.full(events.tiers, -jnp.inf)
    ends = ends.at[tier].max(jnp.where(out, left, -jnp.inf))
    ends = jnp.where(ends >= 0, ends, jnp.inf)
    first = ends.argmin()
    taken = out & (tier == first)
    elapsed = jnp.where(taken.any(), ends[first], 0.0)
  elif events.buffer == setting.clients:
    taken, elapsed = out, jnp.where(out, left, 0.0).max()
  else:
    found = _one_by_one(events.buffer, out, left, idle & ~starts, draw, seconds)
    return found._replace(started=found.started | starts), tier
  return Arrivals(taken, starts, left, elapsed), tier


def _one_by_one(
  count: int, out: Array, left: Array, idle: Array, draw: Array, seconds: Array
) -> Arrivals:
  """Lets updates arrive in the order of time, and others start meanwhile.

  Args:
    count: K.
    out: [N] bool, at work.
    left: [N] seconds to their arrival.
    idle: [N] bool, who may start.
    draw: [N], the least one starts.
    seconds: [N] that each takes.
  """
  place = jnp.arange(out.size)

  def one(carry, number):
    out, idle, found = carry
    time = jnp.where(out, found.left, jnp.inf)
    first, real = time.argmin(), out.any()
    clock = jnp.maximum(found.elapsed, jnp.where(real, time[first], 0.0))
    arrives = (place == first) & real
    # Who starts with the last arrival starts with the next version.
    more = real & (number < count - 1)
    starts = (place == jnp.where(idle, draw, jnp.inf).argmin()) & idle & more
    return (
      (out & ~arrives) | starts,
      idle & ~starts,
      Arrivals(
        found.taken | arrives,
        found.started | starts,
        jnp.where(starts, clock + seconds, found.left),
        clock,
      ),
    ), None

  nobody = jnp.zeros_like(out)
  begin = Arrivals(nobody, nobody, left, jnp.zeros(()))
  (_, _, found), _ = jax.lax.scan(one, (out, idle, begin), jnp.arange(count))
  return found


def tiers_of(seconds: Array, works: Array, tiers: int) -> Array:
  """Cuts devices into tiers of equal size by their time, [N] int32.

  Who cannot work is in the last one.

  >>> tiers_of(jnp.array([3.0, 1, 0, 2, 9]), jnp.arange(5) != 2, 2).tolist()
  [1, 0, 1, 0, 1]

  Args:
    seconds: [N].
    works: [N] bool.
    tiers: their number.
  """
  place = _rank(seconds, works)
  tier = place * tiers // jnp.maximum(works.sum(), 1)
  return jnp.where(works, tier, tiers - 1).astype(jnp.int32)


def _rank(values: Array, among: Array, tier: Array | None = None) -> Array:
  """Ranks values among some, each within its tier, [N] int32 from 0."""
  order = jnp.argsort(jnp.where(among, values, jnp.inf), stable=True)
  place = jnp.arange(order.size)
  if tier is not None:
    order = order[jnp.argsort(tier[order], stable=True)]
    before = tier[order]
    place -= jnp.searchsorted(before, before)
  return jnp.zeros_like(place).at[order].set(place)
