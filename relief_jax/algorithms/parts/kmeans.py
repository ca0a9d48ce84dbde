"""Clusters by k-means in all groups of devices at once. **Ours**, no draw.

Groups of devices differ in size and so in their number of centres; all are
padded to those of the largest possible group. In place of k-means++ the first
centre is the group's mean and every further one the member farthest from those
before it, so that neither a seed nor the order of devices matters. Then Lloyd's
iterations (1982, https://doi.org/10.1109/TIT.1982.1056489).
"""

import jax
import jax.numpy as jnp

from relief_jax.types import Array

_ITERATIONS = 20


def same(values: Array, most: int) -> Array:
  """Numbers the groups of equal values, [N] int32 below `most`.

  Args:
    values: [N] int32.
    most: different values that there can be.
  """
  _, group = jnp.unique(values, return_inverse=True, size=most)
  return group.astype(jnp.int32)


def kmeans(points: Array, group: Array, groups: int, size: int) -> Array:
  """Clusters the points of each group, [N] int32 numbers within the group.

  A group of n points has (n - 1) // size + 1 centres.

  >>> points = jnp.array([[0.0], [9.0], [8.0], [1.0]])
  >>> kmeans(points, jnp.zeros(4, jnp.int32), 1, 2).tolist()
  [1, 0, 0, 1]

  Args:
    points: [N, D].
    group: [N] int32, below `groups`.
    groups: their number.
    size: points per centre.
  """
  num = points.shape[0]
  most = (num - 1) // size + 1
  if most == 1:
    return jnp.zeros(num, jnp.int32)
  count = jax.ops.segment_sum(jnp.ones(num, jnp.int32), group, groups)
  real = jnp.arange(most)[None] < ((count - 1) // size + 1)[:, None]
  mean = means(points, group, groups)
  centres = jnp.broadcast_to(mean[:, None], (groups, most, points.shape[1]))

  def gap(centres):
    """Computes squared distances to the own group's centres, [N, most]."""
    return jnp.square(points[:, None] - centres[group]).sum(-1)

  def farthest(i, carry):
    centres, nearest = carry
    top = jax.ops.segment_max(nearest, group, groups)
    place = jnp.where(nearest == top[group], jnp.arange(num), num - 1)
    first = jax.ops.segment_min(place, group, groups)
    centres = centres.at[:, i].set(points[jnp.minimum(first, num - 1)])
    return centres, jnp.minimum(nearest, gap(centres[:, i][:, None])[:, 0])

  centres, _ = jax.lax.fori_loop(
    1, most, farthest, (centres, gap(centres[:, :1])[:, 0])
  )

  def assign(centres):
    return jnp.where(real[group], gap(centres), jnp.inf).argmin(-1)

  def improve(_, centres):
    place = group * most + assign(centres)
    new = means(points, place, groups * most).reshape(centres.shape)
    held = jnp.bincount(place, length=groups * most).reshape(real.shape) > 0
    return jnp.where(held[:, :, None], new, centres)

  centres = jax.lax.fori_loop(0, _ITERATIONS, improve, centres)
  return assign(centres).astype(jnp.int32)


def means(values: Array, place: Array, places: int) -> Array:
  """Averages the values at each place, [places, ...]; 0 where there are none.

  Args:
    values: [N, ...] float32.
    place: [N] int32; those from `places` on are left out.
    places: their number.
  """
  total = jax.ops.segment_sum(values, place, places)
  count = jnp.bincount(place, length=places).astype(jnp.float32)
  count = count.reshape((-1,) + (1,) * (values.ndim - 1))
  return total / jnp.maximum(count, 1)
