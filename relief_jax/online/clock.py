"""Tells the second of a trace at which a round begins. **Ours.**

A round begins every `seconds` of the trace, however long the round itself
takes, and each device's trace begins again after its own `period`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from relief_jax.types import Array

LONGEST = 2_000_000  # seconds of a trace, so that products of them are int32
_MANY = 1024  # rounds that are counted at once


class Clock(NamedTuple):
  """Holds where devices are in their traces; in seconds, int32.

  Attributes:
    period: [N] after which a trace begins again.
    seconds: [] from a round to the next.
    many: [N] seconds of `_MANY` rounds, within the period.
  """

  period: Array
  seconds: Array
  many: Array


def make(period: NDArray[np.int64], seconds: int) -> Clock:
  """Builds a clock.

  Args:
    period: [N] seconds, from 1 to `LONGEST`.
    seconds: from a round to the next.
  """
  return Clock(
    period=jnp.asarray(period, jnp.int32),
    seconds=jnp.int32(seconds),
    many=jnp.asarray(_MANY * seconds % period, jnp.int32),
  )


def second(clock: Clock, place: Array, round_index: Array) -> Array:
  """Computes the second of each participant's trace, [K] int32.

  Args:
    clock: of all clients.
    place: [K] places in the population.
    round_index: [] int32.
  """
  period = clock.period[place]
  passed = round_index // _MANY * clock.many[place] % period
  passed += round_index % _MANY * clock.seconds % period
  return passed % period


def valid(value: Any) -> bool:
  """Tells whether a value is a second of a trace."""
  whole = isinstance(value, int) and not isinstance(value, bool)
  return whole and 0 <= value <= LONGEST
