"""Finds blocks of the model: those a device could train, and the columns."""

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.errors import InputError
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, PyTree


def owned_groups(owned: Array, group_modality: tuple[int, ...]) -> Array:
  """Marks groups that a device could train: its modalities' and shared ones.

  Args:
    owned: [..., M] bool.
    group_modality: [G] modality of each group, -1 for shared.

  Returns:
    [..., G] bool.
  """
  modality = np.asarray(group_modality)
  return jnp.where(modality < 0, True, owned[..., np.maximum(modality, 0)])


def shapes(task: Task) -> PyTree:
  """Gives the shapes of the parameters, P."""
  return jax.eval_shape(task.init, jax.eval_shape(jax.random.key, 0))


def leaf_groups(task: Task) -> PyTree:
  """Gives the number of every parameter's block, P of ints."""
  return jax.tree.map(
    lambda g, part: jax.tree.map(lambda _: g, part), task.groups, shapes(task)
  )


def columns(task: Task) -> np.ndarray:
  """Marks the blocks that hold columns of the fusion, [G] bool."""
  return task.blocks.of('fusion', 'joint')


def least(task: Task) -> np.ndarray:
  """Marks the blocks that take part at the least, [G] bool.

  Those that all devices train, and the columns: the deadline `tight` lets every
  device train its own of them.
  """
  return columns(task) | task.blocks.always


def features(task: Task, method: str) -> tuple[int, ...]:
  """Gives the numbers in each modality's features, [M].

  Raises:
    InputError: the model has no encoders apart from its head.
  """
  if not task.features:
    raise InputError(
      f'{method} with a model that declares no features (`Task.features`)',
      'encoders whose output is [samples, features], and a head behind them',
      'give models.from_flax a chain of stages for each modality, or take '
      '--config.backbone=cnn',
    )
  return task.features


def reach(
  fleet: Fleet, group_modality: tuple[int, ...], everywhere: bool
) -> tuple[Array, Array]:
  """Marks branches that a device can run and groups that it could train.

  Args:
    fleet: [K] clients.
    group_modality: [G] modality of each group, -1 for shared.
    everywhere: absent sensors' branches run too, on filled windows.

  Returns:
    [K, M] and [K, G] bool.
  """
  run = fleet.owned | everywhere
  return run, owned_groups(run, group_modality)
