"""The two links between server and devices: what arrives, and its bytes.

    down   theta_n = what arrives of the broadcast, the same for everybody
    up     u_n = what arrives of theta_n' - theta_n, groups trained only

Either link may have a memory of what its code left out. A device's is error
feedback (Seide et al., 2014; Karimireddy et al., 2019,
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
from relief_jax.rounds.method import Recipe
from relief_jax.settings import Setting
from relief_jax.types import Array, Plan, PyTree, Task

# The two links, as purposes of a round's key and rows of `Charge.wire`.
UP, DOWN = range(2)


class Links(NamedTuple):
  """Both links; static.

  Attributes:
    up: codes updates.
    down: codes the broadcast.
    feedback: devices remember what did not arrive.
    replica: the change of the model is broadcast and not the model.
  """

  up: Compressor
  down: Compressor
  feedback: bool
  replica: bool


class LinkState(NamedTuple):
  """Memories, carried between rounds; () where a link has none.

  Attributes:
    residual: [N, *P], what of each device's updates did not arrive.
    replica: P, the model as the devices know it.
    sent: [G] int32, messages of a group so far.
    heard: [N, G] int32, how many of them a device has.
  """

  residual: PyTree = ()
  replica: PyTree = ()
  sent: Any = ()
  heard: Any = ()


def make(setting: Setting, recipe: Recipe) -> Links:
  """The links of a setting, the uplink behind the recipe's own compressor.

  Raises:
    InputError: an unknown compressor, a memory where none can be, or a codec
      for a recipe that trains parts of layers.
  """
  up = compressors.make(setting.uplink_codec)
  if recipe.compressor:
    up = base.chain(recipe.compressor, up)
  down = compressors.make(setting.downlink_codec)
  if recipe.part and not (up.lossless and down.lossless):
    raise InputError(
      f'links that code by {setting.uplink_codec.name!r} (up) and '
      f'{setting.downlink_codec.name!r} (down) where parts of layers are sent',
      "'none' for both: codes are of whole layers",
      'set --config.uplink_codec.name=none --config.downlink_codec.name=none',
    )
  links = Links(
    up,
    down,
    feedback=_remembers(setting.uplink_codec, up, 'uplink_codec'),
    replica=_remembers(setting.downlink_codec, down, 'downlink_codec'),
  )
  if down.sparse and not links.replica:
    raise InputError(
      f'a broadcast of weights by {setting.downlink_codec.name!r}',
      'a broadcast of their change, since most weights would arrive as 0',
      'set --config.downlink_codec.memory=on (random_k: and scaled=False)',
    )
  return links


def _remembers(codec: Codec, made: Compressor, key: str) -> bool:
  """Whether a link has a memory."""
  if codec.memory == 'auto':
    return made.sparse and made.contracts
  if codec.memory == 'off':
    return False
  if made.lossless or not made.contracts:
    raise InputError(
      f'config.{key}.memory=on for {codec.name!r}',
      'a compressor that loses something, yet less than it was given',
      f'set --config.{key}.memory=auto (random_k: or scaled=False)',
    )
  return True


def refuse(
  setting: Setting,
  method: str,
  why: str = 'sends neither models nor updates',
) -> None:
  """For methods whose messages no codec can code.

  Raises:
    InputError: a codec is set.
  """
  for key in ('uplink_codec', 'downlink_codec'):
    name = getattr(setting, key).name
    if name != 'none':
      raise InputError(
        f'config.{key}.name={name} for {method!r}',
        f"'none': this method {why}",
        f'set --config.{key}.name=none',
      )


def init(links: Links, task: Task, params: PyTree, clients: int) -> LinkState:
  """Memories before the first round.

  Args:
    links: of the setting.
    task: the model.
    params: P, the initial model.
    clients: N.
  """
  state = LinkState()
  if links.feedback:
    state = state._replace(
      residual=jax.tree.map(
        lambda v: jnp.zeros((clients,) + v.shape, v.dtype), params
      )
    )
  if links.replica:
    num = len(task.group_names)
    state = state._replace(
      replica=jax.tree.map(jnp.copy, params),
      sent=jnp.zeros(num, jnp.int32),
      heard=jnp.zeros((clients, num), jnp.int32),
    )
  return state


def group_bytes(compressor: Compressor, task: Task, params: PyTree) -> Array:
  """Bytes of every group's code, [G] float32.

  Args:
    compressor: of every array.
    task: the model.
    params: P, for its shapes.
  """
  sizes = jax.tree.map(
    lambda v: float(base.wire_bytes(compressor, v.shape)), params
  )
  return tree.group_sum(task.groups, sizes, len(task.group_names))


def message_bytes(
  compressor: Compressor,
  task: Task,
  params: PyTree,
  plan: Plan,
  chosen: Array,
  way: int,
) -> Array:
  """Bytes of the groups that each client sends or is sent, [K] float32.

  Args:
    compressor: of every array.
    task: the model.
    params: P, for its shapes.
    plan: tells whose model is smaller, and what the method codes itself.
    chosen: [K, G] bool.
    way: `UP` or `DOWN`.
  """
  if plan.charge.wire is not None:
    return costs.total(chosen, plan.charge.wire[way])
  if plan.charge.work is None or plan.charge.received is not None:
    return costs.total(chosen, group_bytes(compressor, task, params))
  # Parts of layers, which `make` lets through in float32 only.
  return 4.0 * jax.vmap(costs.total)(chosen, plan.charge.work.size)


def broadcast(
  links: Links,
  task: Task,
  key: Array,
  params: PyTree,
  state: LinkState,
  index: Array,
  plan: Plan,
  received: Array,
) -> tuple[PyTree, LinkState, Array]:
  """The downlink of a round.

  Args:
    links: of the setting.
    task: the model.
    key: of the round.
    params: P, the server's model.
    state: memories.
    index: [K] places of the participants in the population.
    plan: of the round.
    received: [K, G] bool, groups that a device is sent.

  Returns:
    P that every participant starts from, memories, and [K] float32 bytes.
  """
  key = jax.random.fold_in(key, DOWN)
  if not links.replica:
    start = params
    if not links.down.lossless:
      start = base.transmit(links.down, key, params)
    size = message_bytes(links.down, task, params, plan, received, DOWN)
    return start, state, size
  change = jax.tree.map(jnp.subtract, params, state.replica)
  arrived = base.transmit(links.down, key, change)
  anybody = received.any(0)
  start = tree.select(
    tree.spread(task.groups, anybody),
    jax.tree.map(jnp.add, state.replica, arrived),
    state.replica,
  )
  sent = state.sent + anybody
  before = state.heard[index]
  wire = group_bytes(links.down, task, params)
  whole = group_bytes(NONE, task, params)
  missing = (sent[None] - before).astype(jnp.float32)
  each = jnp.minimum(missing * wire[None], whole[None])
  heard = state.heard.at[index].set(jnp.where(received, sent[None], before))
  state = state._replace(replica=start, sent=sent, heard=heard)
  return start, state, jnp.where(received, each, 0.0).sum(-1)


def upload(
  links: Links,
  task: Task,
  key: Array,
  client: Array,
  delta: PyTree,
  residual: PyTree,
  trained: Array,
) -> tuple[PyTree, PyTree]:
  """What arrives of one client's update.

  Args:
    links: of the setting.
    task: the model.
    key: of the round.
    client: [] its id.
    delta: P, the update.
    residual: P, its memory, or ().
    trained: [G] bool; of other groups nothing is sent, nor forgotten.

  Returns:
    What the server receives, P, and the client's new memory.
  """
  if links.up.lossless:
    return delta, residual
  key = jax.random.fold_in(jax.random.fold_in(key, UP), client)
  mask = tree.spread(task.groups, trained)
  if links.feedback:
    delta = jax.tree.map(jnp.add, delta, residual)
  arrived = base.transmit(links.up, key, delta)
  if links.feedback:
    missing = jax.tree.map(jnp.subtract, delta, arrived)
    residual = tree.select(mask, missing, residual)
  nothing = jax.tree.map(jnp.zeros_like, delta)
  return tree.select(mask, arrived, nothing), residual
