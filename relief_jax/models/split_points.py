"""Finds the points at which a model can be split, and counts the device's part.

A point is a number of layers of the encoders that the device holds: at 0 its
inputs go up, at the last one it holds all and nothing crosses. A point inside a
block is none, since a block is held as one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.models import counting
from relief_jax.task import SplitPoints, Task
from relief_jax.types import Array, PyTree

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
  held, work, memory, sent, shapes, depths = [], [], [], [], [], []
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
    shapes.append(tuple(map(_sample_shapes, crossing)))
    depths.append(depth)
  none = (0.0,) * len(task.modalities)
  parts = _Parts(task, front, rest, tuple(depths))
  return SplitPoints(
    layers=(*depths, task.cuts + 1),
    held=(*held, (True,) * task.num_blocks),
    work=(*work, task.work),
    sent=(*sent, none),
    memory=(*memory, task.memory),
    front=parts.front,
    back=parts.back,
    shapes=(*shapes, ((),) * len(none)),
  )


class _Parts(NamedTuple):
  """Computes a model's two parts.

  Attributes:
    task: the model.
    first: the first layers of an encoder.
    rest: the others.
    depths: [S - 1] layers in front of each point.
  """

  task: Task
  first: Front
  rest: Rest
  depths: tuple[int, ...]

  def front(self, s, params, frozen, inputs, run, branch=False) -> PyTree:
    """Computes the device's part, see `SplitPoints`."""
    last = s == len(self.depths)
    depth = self.task.cuts if last else self.depths[s]
    z = [
      where(
        run[m],
        partial(self.first, params, frozen, m, depth=depth),
        x,
        branch,
      )
      for m, x in enumerate(inputs)
    ]
    return self._fuse(params, frozen, z, run) if last else z

  def back(self, s, params, frozen, z, run, branch=False) -> Array:
    """Computes the server's part; at the last point there is nothing left."""
    if s == len(self.depths):
      return z
    found = [
      where(
        run[m],
        partial(self.rest, params, frozen, m, depth=self.depths[s]),
        h,
        branch,
      )
      for m, h in enumerate(z)
    ]
    return self._fuse(params, frozen, found, run)

  def _fuse(self, params, frozen, features, run) -> Array:
    named = dict(zip(self.task.modalities, features, strict=True))
    if self.task.skips:
      return self.task.fuse(params, frozen, named, run, None)
    return self.task.fuse(params, frozen, named, run)


def where(
  runs: Array, function: Callable[[PyTree], PyTree], x: PyTree, branch: bool
) -> PyTree:
  """Computes function(x) of a sensor that runs, else zeros.

  Args:
    runs: [] bool.
    function: of its inputs.
    x: they.
    branch: compute nothing where it does not; False under a vmap.
  """
  if branch:
    zeros = tree.zeros_like_output(function, x)
    return jax.lax.cond(runs, function, lambda _: zeros, x)
  return tree.masked(runs, function(tree.masked(runs, x)))


def _held(task: Task, depth: int) -> tuple[bool, ...] | None:
  """Finds the blocks of the first layers; None where the point cuts one."""
  below = {g for own in task.blocks.layers for g in own[:depth]}
  above = {g for own in task.blocks.layers for g in own[depth:]}
  if below & above or any(task.blocks.role[g] != 'encoder' for g in below):
    return None
  return tuple(g in below for g in range(task.num_blocks))


def _sample_shapes(value: Any) -> tuple[tuple[int, ...], ...]:
  """Lists the shapes of a sample's arrays of what crosses."""
  return tuple(v.shape[1:] for v in jax.tree.leaves(value))


def _sample_bytes(value: Any) -> float:
  """Counts the bytes of a sample of what crosses."""
  return (
    sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(value))
    / counting.BATCH
  )
