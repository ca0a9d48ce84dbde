"""Finds the points at which a model can be split, and counts the device's part.

A point is a number of layers of the encoders that the device holds: at 0 its
inputs go up, at the last one it holds all and nothing crosses. A point inside a
block is none, since a block is held as one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from relief_jax.engine import ambient
from relief_jax.models import counting
from relief_jax.task import SplitPoints, Task
from relief_jax.types import PyTree

# (params, frozen, m, x [B, ...], layers) -> what leaves the encoder's first
# layers; with none x itself.
Front = Callable[..., PyTree]


def find(
  task: Task,
  front: Front,
  inputs: Sequence[jax.ShapeDtypeStruct],
) -> SplitPoints:
  """Finds the split points of a model of encoders and a head.

  Args:
    task: the model, its memory counted.
    front: the device's part.
    inputs: [M] shapes of a batch of `counting.BATCH`.
  """
  key = jax.eval_shape(lambda: ambient.key(0))
  params = jax.eval_shape(task.init, key)
  frozen = jax.eval_shape(task.base, key) if task.base else {}
  held, work, memory, sent, depths = [], [], [], [], []
  for depth in range(task.cuts + 1):
    mine = _held(task, depth)
    if mine is None:
      continue

    def ahead(params, frozen, values, depth=depth):
      return [front(params, frozen, m, x, depth) for m, x in enumerate(values)]

    counted = counting.count(
      ahead, params, frozen, inputs, task.groups, task.num_blocks
    )
    size = task.work.size * np.asarray(mine, np.float32)
    crossing = jax.eval_shape(ahead, params, frozen, list(inputs))
    held.append(mine)
    work.append(dataclasses.replace(counted.work, size=size))
    memory.append(counted.memory)
    sent.append(tuple(map(_sample_bytes, crossing)))
    depths.append(depth)
  none = (0.0,) * len(task.modalities)
  return SplitPoints(
    layers=(*depths, task.cuts + 1),
    held=(*held, (True,) * task.num_blocks),
    work=(*work, task.work),
    sent=(*sent, none),
    memory=(*memory, task.memory),
  )


def _held(task: Task, depth: int) -> tuple[bool, ...] | None:
  """Finds the blocks of the first layers; None where the point cuts one."""
  below = {g for own in task.blocks.layers for g in own[:depth]}
  above = {g for own in task.blocks.layers for g in own[depth:]}
  if below & above or any(task.blocks.role[g] != 'encoder' for g in below):
    return None
  return tuple(g in below for g in range(task.num_blocks))


def _sample_bytes(value: Any) -> float:
  """Counts the bytes of a sample of what crosses."""
  return (
    sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(value))
    / counting.BATCH
  )
