"""Finds the points at which a model can be split, and counts the device's part.

A point is a number of layers of the encoders that the device holds: at 0 its
inputs go up, at the last one it holds all and nothing crosses. A point inside a
block is none, since a block is held as one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.models import counting
from relief_jax.task import SplitPoints, Task
from relief_jax.types import PyTree

# (params, frozen, m, x [B, ...], layers) -> what leaves the encoder's first
# layers; with none x itself.
Front = Callable[..., PyTree]
# (params, frozen, m, what left the first layers, layers) -> features of m.
Rest = Callable[..., PyTree]


def find(
  task: Task,
  front: Front,
  rest: Rest,
  inputs: Sequence[jax.ShapeDtypeStruct],
) -> SplitPoints:
  """Finds the split points of a model of encoders and a head.

  Args:
    task: the model, its memory counted.
    front: the device's part.
    rest: of the encoders.
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
    front=partial(_front, task, front, tuple(depths)),
    back=partial(_back, task, rest, tuple(depths)),
  )


def _front(task: Task, front: Front, depths, s, params, frozen, inputs, run):
  """Computes the device's part, of which nothing absent gets anywhere."""
  z = []
  for m, x in enumerate(inputs):
    x = tree.masked(run[m], x)
    depth = depths[s] if s < len(depths) else task.cuts
    z.append(tree.masked(run[m], front(params, frozen, m, x, depth)))
  if s < len(depths):
    return z
  return _fuse(task, params, frozen, z, run)


def _back(task: Task, rest: Rest, depths, s, params, frozen, z, run):
  """Computes the server's part; at the last point there is nothing left."""
  if s == len(depths):
    return z
  found = [
    tree.masked(run[m], rest(params, frozen, m, h, depths[s]))
    for m, h in enumerate(z)
  ]
  return _fuse(task, params, frozen, found, run)


def _fuse(task: Task, params, frozen, features, run):
  named = dict(zip(task.modalities, features, strict=True))
  return task.fuse(params, frozen, named, run)


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
