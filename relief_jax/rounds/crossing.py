"""Computes a device's part and the server's apart, with what crosses between.

For methods that look at activations or gradients at the split; where only the
parameters count, rounds/split.py takes the gradient of both parts at once.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients import training
from relief_jax.clients.device import Row
from relief_jax.clients.records import Batch, Gate, Steps
from relief_jax.errors import InputError
from relief_jax.rounds.split_steps import Place
from relief_jax.task import SplitPoints
from relief_jax.types import Array, PyTree


class Crossing(NamedTuple):
  """Describes one split; static.

  Attributes:
    points: of the model.
    at: its number.
  """

  points: SplitPoints
  at: int


def inside(points: SplitPoints, at: int, method: str) -> Crossing:
  """Gives a split with something on either side.

  Args:
    points: of the model.
    at: its number.
    method: its name, for messages.

  Raises:
    InputError: all is on one side.
  """
  if not 0 < at < len(points.layers) - 1 or not any(points.held[at]):
    whole = 'whole model' if at else 'inputs going up'
    raise InputError(
      f'a split with the {whole} for {method}',
      'something that trains on the device and something at the server',
      f'set --config.{method}.layers=-2',
    )
  return Crossing(points, at)


def inputs(place: Place, row: Row, step: Steps) -> list[Array]:
  """Takes a batch of a device, [M] of [B, ...].

  Args:
    place: of the round.
    row: of the device.
    step: its step.

  Raises:
    InputError: sensors with faults.
  """
  if step.shift is not None:
    raise InputError(
      'sensor faults for a method that looks at what crosses',
      'sensors as they are',
      'leave the keys of --config.sensor_faults at 0',
    )
  task, population = place.task, place.known.population
  batch = Batch(population.bank, step.row, step.weight)
  gate = Gate(step.run, step.sensed, row.trained)

  def window(m):
    # A branch of its own: fused into a layer the gather is slow on CPUs.
    given = partial(training.inputs_of, task, batch, gate, m)
    if not place.branch:
      return given(False)
    zeros = tree.zeros_like_output(lambda: given(True))
    return jax.lax.cond(step.run[m], lambda: given(True), lambda: zeros)

  return [window(m) for m in range(len(task.modalities))]


def front(
  place: Place, crossing: Crossing, row: Row, step: Steps
) -> Callable[[PyTree], PyTree]:
  """Builds a device's part, P -> z.

  Args:
    place: of the round.
    crossing: the split.
    row: of the device.
    step: its step.
  """
  values, frozen = inputs(place, row, step), place.known.population.frozen

  def run(params):
    return crossing.points.front(
      crossing.at, params, frozen, values, step.run, place.branch
    )

  return run


def back(
  place: Place, crossing: Crossing, step: Steps
) -> Callable[[PyTree, PyTree], Array]:
  """Builds the server's part and the loss, (P, z) -> [].

  Args:
    place: of the round.
    crossing: the split.
    step: of the device.
  """
  population, criterion = place.known.population, training.criterion(place.task)

  def loss(params, z):
    scores = crossing.points.back(
      crossing.at, params, population.frozen, z, step.run, place.branch
    )
    return criterion(scores, population.bank.y[step.row], step.weight)

  return loss


def tokens(z: PyTree, step: Steps) -> list[tuple[Array, Array]]:
  """Lays out what crosses by token, [(features [B, T, f], there [B, T]), ...].

  Args:
    z: of `SplitPoints.front`, of one array for each sensor, or of tokens.
    step: of the device.
  """
  size = len(step.weight)
  real = (step.weight > 0).astype(jnp.float32)
  if isinstance(z, dict):
    x = z['x'].reshape(size, -1, z['x'].shape[-1])
    return [(x, z['seen'] * real[:, None])]
  found = []
  for m, leaf in enumerate(z):
    x = leaf.reshape(size, -1, leaf.shape[-1])
    there = jnp.where(step.run[m], real, 0.0)
    found.append((x, jnp.broadcast_to(there[:, None], x.shape[:2])))
  return found


def when(
  place: Place,
  row: Row,
  step: Steps,
  work: Callable[[PyTree], PyTree],
  rest: Callable[[PyTree], PyTree] | None,
  value: PyTree,
) -> PyTree:
  """Gives work(value) of a device that takes the step.

  Args:
    place: of the round.
    row: of the device.
    step: its step, of padding only where it takes none.
    work: of one that does.
    rest: of one that does not; None: zeros.
    value: its argument.
  """
  active = row.active & (step.weight > 0).any()
  work = tree.traced_once(work)

  def nothing(value):
    return tree.zeros_like_output(work, value)

  return tree.choose(active, work, rest or nothing, value, branch=place.branch)
