"""Ranks parameter groups by their distance from the output."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from relief_jax.budgets.greedy import SLACK
from relief_jax.errors import InputError
from relief_jax.task import Exits, Task
from relief_jax.types import Array, Fleet


def levels(task: Task) -> np.ndarray:
  """Computes the depth of every group from the output, [G] ints without gaps.

  From 0.

  The shared groups (fusion tail and head) are 0, then come the layers of a
  trunk (`Blocks.trunk`), the fusion's columns (1 without a trunk), the
  encoders' last layer, and so on; a group of several layers lies as deep as
  the deepest of them. All modalities' encoders are counted side by side, since
  a model of parallel branches has no single order of layers (ours).

  Args:
    task: the model; its cut (`config.model.groups`) says how many levels there
      are: three with `split`, one per layer with `layer`.
  """
  above = len(task.blocks.trunk)
  depth = np.where(task.blocks.shared, 0, 1 + above)
  for i, layer in enumerate(task.blocks.trunk):
    depth[list(layer)] = above - i
  for owners in task.blocks.layers:
    for i, g in enumerate(owners):
      depth[g] = max(depth[g], 1 + above + len(owners) - i)
  return np.unique(depth, return_inverse=True)[1]


def largest(
  price: Callable[[Array], Array],
  budget: Array,
  access: Array,
  rank: np.ndarray,
) -> Array:
  """Finds the most levels that a device can afford to train, [] int32.

  Args:
    price: [levels, G] bool -> [levels] FLOPs per sample.
    budget: [] FLOPs per sample.
    access: [G] bool, groups that the device could train.
    rank: [G] ints; `d` levels are the groups of a rank below `d`.

  Returns:
    0 where not even the first level fits.
  """
  count = np.arange(1, int(rank.max()) + 2)
  chosen = access[None] & (rank[None] < count[:, None])
  cost = price(chosen)
  # Every level adds work, so what fits is a prefix.
  return (cost <= budget * (1 + SLACK)).sum().astype(jnp.int32)


def required(task: Task, method: str) -> Exits:
  """Gives the model's early exits.

  Raises:
    InputError: it has none.
  """
  if task.exits is None:
    raise InputError(
      f'{method!r} with a model that declares no `Exits` (early exits)',
      'one whose layers are all trained',
      'set --config.backbone=cnn',
    )
  return task.exits


def check(
  task: Task, fleet: Fleet, run: Array, whole: Array, count: int
) -> None:
  """Requires that some device of every cohort trains all levels; on the host.

  Args:
    task: the model.
    fleet: [N] clients.
    run: [N, M] bool, branches in the forward pass.
    whole: [N] bool, who trains all levels.
    count: of levels.

  Raises:
    InputError: of some modality a level would never be trained.
  """
  real = np.asarray(fleet.samples) > 0
  runs = np.asarray(run) & real[:, None]
  left = runs.any(0) & ~(runs & np.asarray(whole)[:, None]).any(0)
  if left.any():
    names = [task.modalities[m] for m in np.flatnonzero(left)]
    raise InputError(
      f'no device that trains all {count} levels of {", ".join(names)}',
      'one in every cohort: else some layers stay as they were initialised',
      'raise --config.deadline',
    )
