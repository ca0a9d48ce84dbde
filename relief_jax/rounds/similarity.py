"""Compares the updates of every two devices, block by block of the fusion.

The interference that RELIEF's Fig. 2 shows: where devices train the columns of
a sensor that they lack, their updates of that block point elsewhere than those
of its owners. It needs every update at once, so a run makes this record only
where it is asked to (`config.update_similarity`) and only for small cohorts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks as blocks_lib
from relief_jax.errors import InputError
from relief_jax.rounds.observe import Observer
from relief_jax.rounds.records import RoundInfo
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


def blocks(task: Task) -> tuple[int, ...]:
  """Gives the blocks that are compared: the fusion's columns, by modality.

  Where a modality is one group (`model.groups='joint'`), that group.
  """
  return tuple(np.flatnonzero(blocks_lib.columns(task)).tolist())


def kept(task: Task, delta: PyTree) -> tuple[Array, ...]:
  """Gives one device's update of every block, each [numbers of the block].

  Args:
    task: the model.
    delta: P, the update that the server receives.
  """
  parts: dict[int, list[Array]] = {g: [] for g in blocks(task)}

  def leaf(g, subtree):
    if g in parts:
      parts[g] += [u.ravel() for u in jax.tree.leaves(subtree)]

  jax.tree.map(leaf, task.groups, delta)
  return tuple(jnp.concatenate(part) for part in parts.values())


def pairwise(updates: tuple[Array, ...]) -> Array:
  """Computes the cosine similarity of every two devices, [blocks, K, K].

  Args:
    updates: of every block, [K, numbers].

  Returns:
    NaN where one of the two did not move the block.
  """

  def block(update):
    norm = jnp.linalg.norm(update, axis=1, keepdims=True)
    unit = jnp.where(norm > 0, update / norm, jnp.nan)
    # Accelerators would round the factors of a product to fewer bits.
    return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)

  return jnp.stack([block(update) for update in updates])


def observer(task: Task) -> Observer:
  """Builds the observer that keeps `similarity`."""
  return Observer(
    lambda device, update: kept(task, update.delta),
    lambda rows: {'similarity': pairwise(rows)},
  )


def check(infos: RoundInfo, method: str) -> None:
  """Refuses a method that compares nothing.

  Args:
    infos: of a round, its shapes are enough.
    method: its name.

  Raises:
    InputError: the method averages no updates of whole groups.
  """
  if 'similarity' not in infos.extra:
    raise InputError(
      f'config.update_similarity with {method}',
      'a method whose devices send updates of one model to one mean',
      'set --config.update_similarity=0, or --config.method=fedavg',
    )


def lines(
  task: Task, infos: RoundInfo, done: int, last: int
) -> list[dict[str, Any]]:
  """Builds records of rounds, as `cosines.jsonl` keeps them.

  Args:
    task: the model.
    infos: numpy arrays, [R, K, ...], with the similarity.
    done: rounds before them.
    last: round after which nothing is kept.

  Returns:
    Of each round: `round`, `client` [K] ids and `cosines`, by block [K, K] to
    four decimals.
  """
  names = [task.blocks.name[g] for g in blocks(task)]
  return [
    {
      'round': done + i + 1,
      'client': infos.client[i].tolist(),
      'cosines': {
        name: np.round(block.astype(float), 4).tolist()
        for name, block in zip(names, infos.extra['similarity'][i], strict=True)
      },
    }
    for i in range(min(len(infos.client), last - done))
  ]
