"""Trains one model on devices and a server together, step by step.

A device holds some blocks, `Plan.held`, the server the others. In each local
step every device's loss goes through both, and

    theta[n,l] -= lr grad L_n                    blocks that device n holds
    phi[l]     -= lr sum_n p[n] grad L_n         the server's, over the others

all with the local optimiser. With the weight p[n] only in the server's sum: a
server that sent back gradients of the weighted loss would move a device by
p[n], and the mean at the end by p[n]^2. At the end of a round

    base[l] += sum_n p[n] (theta[n,l] - base[l]) + (phi[l] - base[l])

with the first sum over the devices that hold block l; p[n] of a block adds up
to 1 over all that count there, whoever holds it. So with one step a round this
is SGD on the union of the batches, wherever each device splits the model; with
all on the devices FedAvg; with all on the server SGD of I steps (**ours**; the
arithmetics are those of parallel split learning and SplitFed V2).

Only the devices' blocks are kept for each of them. `pooled` is a round's
steps; `in_turn` serves one device after another instead, in an order that is
drawn for the round and has nothing to do with speed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from relief_jax import optimizers, tree
from relief_jax.aggregation.mean import Mean
from relief_jax.clients import batches, training
from relief_jax.clients import device as devices
from relief_jax.clients.device import Known, Row, Update
from relief_jax.clients.records import Steps
from relief_jax.engine import placement
from relief_jax.rounds.method import Lockstep, Method
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
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


class Kept(NamedTuple):
  """Holds the part of a device that is never averaged.

  Attributes:
    params: part of P.
    held: [G] bool, blocks of it that the device held in its last round.
  """

  params: PyTree
  held: Array


class Together(NamedTuple):
  """Holds what all devices of a round see.

  Attributes:
    shared: what they know and received, `parallel.Shared`.
    params: P, the server's.
    total: [G] sum of the devices' weights.
  """

  shared: Any
  params: PyTree
  total: Array


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


def averaged(lockstep: Lockstep, plan: Plan) -> Array:
  """Marks what the devices' updates move in the mean, [K, G] bool."""
  return plan.trained & plan.held & lockstep.merged


def with_server(task: Task, mean: Mean, moved: PyTree, plan: Plan) -> Mean:
  """Adds the change of the server's part to the mean of the devices' updates.

  Args:
    task: the model.
    mean: of the devices.
    moved: P, change of the server's part.
    plan: of the round.
  """
  served = (plan.trained & ~plan.held).any(0)
  here = tree.broadcast_groups(task.groups, served)
  return mean._replace(
    delta=jax.tree.map(jnp.add, mean.delta, moved),
    touched=jax.tree.map(jnp.logical_or, mean.touched, here),
  )


