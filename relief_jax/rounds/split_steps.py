"""Takes one local step of devices and a server that train one model.

`pooled` and `in_turn` are the two kinds of rounds/split.py; a method of its own
is made of `local_step` and `server_step`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import optimizers, tree
from relief_jax.clients import batches, training
from relief_jax.clients import device as devices
from relief_jax.clients.device import Known, Row
from relief_jax.clients.records import Steps
from relief_jax.engine import placement
from relief_jax.rounds.method import Lockstep
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree

# Purpose of a device's key: its place in the order of a round.
_ORDER = 1


class Side(NamedTuple):
  """Holds what is trained in one place; None for parameters that are not there.

  Attributes:
    params: part of P.
    opt_state: of the optimiser.
  """

  params: PyTree
  opt_state: PyTree


class Place(NamedTuple):
  """Gathers what a local step needs beside what moves.

  Attributes:
    task: the model.
    setting: of the round.
    lockstep: of the method.
    known: to all devices.
    total: [G] sum of the devices' weights.
    tx: the local optimiser, of both sides.
    step: [] int32, number of the local step.
  """

  task: Task
  setting: Setting
  lockstep: Lockstep
  known: Known
  total: Array
  tx: optax.GradientTransformation
  step: Array | int = 0

  @property
  def branch(self) -> bool:
    """Tells whether a `lax.cond` on a device's values skips work."""
    return self.setting.layout.branch

  def spread(self, row: Array) -> PyTree:
    """Broadcasts [G] to a prefix tree of P."""
    return tree.broadcast_groups(self.task.groups, row)

  def whole(self, mine: PyTree, server: PyTree, held: Array) -> PyTree:
    """Assembles the model that one device's loss sees.

    Args:
      mine: its part.
      server: the server's.
      held: [G] bool, blocks that it holds.
    """
    return whole(self.task, self.lockstep, mine, server, held)


def whole(
  task: Task, lockstep: Lockstep, mine: PyTree, server: PyTree, held: Array
) -> PyTree:
  """Assembles a model of a device's part and the server's; see `Place`."""

  def leaf(g, a, b):
    if not lockstep.server[g]:
      return a
    if not lockstep.device[g]:
      return b
    return jax.tree.map(partial(jnp.where, held[g]), a, b)

  return jax.tree.map(leaf, task.groups, mine, server)


def parts(task: Task, chosen) -> PyTree:
  """Marks the parameters of some blocks, a prefix tree of Python bools.

  Args:
    task: the model.
    chosen: [G] bool, static.
  """
  return jax.tree.map(lambda g: bool(chosen[g]), task.groups)


def plain(loss, params: PyTree, step: Steps) -> tuple[Array, PyTree, PyTree]:
  """Computes a loss and its gradient, and tells nothing more.

  Args:
    loss: (params, step) -> [].
    params: P.
    step: of one device.
  """
  return *jax.value_and_grad(loss)(params, step), ()


def local_step(
  place: Place,
  server: PyTree,
  row: Row,
  side: Side,
  step: Steps,
  share: Array,
  gradient: Callable[..., tuple[Array, PyTree, PyTree]] = plain,
  penalty: Callable[..., Callable[[PyTree], Array]] | None = None,
) -> tuple[tuple[PyTree, Array], Side, tuple[Array, PyTree]]:
  """Takes one local step of one device.

  Args:
    place: of the round.
    server: the server's part of P.
    row: of the device.
    side: the device's.
    step: one of its steps.
    share: [G] of its gradient in the server's.
    gradient: (loss, params, step) -> loss, gradient P, what it tells beside.
    penalty: (place, row, the server's part, step) -> (P -> []), added to the
      loss.

  Returns:
    The server's gradient, times `share`, with [G] int32, what it is of; the
    device's side; [] loss and what the gradient tells, zeros without a step.
  """
  device = devices.make(place.task, place.setting, place.known, row)
  mine, theirs = row.trained & row.held, row.trained & ~row.held
  on_server = parts(place.task, place.lockstep.server)
  on_device = parts(place.task, place.lockstep.device)

  @tree.traced_once
  def work(side):
    params, more = place.whole(side.params, server, row.held), None
    own = place.lockstep.loss
    loss = own(place, row) if own else device.loss(place.task)
    if penalty:
      more = penalty(place, row, server, step)

    def objective(params, step):
      value = loss(params, step)
      return value + more(params) if more else value

    value, grads, told = gradient(objective, params, step)
    weight = place.spread(mine.astype(jnp.float32))
    kept = tree.scale(weight, tree.part(on_device, grads))
    found, opt_state, _ = training.gated_step(
      place.tx, side.params, kept, side.opt_state, weight
    )
    up = tree.scale(
      place.spread(jnp.where(theirs, share, 0.0)), tree.part(on_server, grads)
    )
    up = up, theirs.astype(jnp.int32)
    return up, Side(found, opt_state), (value, told)

  def rest(side):
    up, _, record = tree.zeros_like_output(work, side)
    return up, side, record

  active = row.active & (step.weight > 0).any()
  return tree.choose(active, work, rest, side, branch=device.branch)


