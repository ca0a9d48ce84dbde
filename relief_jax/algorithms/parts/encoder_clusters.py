"""Clusters devices by the change of their encoders (Harmony).

Stage 2 of https://doi.org/10.1145/3581791.3596844, as algorithms/harmony.py
describes it: devices of one combination of sensors are clustered, and share a
classifier within their cluster.
"""

from functools import partial

import jax
import jax.numpy as jnp

from relief_jax import blocks, costs, tree
from relief_jax.algorithms.parts import kmeans
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, PyTree


def by_block(task: Task, leaf, *trees: PyTree) -> PyTree:
  """Maps (number of the block, *leaves) -> leaf over trees P."""
  return jax.tree.map(
    lambda block, *parts: jax.tree.map(partial(leaf, block), *parts),
    task.groups,
    *trees,
  )


def members(fleet: Fleet) -> Array:
  """Finds the members of stage 2, [N] bool: two sensors or more, and data."""
  return (fleet.samples > 0) & (fleet.owned.sum(-1) > 1)


def distances(
  task: Task, encoder: Array, params: PyTree, start: PyTree
) -> Array:
  """Computes 1 - cos of each encoder, [M]; 0 where one is all zeros.

  As half the squared distance of unit vectors: a difference from 1 would
  round to zeros what encoders move in a round.

  Args:
    task: the model.
    encoder: [M, G] bool, blocks of each encoder.
    params: P.
    start: P.
  """

  def norms(params):
    sq = tree.group_sq_norms(task.groups, params, task.num_blocks)
    return costs.total(encoder, sq)

  def unit(params):
    sq = norms(params)
    inverse = jnp.where(sq > 0, jax.lax.rsqrt(sq), 0.0)
    weight = costs.total(encoder.T, inverse)
    return tree.scale(tree.broadcast_groups(task.groups, weight), params)

  return norms(jax.tree.map(jnp.subtract, unit(params), unit(start))) / 2


def merged(
  task: Task,
  classifier: Array,
  every: PyTree,
  fleet: Fleet,
  combination: Array,
  cluster: Array,
  part: Array,
) -> PyTree:
  """Gives every model the mean classifier of its cluster, [N, *P].

  Args:
    task: the model.
    classifier: [G] bool, blocks that are shared.
    every: [N, *P], after local training.
    fleet: [N].
    combination: [N] int32, the same for equal sensors.
    cluster: [N] int32 below N, within the combination.
    part: [N] bool, participants.
  """
  count = part.size
  place = kmeans.same(combination * count + cluster, count)
  counted = jnp.where(part, place, count)
  met = jnp.bincount(counted, length=count)[place] > 0
  access = blocks.owned_groups(fleet.owned, task.blocks.modality)
  takes = access & classifier[None] & (met & members(fleet))[:, None]

  def leaf(block, v):
    mean = kmeans.means(v, counted, count)[place]
    takes_it = takes[:, block].reshape((-1,) + (1,) * (v.ndim - 1))
    return jnp.where(takes_it, mean, v)

  return by_block(task, leaf, every)


def clustered(fleet: Fleet, distance: Array, size: int) -> tuple[Array, Array]:
  """Finds equal combinations and the clusters within, [N] int32 each.

  Args:
    fleet: [N].
    distance: [N, M], of the encoders.
    size: members per cluster.
  """
  count, modalities = fleet.owned.shape
  most = min(count, 2**modalities)  # none at all stands for no member
  owned = fleet.owned & members(fleet)[:, None]
  code = (owned * 2 ** jnp.arange(modalities)[None]).sum(-1)
  group = kmeans.same(code, most)
  top = jax.ops.segment_max(distance, group, most)[group]
  scaled = distance / jnp.where(top > 0, top, 1.0)
  return group, kmeans.kmeans(scaled, group, most, size)