def train(
  task: Task,
  setting: Setting,
  method: Method,
  wrap: Callable[[Callable], Callable],
  finish: Callable[..., tuple[PyTree, Any]],
  together: Together,
  rows: Row,
  work: Array,
) -> tuple[PyTree, Any, PyTree]:
  """Trains a round's devices and server.

  Args:
    task: the model.
    setting: of the round.
    method: with `lockstep`.
    wrap: of a client function, `rounds/wrappers.py`.
    finish: (Update, Device, Known, Row) -> (sums, record), of one client.
    together: what all devices see.
    rows: [K] participants.
    work: [K] predicted work of each.

  Returns:
    The sums over the devices, their records [K, ...], and P, how much the
    server's part changed.
  """
  lockstep: Any = method.lockstep
  if lockstep.in_turn:  # nobody is trained beside another
    setting = setting._replace(layout=placement.Layout())
  on_device, on_server = (
    parts(task, chosen) for chosen in (lockstep.device, lockstep.server)
  )

  def body(together: Together, rows: Row, each):
    known, received = together.shared
    tx = setting.client_tx(known.hparams, known.round_index)
    place = Place(task, setting, lockstep, known, together.total, tx)

    def begin(shared, row):
      steps = batches.local_steps(
        known.step_key, setting, known.hparams, row.fleet, row.windows, row.run
      )
      if row.batch is not None:
        steps = batches.smaller(steps, row.batch)
      params = tree.part(on_device, method.model(shared, row.store.method))
      return (), (Side(params, tx.init(params)), steps)

    def end(present, shared, row):
      del present  # all of it: a round in lockstep has no buckets
      known, received = shared
      args, side, loss, told = row.args
      row = row._replace(args=args)
      device = devices.make(task, setting, known, row)
      start = received.params
      trained = row.trained & row.held & lockstep.merged
      after = tree.join(on_device, side.params, start)
      mask = tree.broadcast_groups(task.groups, trained)
      update = Update(
        delta=jax.tree.map(
          lambda a, b: a - b, tree.select(mask, after, start), start
        ),
        weight=row.weight,
        mask=mask,
        loss=loss,
        rows=told,
        client_state=row.store.method
        if lockstep.merged
        else Kept(side.params, row.held),
      )
      return finish(update, device, known, row)

    _, (sides, steps) = each(begin, received, rows)
    first = tree.part(on_server, together.params)
    server = Side(first, tx.init(first))
    inner = None if lockstep.in_turn else each

    def one(carry, given):
      number, step = given
      here = place._replace(step=number)
      *carry, losses, told = lockstep.step(here, *carry, rows, step, inner)
      return tuple(carry), (losses, told)

    def turned(values):
      return jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), values)

    by_step = turned(steps)
    numbers = jnp.arange(len(by_step.row))
    (server, sides), (losses, told) = jax.lax.scan(
      one, (server, sides), (numbers, by_step)
    )
    real = (steps.weight > 0).any(-1).sum(-1)
    loss = losses.sum(0) / jnp.maximum(real, 1)
    rows = rows._replace(args=(rows.args, sides, loss, turned(told)))
    sums, records = each(wrap(end), together.shared, rows)
    moved = jax.tree.map(jnp.subtract, server.params, first)
    nothing = jax.tree.map(jnp.zeros_like, together.params)
    return (sums, tree.join(on_server, moved, nothing)), records

  if lockstep.in_turn:
    each = partial(placement.each_client, 1, placement.Layout())
    (sums, moved), records = body(together, rows, each)
  else:
    (sums, moved), records = placement.over_devices(
      body, together, rows, setting.layout, work
    )
  return sums, records, moved


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

  def work(side):
    params = place.whole(side.params, server, row.held)
    loss, more = device.loss(place.task), None
    if penalty:
      more = penalty(place, row, server, step)

    def objective(params, step):
      value = loss(params, step)
      return value + more(params) if more else value

    value, grads, told = gradient(objective, params, step)
    weight = place.spread(mine.astype(jnp.float32))
    own = tree.scale(weight, tree.part(on_device, grads))
    found, opt_state, _ = training.gated_step(
      place.tx, side.params, own, side.opt_state, weight
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


def apart(task: Task, method: Method) -> Method:
  """Leaves the devices' parts where they are: they are never averaged.

  A device tests its own part in front of the server's. A block that it did not
  hold before comes from the server once.

  Args:
    task: the model.
    method: with `lockstep`.
  """
  lockstep: Any = method.lockstep
  lockstep = lockstep._replace(merged=False)
  on_device = parts(task, lockstep.device)

  everywhere = lockstep._replace(server=np.ones(task.num_blocks, bool))

  def joined(kept: Kept, params: PyTree) -> PyTree:
    return whole(task, everywhere, kept.params, params, kept.held)

  return method._replace(
    lockstep=lockstep,
    client_init=lambda params: Kept(
      tree.part(on_device, params), jnp.ones(task.num_blocks, bool)
    ),
    model=lambda received, kept: joined(kept, received.params),
    evaluate=lambda server, kept: jax.vmap(joined, (0, None))(
      kept, server.params
    ),
    traits=method.traits._replace(personal=True),
  )
