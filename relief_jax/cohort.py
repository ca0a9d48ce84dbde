"""Who takes part in a round, and which windows they see."""

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.types import Array, Fleet, Population


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


def client_keys(key: Array, fleet: Fleet) -> Array:
  """One key per client, tied to its id and not to its place, [K]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, fleet.id)


def draw(key: Array, fleet: Fleet, size: int) -> Array:
  """Indices of the clients of a round, [size] int32, in increasing order.

  Everybody when `size` is the whole fleet, else a uniform draw without
  replacement.
  """
  num = fleet.id.shape[0]
  if size == num:
    return jnp.arange(num, dtype=jnp.int32)
  chosen = jax.random.choice(key, num, (size,), replace=False)
  return jnp.sort(chosen).astype(jnp.int32)


def take(population: Population, index: Array) -> tuple[Fleet, Array]:
  """The fleet [K] and window rows [K, W] of the clients at `index`."""
  fleet = jax.tree.map(lambda v: v[index], population.fleet)
  return fleet, population.rows[index]


def draw_steps(
  key: Array, fleet: Fleet, rows: Array, steps: int, batch: int
) -> tuple[Array, Array]:
  """Windows of every local step, drawn with replacement.

  Args:
    key: of the round and this purpose.
    fleet: [K] participants.
    rows: [K, W] their windows.
    steps: T.
    batch: B.

  Returns:
    rows [K, T, B] int32 and weights [K, T, B] float32, all 1.
  """

  def one(key, own, count):
    at = jax.random.randint(key, (steps, batch), 0, jnp.maximum(count, 1))
    return own[at]

  drawn = jax.vmap(one)(client_keys(key, fleet), rows, fleet.samples)
  return drawn, jnp.ones(drawn.shape, jnp.float32)


def draw_epochs(
  key: Array, fleet: Fleet, rows: Array, epochs: int, batch: int
) -> tuple[Array, Array]:
  """Windows of every local step over whole shuffled epochs.

  The number of steps is the largest client's; a smaller client's last steps
  hold only padding (weight 0) and are skipped.

  Args:
    key: of the round and this purpose.
    fleet: [K] participants.
    rows: [K, W] their windows.
    epochs: E.
    batch: B.

  Returns:
    rows [K, T, B] int32 and weights [K, T, B] float32, T = E * ceil(W / B).
  """
  width = rows.shape[1]
  steps = -(-width // batch)

  def one(key, own, count):
    real = jnp.arange(width) < count

    def epoch(key):
      order = jnp.argsort(
        jnp.where(real, jax.random.uniform(key, (width,)), 2.0)
      )
      pad = (0, steps * batch - width)
      return (
        # With windows of its own: another's may be broken, and 0 * NaN is NaN.
        jnp.pad(own[order], pad, mode='edge').reshape(steps, batch),
        jnp.pad(real[order].astype(jnp.float32), pad).reshape(steps, batch),
      )

    drawn = jax.vmap(epoch)(jax.random.split(key, epochs))
    return jax.tree.map(lambda v: v.reshape(-1, batch), drawn)

  return jax.vmap(one)(client_keys(key, fleet), rows, fleet.samples)
