"""Codes the two links between server and devices, and counts their bytes.

    down   theta_n = what arrives of the broadcast, the same for everybody
    up     u_n = what arrives of theta_n' - theta_n, trained blocks only

Either link may have a memory of the part that its code left out. A device's is
error feedback (Seide et al., 2014; Karimireddy et al., 2019,
https://arxiv.org/abs/1901.09847): what did not arrive is added to the next
update. The server's is the model as the devices know it: only the *change*
against that replica is coded, and the server, which sees what arrives, keeps
it (as in Philippenko and Dieuleveut, 2021, https://arxiv.org/abs/2102.12528).
All start from the same initial model, which follows from a seed. A device that
missed messages is sent all of them, or the replica in float32 where that is
less (**ours**).

Codes have a fixed length, so bytes follow from shapes (compressors/base.py).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import compressors, costs, tree
from relief_jax.compressors import Codec, Compressor, base
from relief_jax.compressors.none import NONE
from relief_jax.errors import InputError
from relief_jax.settings import Broadcast, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, PyTree
from relief_jax.updates import transform

# The two links, as purposes of a round's key and rows of `CostOverride.wire`.
UP, DOWN = range(2)


class Links(NamedTuple):
  """Describes both links; static.

  Attributes:
    up: codes updates.
    down: codes the broadcast.
    feedback: devices remember what did not arrive.
    replica: the change of the model is broadcast and not the model.
    air: how it is sent, where it may be lost (rateless.py); None: it arrives.
  """

  up: Compressor
  down: Compressor
  feedback: bool
  replica: bool
  air: Broadcast | None = None


class Replica(NamedTuple):
  """Holds the server's state of a coded broadcast; () without a memory.

  Attributes:
    params: P, the model as the devices know it.
    sent: [G] int32, messages of a block so far.
    score: [G] float32, divergence of the blocks, where it orders them.
  """

  params: PyTree = ()
  sent: Any = ()
  score: Any = ()


def make(setting: Setting) -> Links:
  """Builds the links of a setting.

  Raises:
    InputError: an unknown compressor, or a memory where none can be.
  """
  up = compressors.make(setting.uplink_codec)
  down = compressors.make(setting.downlink_codec)
  links = Links(
    up,
    down,
    feedback=_remembers(setting.uplink_codec, up, 'uplink_codec'),
    replica=_remembers(setting.downlink_codec, down, 'downlink_codec'),
    air=setting.broadcast if setting.broadcast.kind else None,
  )
  if links.air and links.replica:
    raise InputError(
      f'config.broadcast.kind={links.air.kind} with the change of the model as '
      f'its message ({setting.downlink_codec.name})',
      'the model itself, whole or coded: who lost a change cannot use the next',
      'set --config.downlink_codec.error_feedback=off, or its name to none',
    )
  if down.sparse and not links.replica:
    raise InputError(
      f'a broadcast of weights by {setting.downlink_codec.name!r}',
      'a broadcast of their change, since most weights would arrive as 0',
      'set --config.downlink_codec.error_feedback=on (random_k: and '
      'scaled=False)',
    )
  return links


def _remembers(codec: Codec, made: Compressor, key: str) -> bool:
  """Tells whether a link has a memory."""
  if codec.error_feedback == 'auto':
    return made.sparse and made.contracts
  if codec.error_feedback == 'off':
    return False
  if made.lossless or not made.contracts:
    raise InputError(
      f'config.{key}.error_feedback=on for {codec.name!r}',
      'a compressor that loses something, yet less than it was given',
      f'set --config.{key}.error_feedback=auto (random_k: or scaled=False)',
    )
  return True


def coded(up: Compressor) -> transform.Transform:
  """Sends the trained blocks of an update in code."""

  def update(found, device, key):
    key = jax.random.fold_in(jax.random.fold_in(key, UP), device.fleet.id)
    arrived = base.transmit(up, key, found.delta)
    nothing = jax.tree.map(jnp.zeros_like, found.delta)
    return found._replace(delta=tree.select(found.mask, arrived, nothing))

  return transform.stateless(update)


def error_feedback(code: transform.Transform) -> transform.Transform:
  """Adds the residual of earlier codes to an update (error feedback).

  Of blocks that are not trained nothing is sent, nor forgotten. State: P, the
  residual of one client.

  Args:
    code: stateless.
  """

  def init(params):
    return jax.tree.map(jnp.zeros_like, params)

  def update(found, residual, device, key):
    whole = jax.tree.map(jnp.add, found.delta, residual)
    sent, _ = code.update(found._replace(delta=whole), (), device, key)
    missing = jax.tree.map(jnp.subtract, whole, sent.delta)
    return sent, tree.select(found.mask, missing, residual)

  return transform.Transform(init, update)


def init(links: Links, task: Task, params: PyTree) -> tuple[Replica, Any]:
  """Gives the memories of the broadcast before the first round.

  Args:
    links: of the setting.
    task: the model.
    params: P, the initial model.

  Returns:
    The server's, and a client's `heard`, () without a memory: [G], or where
    the broadcast may be lost P, the model that it has.
  """
  if links.air:
    copy = jax.tree.map(jnp.copy, params)
    return Replica(score=jnp.zeros(task.num_blocks)), copy
  if not links.replica:
    return Replica(), ()
  sent = jnp.zeros(task.num_blocks, jnp.int32)
  return Replica(jax.tree.map(jnp.copy, params), sent), sent


def group_bytes(compressor: Compressor, task: Task, params: PyTree) -> Array:
  """Computes the bytes of every block's code, [G] float32.

  Args:
    compressor: of every array.
    task: the model.
    params: P, for its shapes.
  """
  sizes = jax.tree.map(
    lambda v: float(base.wire_bytes(compressor, v.shape)), params
  )
  return tree.group_sum(task.groups, sizes, task.num_blocks)


def message_bytes(
  compressor: Compressor,
  task: Task,
  params: PyTree,
  plan: Plan,
  chosen: Array,
  way: int,
) -> Array:
  """Computes the bytes that each client sends or receives, [K] float32.

  Args:
    compressor: of every array.
    task: the model.
    params: P, for its shapes.
    plan: names smaller models, and messages that the method codes itself.
    chosen: [K, G] bool, blocks of the message.
    way: `UP` or `DOWN`.
  """
  cost = plan.cost
  if cost.wire is not None:
    return costs.total(chosen, cost.wire[way])
  if cost.work is None or cost.received is not None:
    return costs.total(chosen, group_bytes(compressor, task, params))
  # Parts of blocks, which `stack` lets through in float32 only.
  return 4.0 * jax.vmap(costs.total)(chosen, cost.work.size)


def broadcast(
  links: Links,
  task: Task,
  key: Array,
  params: PyTree,
  replica: Replica,
  heard: Any,
  plan: Plan,
  received: Array,
) -> tuple[PyTree, Replica, Any, Array]:
  """Sends the model to the participants of a round.

  Args:
    links: of the setting.
    task: the model.
    key: of the round's messages.
    params: P, the server's model.
    replica: memory of the server.
    heard: [K, G] int32, memory of the participants, or ().
    plan: of the round.
    received: [K, G] bool, blocks that a device is sent.

  Returns:
    P that every participant starts from, both memories, [K] float32 bytes.
  """
  if not links.replica:
    start = _coded(links, key, params)
    size = message_bytes(links.down, task, params, plan, received, DOWN)
    return start, replica, heard, size
  change = jax.tree.map(jnp.subtract, params, replica.params)
  key = jax.random.fold_in(key, DOWN)
  arrived = base.transmit(links.down, key, change)
  anybody = received.any(0)
  start = tree.select(
    tree.broadcast_groups(task.groups, anybody),
    jax.tree.map(jnp.add, replica.params, arrived),
    replica.params,
  )
  sent = replica.sent + anybody
  wire = group_bytes(links.down, task, params)
  whole = group_bytes(NONE, task, params)
  missing = (sent[None] - heard).astype(jnp.float32)
  each = jnp.minimum(missing * wire[None], whole[None])
  size = jnp.where(received, each, 0.0).sum(-1)
  heard = jnp.where(received, sent[None], heard)
  return start, Replica(start, sent), heard, size


def message(
  links: Links, task: Task, key: Array, params: PyTree, plan: Plan
) -> tuple[PyTree, Array]:
  """Codes the model for a broadcast without a memory.

  Args:
    links: of the setting.
    task: the model.
    key: of the round's messages.
    params: P, the server's model.
    plan: of the round.

  Returns:
    P that is sent, [G] float32 bytes of its blocks.
  """
  wire = plan.cost.wire
  size = group_bytes(links.down, task, params) if wire is None else wire[DOWN]
  return _coded(links, key, params), size


def _coded(links: Links, key: Array, params: PyTree) -> PyTree:
  """Gives what arrives of the model itself, P."""
  if links.down.lossless:
    return params
  return base.transmit(links.down, jax.random.fold_in(key, DOWN), params)
