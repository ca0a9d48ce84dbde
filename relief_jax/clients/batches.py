"""Draws the windows of a client's local steps."""

import jax
import jax.numpy as jnp

from relief_jax.types import Array, Fleet


def client_keys(key: Array, fleet: Fleet) -> Array:
  """One key per client, tied to its id and not to its place, [K]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, fleet.id)


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
