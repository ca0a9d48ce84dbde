"""Turns a deadline into a device's budget. **Ours.**

The budget of device n is b_n = speed_n * T_th * deadline, in FLOPs per sample
(the batch cancels), with T_th the time in which the *fastest* device trains all
it owns. Two named deadlines:

- `tight`: the smallest at which every device can train its fusion columns and
  the shared groups, hence the fastest round that leaves nobody out;
- `full`: the smallest at which everybody trains all it owns.

Both are computed on the host from `costs.step_flops` and raised by `SLACK`, so
that a float32 comparison `F_n <= b_n` under any order of summation admits the
sets they promise.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from relief_jax.costs import step_flops
from relief_jax.errors import InputError
from relief_jax.task import Work
from relief_jax.types import Array, Fleet

# Relative. float32 rounds to 6e-8 per operation; a sum over a hundred groups
# stays below 1e-5.
SLACK = 1e-5

KINDS = ('tight', 'full', 'none')
NUMBERS = "a positive number, or a multiple such as '1.5*tight'"
_LARGEST = 1e9


def is_number(kind: str) -> bool:
  """Tells whether a deadline is one of `NUMBERS`.

  >>> is_number('2.5'), is_number('1.5*tight'), is_number('nan')
  (True, True, False)
  """
  factor, times, name = kind.partition('*')
  if times and name not in ('tight', 'full'):
    return False
  try:
    return 0 < float(factor) <= _LARGEST  # NaN fails both
  except ValueError:
    return False


def _owned_groups(fleet, group_modality):
  """Marks shared groups and those of installed modalities, [N, G] bool."""
  modality = np.asarray(group_modality)
  return np.where(modality < 0, True, np.asarray(fleet.owned)[:, modality])


def _flops(fleet, work, train):
  """Computes F_n of training `train` [N, G], all own branches run, [N].

  float64.
  """
  return np.asarray(step_flops(work, fleet.owned, train), np.float64)


def _smallest(fleet, needed):
  """Finds the deadline at which every device affords `needed` [N] FLOPs.

  Padding clients do not count.
  """
  real = np.asarray(fleet.samples) > 0
  budget = np.asarray(fleet.budget, np.float64)
  return float((needed / budget)[real].max() * (1 + SLACK))


def reference_seconds(
  fleet: Fleet, work: Work, group_modality: Sequence[int]
) -> float:
  """Computes T_th: seconds per sample of the fastest device on all it owns.

  Of equally fast devices the one with most to train counts. Padding clients
  do not.

  Args:
    fleet: [N] clients.
    work: FLOPs per sample of the model's parts.
    group_modality: [G] ints, -1 for shared.

  Returns:
    Seconds per sample.
  """
  speed = np.asarray(fleet.speed, np.float64)
  real = np.asarray(fleet.samples) > 0
  fastest = real & (speed == speed[real].max())
  flops = _flops(fleet, work, _owned_groups(fleet, group_modality))
  return float((flops[fastest] / speed[fastest]).max())


def with_budgets(
  fleet: Fleet, work: Work, group_modality: Sequence[int]
) -> Fleet:
  """Gives the fleet budgets at a deadline of 1, in FLOPs per sample.

  Args:
    fleet: [N] clients.
    work: FLOPs per sample of the model's parts.
    group_modality: [G] ints, -1 for shared.
  """
  seconds = reference_seconds(fleet, work, group_modality)
  return dataclasses.replace(fleet, budget=fleet.speed * np.float32(seconds))


def tight(
  fleet: Fleet, work: Work, group_modality: Sequence[int], least: Array
) -> float:
  """Finds the smallest deadline at which all train the least of a model.

  On a device without a sensor without the groups of that sensor.

  Args:
    fleet: [N] clients with budgets.
    work: FLOPs per sample of the model's parts.
    group_modality: [G] ints, -1 for shared.
    least: [G] bool, as `blocks.least`.

  Returns:
    A deadline, in units of T_th.
  """
  train = _owned_groups(fleet, group_modality) & np.asarray(least)
  return _smallest(fleet, _flops(fleet, work, train))


def full(fleet: Fleet, work: Work, group_modality: Sequence[int]) -> float:
  """Finds the smallest deadline at which everybody trains all it owns.

  Args:
    fleet: [N] clients with budgets.
    work: FLOPs per sample of the model's parts.
    group_modality: [G] ints, -1 for shared.

  Returns:
    A deadline, in units of T_th.
  """
  train = _owned_groups(fleet, group_modality)
  return _smallest(fleet, _flops(fleet, work, train))


def resolve(
  kind: str | float,
  fleet: Fleet,
  work: Work,
  group_modality: Sequence[int],
  least: Array,
) -> float:
  """Computes the number behind `config.deadline`.

  Args:
    kind: 'tight', 'full', 'none', a number, also as a string, or a multiple
      such as '1.5*tight'.
    fleet: [N] clients with budgets.
    work: FLOPs per sample of the model's parts.
    group_modality: [G] ints, -1 for shared.
    least: [G] bool, as `blocks.least`.

  Returns:
    A deadline, in units of T_th; infinite for 'none'.

  Raises:
    InputError: neither a name nor a positive number.
  """
  if kind == 'none':
    return math.inf
  if kind == 'tight':
    return tight(fleet, work, group_modality, least)
  if kind == 'full':
    return full(fleet, work, group_modality)
  if isinstance(kind, bool) or not is_number(str(kind)):
    raise InputError(
      f'config.deadline is {kind!r}',
      f'{", ".join(map(repr, KINDS))}, {NUMBERS}',
      'set --config.deadline=tight',
    )
  factor, times, name = str(kind).partition('*')
  if times:
    # Between the two a device may afford some of its groups: a real choice.
    return float(factor) * resolve(name, fleet, work, group_modality, least)
  return float(factor)


def check(
  fleet: Fleet,
  work: Work,
  always: Array,
  deadline: float,
  tiers: Sequence[str] = (),
  sit_out: bool = False,
) -> np.ndarray:
  """Finds devices that can take part: forward pass and shared groups fit.

  Args:
    fleet: [N] clients with budgets.
    work: FLOPs per sample of the model's parts.
    always: [G] bool, groups that every device trains (`Blocks.always`).
    deadline: from `resolve`.
    tiers: names in the order of `fleet.tier`, for the message.
    sit_out: leave devices out that are too slow, where it is not everybody.

  Returns:
    [N] bool; padding clients never take part.

  Raises:
    InputError: devices are too slow and may not sit out, or all would.
  """
  train = np.broadcast_to(always, (len(fleet.owned), len(always)))
  needed = _flops(fleet, work, train)
  real = np.asarray(fleet.samples) > 0
  # As a round compares: in float32.
  budget = np.asarray(fleet.budget) * np.float32(deadline)
  able = real & (needed.astype(np.float32) <= budget)
  slow = real & ~able
  if slow.any() and not (sit_out and able.any()):
    numbers = np.unique(np.asarray(fleet.tier)[slow])
    names = [tiers[t] if t < len(tiers) else str(t) for t in numbers]
    smallest = _smallest(fleet, needed)
    # Rounded up, so that the figure in the message works when typed.
    digits = 10.0 ** (3 - math.floor(math.log10(smallest)))
    cure = f'set --config.deadline={math.ceil(smallest * digits) / digits:g}'
    raise InputError(
      f'{slow.sum()} of {real.sum()} devices (tier {", ".join(names)}) with a '
      f'budget at deadline {deadline:g} below their own forward pass and the '
      'training of the shared groups',
      'a budget with which every device can start',
      cure + ' or tight, or --config.over_budget=sit_out',
    )
  return able
