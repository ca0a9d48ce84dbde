"""Keeps count of what was merged into the base, and of who was sent it.

A merge travels as the factors of all devices that were merged, sum r_n (i + o)
numbers of a layer, or as the dense matrix of i o, whichever is less. A device
that missed merges is sent all of them, or the dense matrix.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, tree
from relief_jax.aggregation.lora import Merged
from relief_jax.rounds.method import Round
from relief_jax.task import Ranks, Task
from relief_jax.types import Array


def widths(task: Task, ranks: Ranks, run: Array) -> tuple[Array, Array]:
  """Counts the inputs of layers that run and their outputs, [K, L] each.

  Args:
    task: the model.
    ranks: its adapters, of L layers.
    run: [K, M] bool.
  """
  group = tree.named_leaves(blocks.leaf_groups(task), '/')
  own = tree.named_leaves(blocks.shapes(task), '/')
  inputs = np.zeros((len(task.modalities) + 1, len(ranks.layers)))
  for number, layer in enumerate(ranks.layers):
    for a in layer.a:
      m = task.blocks.modality[group[a]]  # the last row: everybody's
      inputs[m, number] += own[a].shape[0]
  every = jnp.concatenate([run, run.any(-1, keepdims=True)], -1)
  there = jnp.where(every[..., None], jnp.asarray(inputs, jnp.float32), 0.0)
  there = there.sum(-2)
  width = [float(own[layer.b].shape[1]) for layer in ranks.layers]
  return there, jnp.broadcast_to(jnp.array(width), there.shape)


def missing_bytes(
  task: Task, ranks: Ranks, state: Merged, heard: Array, run: Array
) -> Array:
  """Computes the bytes of merges that clients have not been sent, [K].

  Args:
    task: the model.
    ranks: its adapters, of L layers.
    state: of the server.
    heard: [K, L] float32, of `Merged.stacked` when a device was last sent it.
    run: [K, M] bool.
  """
  there, width = widths(task, ranks, run)
  missing = state.stacked[None] - heard
  stacked = missing * (there + width) * (there > 0)
  return 4 * jnp.minimum(stacked, there * width).sum(-1)


def added(
  task: Task,
  ranks: Ranks,
  merged: Merged,
  into: Mapping[str, Array],
  round: Round,
) -> tuple[Merged, Array]:
  """Adds to the base, and counts the ranks of those whose factors it is.

  Args:
    task: the model.
    ranks: its adapters, of L layers.
    merged: before.
    into: what is added, by name.
    round: as it was carried out.

  Returns:
    The server's state, and [K, L], what participants were sent of it.
  """
  group = tree.named_leaves(blocks.leaf_groups(task), '/')
  at = np.array([group[layer.b] for layer in ranks.layers])
  rank = round.plan.client_args.rank
  more = jnp.where(round.plan.trained[:, at], rank, 0).sum(0)
  more = more.astype(jnp.float32)
  everybody = jnp.ones((1, len(task.modalities)), bool)
  (inputs,), (width,) = widths(task, ranks, everybody)
  dense = more * (inputs + width) > inputs * width
  received = round.plan.run.any(-1, keepdims=True)
  return merged._replace(
    offset={k: v + into[k] for k, v in merged.offset.items()},
    stacked=merged.stacked + more,
    dense=dense.mean().astype(jnp.float32),
  ), jnp.where(received, merged.stacked[None], round.clients)
