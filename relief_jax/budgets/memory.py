"""Keeps what devices train within their memory (**ours**).

A device of a fleet with `memory_mb` holds what `costs.training_bytes` counts,
or does not train: a method that chooses under a budget never chooses what does
not fit, and a device that cannot hold what any plan has it train is refused, or
sits out with `over_budget=sit_out`, as one that is too slow.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.errors import InputError
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet

# No price of what does not fit may be within a budget, not even an infinite.
LARGEST = float(np.finfo(np.float32).max) / 2


class Limit(NamedTuple):
  """Holds the bounds of devices' training.

  Attributes:
    budget: [K] FLOPs per sample.
    memory: [K] bytes, None where nobody has a bound.
  """

  budget: Array
  memory: Array | None


class Step(NamedTuple):
  """Describes a local step, as far as memory depends on it; static.

  Attributes:
    batch: samples.
    slots: numbers that the optimiser keeps per parameter.
  """

  batch: int
  slots: float


def needed(
  task: Task, step: Step, run: Array, train: Array, held: Array | None = None
) -> Array:
  """Computes the memory of training, [...] bytes.

  Args:
    task: the model, its memory counted.
    step: a local one.
    run: [..., M] bool, branches on the device.
    train: [..., G] bool.
    held: [..., G] bool, blocks on the device; None: those of its branches.
  """
  assert task.memory is not None  # counted where a fleet has bounds
  if held is None:
    held = blocks.owned_groups(run, task.blocks.modality)
  return costs.training_bytes(
    task.memory, task.work, held, train, step.batch, step.slots
  )


def priced(
  task: Task,
  step: Step,
  run: Array,
  limit: Limit,
  flops: Callable[[Array], Array] | None = None,
  held: Callable[[Array], Array] | None = None,
) -> tuple[Callable[[Array], Array], Array]:
  """Gives the price of a device's sets of blocks, and its budget.

  Args:
    task: the model.
    step: a local one.
    run: [M] bool, branches that run.
    limit: of one device.
    flops: [..., G] bool, what trains -> [...] FLOPs per sample; None: those of
      `costs.step_flops`.
    held: likewise -> [..., G] bool, blocks on the device; None as in `needed`.

  Returns:
    [..., G] bool -> [...] FLOPs per sample, infinite for what does not fit into
    its memory; and [] FLOPs per sample.
  """

  flops = flops or (lambda train: costs.step_flops(task.work, run, train))
  if limit.memory is None:
    return flops, limit.budget
  most: Array = limit.memory

  def price(train):
    used = needed(task, step, run, train, held(train) if held else None)
    return jnp.where(used <= most, flops(train), jnp.inf)

  return price, jnp.minimum(limit.budget, LARGEST)


def within(
  task: Task, step: Step, plan: Plan, fleet: Fleet
) -> tuple[Plan, Array]:
  """Leaves devices out whose plan does not fit; also the memory of the rest.

  Args:
    task: the model.
    step: a local one.
    plan: of the round.
    fleet: [K] participants with bounds.

  Returns:
    The plan, and [K] bytes, 0 for who sits out.

  Raises:
    InputError: a method of sub-models.
  """
  if plan.cost.memory is None and plan.cost.work is not None:
    raise InputError(
      'a fleet with memory_mb for a method that trains parts of blocks',
      'whole blocks: the memory of other sub-models is not counted',
      'leave the column out of the fleet',
    )
  used = plan.cost.memory
  if used is None:
    used = needed(task, step, plan.run, plan.trained)
  most: Any = fleet.memory
  fits = used <= most
  inside = fits[:, None]
  found = plan._replace(
    run=plan.run & inside,
    trained=plan.trained & inside,
    counted=jnp.where(inside, plan.counted, 0.0),
  )
  works = fits & costs.working(fleet, found)
  return found, jnp.where(works, used, 0.0)


def every(
  task: Task, step: Step, fleet: Fleet, everywhere: bool, train: np.ndarray
) -> np.ndarray:
  """Computes the memory of each device that trains what it has of `train`.

  Args:
    task: the model.
    step: a local one.
    fleet: [N].
    everywhere: absent sensors' branches run too.
    train: [G] bool.

  Returns:
    [N] bytes.
  """
  run, access = blocks.reach(fleet, task.blocks.modality, everywhere)
  return np.asarray(needed(task, step, run, access & train[None]))


def check(
  task: Task,
  step: Step,
  fleet: Fleet,
  everywhere: bool,
  budgeted: bool,
  tiers: Sequence[str],
  sit_out: bool,
) -> None:
  """Refuses a fleet whose devices cannot hold what they must train.

  Args:
    task: the model.
    step: a local one.
    fleet: [N].
    everywhere: absent sensors' branches run too.
    budgeted: the method chooses; the shared blocks must fit. Else all must.
    tiers: names in the order of `fleet.tier`.
    sit_out: leave such devices out, where it is not everybody.

  Raises:
    InputError: such devices, that may not sit out.
  """
  if fleet.memory is None:
    return
  must = task.blocks.always | (not budgeted)
  used = every(task, step, fleet, everywhere, must)
  real = np.asarray(fleet.samples) > 0
  able = real & (used <= np.asarray(fleet.memory))
  small = real & ~able
  if not small.any() or (sit_out and able.any()):
    return
  numbers = np.unique(np.asarray(fleet.tier)[small])
  names = [tiers[t] if t < len(tiers) else str(t) for t in numbers]
  what = 'the shared blocks' if budgeted else 'all that they own'
  raise InputError(
    f'{small.sum()} of {real.sum()} devices (tier {", ".join(names)}) with '
    f'less memory than training {what} takes, {used[small].max() / 1e6:.3g} MB',
    'a memory_mb that holds what every device must train',
    'raise it, lower --config.batch, or set --config.over_budget=sit_out',
  )