def server_step(
  place: Place, server: Side, grads: PyTree, moved: Array
) -> Side:
  """Moves the server's part; see `moved_side`."""
  return moved_side(place.task, place.tx, server, grads, moved)


def moved_side(
  task: Task,
  tx: optax.GradientTransformation,
  side: Side,
  grads: PyTree,
  moved: Array,
) -> Side:
  """Takes a step; what has no gradient keeps its bits, the optimiser's too.

  Args:
    task: the model.
    tx: the optimiser.
    side: before.
    grads: of its parameters.
    moved: [G] blocks that have a gradient, above 0.
  """
  moved = moved > 0
  weight = tree.broadcast_groups(task.groups, moved.astype(jnp.float32))
  params, opt_state, _ = training.gated_step(
    tx, side.params, grads, side.opt_state, weight
  )
  mask = tree.broadcast_groups(task.groups, moved)
  return Side(params, optimizers.select(mask, opt_state, side.opt_state))


def pooled(
  place: Place,
  server: Side,
  sides: Side,
  rows: Row,
  steps: Steps,
  each: placement.Each,
  gradient: Callable[..., tuple[Array, PyTree, PyTree]] = plain,
):
  """Takes one step of all devices, then one of the server on all batches.

  Args:
    place: of the round.
    server: its side.
    sides: the devices'.
    rows: of the devices.
    steps: one of each.
    each: maps and sums over all of them.
    gradient: as in `local_step`.

  Returns:
    What `Lockstep.step` gives.
  """

  def client(known, row):
    del known  # for messages of the layout `debug`
    row, side, step = row
    share = tree.divide(row.weight, place.total)
    up, side, record = local_step(
      place, server.params, row, side, step, share, gradient
    )
    return up, (side, record)

  (grads, moved), (sides, (losses, told)) = each(
    client, place.known, (rows, sides, steps)
  )
  return server_step(place, server, grads, moved), sides, losses, told


def in_turn(
  place: Place,
  server: Side,
  sides: Side,
  rows: Row,
  steps: Steps,
  each: None,
  penalty: Callable[..., Callable[[PyTree], Array]] | None = None,
):
  """Serves one device after another: the server's part moves after each.

  Args: as `pooled`, and `penalty` as in `local_step`.
  """
  del each

  def client(carry, at):
    server, sides = carry
    row, side, step = jax.tree.map(lambda v: v[at], (rows, sides, steps))
    (grads, moved), side, record = local_step(
      place,
      server.params,
      row,
      side,
      step,
      jnp.ones(place.task.num_blocks),
      penalty=penalty,
    )
    sides = jax.tree.map(lambda v, own: v.at[at].set(own), sides, side)
    return (server_step(place, server, grads, moved), sides), record

  order = drawn_order(place.known, rows)
  (server, sides), record = jax.lax.scan(client, (server, sides), order)
  losses, told = jax.tree.map(lambda v: v[jnp.argsort(order)], record)
  return server, sides, losses, told


def drawn_order(known: Known, rows: Row) -> Array:
  """Draws the order in which devices are served, [K] of their places.

  Of their ids and the round's key, neither of places nor of speed.
  """
  keys = batches.client_keys(known.plan_key, rows.fleet)
  draw = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, _ORDER)))
  return jnp.argsort(draw(keys))
