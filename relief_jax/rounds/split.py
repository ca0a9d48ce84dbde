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

Only the devices' blocks are kept for each of them. Those are the steps
`split_steps.pooled`; `split_steps.in_turn` serves one device after another
instead, in an order that is drawn for the round and has nothing to do with
speed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.aggregation.mean import Mean
from relief_jax.clients import batches
from relief_jax.clients import device as devices
from relief_jax.clients.device import Row, Update
from relief_jax.engine import placement
from relief_jax.rounds import split_steps
from relief_jax.rounds.method import Lockstep, Method
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, PyTree


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
    split_steps.parts(task, chosen)
    for chosen in (lockstep.device, lockstep.server)
  )

  def body(together: Together, rows: Row, each):
    known, received = together.shared
    tx = setting.client_tx(known.hparams, known.round_index)
    place = split_steps.Place(
      task, setting, lockstep, known, together.total, tx
    )

    def begin(shared, row):
      steps = batches.local_steps(
        known.step_key, setting, known.hparams, row.fleet, row.windows, row.run
      )
      if row.batch is not None:
        steps = batches.smaller(steps, row.batch)
      params = tree.part(on_device, method.model(shared, row.store.method))
      return (), (split_steps.Side(params, tx.init(params)), steps)

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
    server = split_steps.Side(first, tx.init(first))
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
  on_device = split_steps.parts(task, lockstep.device)

  everywhere = lockstep._replace(server=np.ones(task.num_blocks, bool))

  def joined(kept: Kept, params: PyTree) -> PyTree:
    return split_steps.whole(task, everywhere, kept.params, params, kept.held)

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
