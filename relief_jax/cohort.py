"""Who takes part in a round, and which windows they see."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.types import Array, Fleet, Population, Task


def owned_groups(owned: Array, group_modality: tuple[int, ...]) -> Array:
  """Groups a device could train: its modalities' and the shared ones.

  Args:
    owned: [..., M] bool.
    group_modality: [G] modality of each group, -1 for shared.

  Returns:
    [..., G] bool.
  """
  modality = np.asarray(group_modality)
  return jnp.where(modality < 0, True, owned[..., np.maximum(modality, 0)])


def columns(task: Task) -> np.ndarray:
  """Groups that hold a fusion column block, [G] bool."""
  ids = jax.tree.leaves(task.groups.get('fusion', task.groups.get('lora_a')))
  mask = np.zeros(len(task.group_names), bool)
  mask[ids] = True
  return mask


def reach(
  fleet: Fleet, group_modality: tuple[int, ...], everywhere: bool
) -> tuple[Array, Array]:
  """Branches that a device can run and groups that it could train.

  Args:
    fleet: [K] clients.
    group_modality: [G] modality of each group, -1 for shared.
    everywhere: absent sensors' branches run too, on filled windows.

  Returns:
    [K, M] and [K, G] bool.
  """
  run = fleet.owned | everywhere
  return run, owned_groups(run, group_modality)


def client_keys(key: Array, fleet: Fleet) -> Array:
  """One key per client, tied to its id and not to its place, [K]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, fleet.id)


def draw(key: Array, fleet: Fleet, size: int) -> Array:
  """Indices of the clients of a round, [size] int32, in increasing order.

  Everybody when `size` is the whole fleet, else a uniform draw without
  replacement, whose cost does not grow with the fleet.
  """
  num = fleet.id.shape[0]
  if size == num:
    return jnp.arange(num, dtype=jnp.int32)
  if 4 * size > num:
    chosen = jax.random.choice(key, num, (size,), replace=False)
    return jnp.sort(chosen).astype(jnp.int32)
  return jnp.sort(_distinct(key, num, size))


def _distinct(key: Array, num: int, size: int) -> Array:
  """`size` distinct numbers below `num`, [size] int32; `size <= num / 4`.

  The first `size` distinct ones of a long draw with replacement: uniform, since
  no number is treated unlike another. A quarter more than needed is drawn; in
  the rare case that this is too little, all is drawn anew.
  """
  length = size + size // 4 + 16

  def attempt(key):
    value = jax.random.randint(key, (length,), 0, num, jnp.int32)
    order = jnp.argsort(value, stable=True)
    ordered = value[order]
    again = jnp.append(False, ordered[1:] == ordered[:-1])
    first = jnp.zeros(length, bool).at[order].set(~again)
    return value, first

  def short(carry):
    return carry[2].sum() < size

  def redraw(carry):
    key, _, _ = carry
    key, own = jax.random.split(key)
    return key, *attempt(own)

  value, first = jax.lax.while_loop(short, redraw, (key, *attempt(key)))[1:]
  return value[jnp.nonzero(first, size=size)[0]]


def shared(population: Population) -> Population:
  """What every client sees: the bank and the frozen base, nobody's rows."""
  nobody: Any = None
  return dataclasses.replace(
    population, fleet=nobody, rows=nobody, online=nobody
  )


def draw_steps(
  key: Array, own: Array, count: Array, steps: int, batch: int
) -> tuple[Array, Array]:
  """Windows of a client's local steps, drawn with replacement.

  Args:
    key: of the client, the round and this purpose.
    own: [W] the client's windows.
    count: [] how many of them are real.
    steps: T.
    batch: B.

  Returns:
    rows [T, B] int32 and weights [T, B] float32, all 1.
  """
  at = jax.random.randint(key, (steps, batch), 0, jnp.maximum(count, 1))
  return own[at], jnp.ones(at.shape, jnp.float32)


def draw_epochs(
  key: Array, own: Array, count: Array, epochs: int, batch: int
) -> tuple[Array, Array]:
  """Windows of a client's local steps over whole shuffled epochs.

  The number of steps is the largest client's; a smaller client's last steps
  hold only padding (weight 0) and are skipped.

  Args:
    key: of the client, the round and this purpose.
    own: [W] the client's windows.
    count: [] how many of them are real.
    epochs: E.
    batch: B.

  Returns:
    rows [T, B] int32 and weights [T, B] float32, T = E * ceil(W / B).
  """
  width = own.shape[0]
  steps = -(-width // batch)
  real = jnp.arange(width) < count

  def epoch(key):
    order = jnp.argsort(jnp.where(real, jax.random.uniform(key, (width,)), 2.0))
    pad = (0, steps * batch - width)
    return (
      # With windows of its own: another's may be broken, and 0 * NaN is NaN.
      jnp.pad(own[order], pad, mode='edge').reshape(steps, batch),
      jnp.pad(real[order].astype(jnp.float32), pad).reshape(steps, batch),
    )

  drawn = jax.vmap(epoch)(jax.random.split(key, epochs))
  return jax.tree.map(lambda v: v.reshape(-1, batch), drawn)


def in_order(own: Array, count: Array, batch: int) -> tuple[Array, Array]:
  """All windows of a client, each once.

  Args:
    own: [W] the client's windows.
    count: [] how many of them are real.
    batch: B.

  Returns:
    rows [S, B] int32 and weights [S, B] float32, 0 for padding, with
    S = ceil(W / B).
  """
  real = (jnp.arange(own.size) < count).astype(jnp.float32)
  pad = (0, -own.size % batch)
  return (
    jnp.pad(own, pad, mode='edge').reshape(-1, batch),
    jnp.pad(real, pad).reshape(-1, batch),
  )
