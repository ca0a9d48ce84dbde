"""Measures the recovery after a sensor fails or comes back. **Ours.**"""

import statistics
from collections.abc import Sequence
from typing import Any

from relief_jax.errors import InputError

# Of the accuracy before an event, when it is over.
TOLERANCE = 0.95
_BEFORE = 5  # evaluations


def parts(
  history: Sequence[dict[str, Any]], first: int, until: int, key: str
) -> tuple[list, list, list]:
  """Splits evaluations into before, during and after an outage.

  Each is a list of (round, value).

  Args: as `recovery`.
  """
  points = [(r['round'], r[key]) for r in history if r.get(key) is not None]
  # A record is about the rounds before its number.
  return (
    [p for p in points if p[0] <= first],
    [p for p in points if first < p[0] <= until],
    [p for p in points if p[0] > until],
  )


def recovery(
  history: Sequence[dict[str, Any]],
  first: int,
  until: int,
  key: str = 'prequential',
) -> dict[str, Any]:
  """Counts the rounds until accuracy on arrivals recovers; finds its lowest.

  The level before an event is the mean over the last five evaluations, so that
  a run that still learns is not held to what it knew long ago. The event is
  over at the first evaluation at 95 % of the level or more; a sensor that is
  missing may well leave a lower level for ever. The return is measured against
  the level before the failure.

  Args:
    history: records of a run, in order.
    first: the first round without the sensor.
    until: the first round with it again.
    key: what is measured in every record but that of round 0.

  Returns:
    `before`, the level; `lowest` during the outage; `failure` and `return`,
    rounds until it is over, None where it is not: a failure until the sensor is
    back, a return until the run ends.

  Raises:
    InputError: no evaluation before, during or after the outage.
  """
  before, during, after = parts(history, first, until, key)
  if not (before and during and after):
    raise InputError(
      f'{len(before)}, {len(during)} and {len(after)} evaluations before, '
      f'during and after an outage in rounds {first} to {until}',
      f'at least one each with {key!r}',
      'set --config.eval_every=1 and a stream (--config.online.stream.buffer)',
    )
  level = statistics.fmean(v for _, v in before[-_BEFORE:])

  def back(points, begin):
    for number, value in points:
      if value >= TOLERANCE * level:
        return number - begin
    return None

  return {
    'before': level,
    'lowest': min(v for _, v in during),
    'failure': back(during, first),
    'return': back(after, until),
  }
