"""Splits the transformer between a device and a server, and counts its FLOPs.

The embeddings are the first layer and each block is one more: at 0 inputs go
up, at 1 embedded tokens, at 1 + c what leaves block c, where the device holds
the embeddings and c blocks. At the last point it holds the head, too. Tokens of
sensors that are not there do not travel.
"""

import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.models import counting, split_points
from relief_jax.models import transformer_forward as forward
from relief_jax.models import transformer_work as count
from relief_jax.models.encoders import Spec
from relief_jax.models.transformer_forward import Cut
from relief_jax.task import Memory, SplitPoints, Task, Work
from relief_jax.types import Array, PyTree


def work(
  spec: Spec,
  cut: Cut,
  num: int,
  size: Array,
  layers: int | None = None,
  loads: Mapping[int, tuple[float, float]] = types.MappingProxyType({}),
) -> Work:
  """Counts FLOPs and sizes.

  Args:
    spec: of the model.
    cut: its groups.
    num: G.
    size: [G] numbers.
    layers: of the first layers alone; None: of the whole model.
    loads: {block: what its experts are asked for} (`experts.add_work`), where
      that is not what it is with all on the device.
  """
  every = len(spec.modalities)
  builder = count.Builder(every, num)
  number = [forward.patches(spec, m) for m in range(every)]
  depth = len(cut.blocks) + 1 if layers is None else layers
  for m, (tokens, fan_in) in enumerate(number if depth else ()):
    own = cut.embed[m] if cut.embed else None
    low = None
    if cut.low is not None:
      low = cut.embed[m], cut.low, spec.rank
      own = None
    count.embedding(builder, m, tokens, fan_in, spec.d, own, low)
  for i, block in enumerate(cut.blocks[: max(depth - 1, 0)]):
    below, load = cut.below(i), loads.get(i)
    count.block(builder, spec.d, spec.attention_heads, block, below, load)
  if layers is None:
    below = cut.below(len(cut.blocks))
    count.head(builder, spec.d, spec.classes, cut.head, below, spec.next_token)
  return builder.build(np.array([tokens for tokens, _ in number]), size)


def points(spec: Spec, cut: Cut, task: Task) -> SplitPoints:
  """Finds the split points: between any two layers.

  Args:
    spec: of the model.
    cut: its groups.
    task: the model; memory is counted where its own is.
  """
  depths = range(len(cut.blocks) + 2)
  held = [_held(cut, task.num_blocks, d) for d in depths]
  size = np.asarray(task.work.size)
  inputs = [counting.batch_of(v) for v in spec.example.values()]
  none = (0.0,) * len(inputs)
  return SplitPoints(
    layers=(*depths, len(depths)),
    held=(*map(_flags, held), (True,) * task.num_blocks),
    work=(
      *(
        work(spec, cut, task.num_blocks, jnp.asarray(size * own), d)
        for d, own in zip(depths, held, strict=True)
      ),
      task.work,
    ),
    sent=(*(_sent(spec, inputs, d) for d in depths), none),
    memory=(
      *(_memory(spec, cut, task, inputs, d) for d in depths),
      task.memory,
    ),
    front=partial(_front, spec, cut),
    back=partial(_back, spec, cut),
    shapes=(*(_shapes(spec, inputs, d) for d in depths), ((),) * len(none)),
  )


def _flags(own: np.ndarray) -> tuple[bool, ...]:
  return tuple(map(bool, own))


def _held(cut: Cut, num: int, depth: int) -> np.ndarray:
  """Marks the blocks of the first layers, [G] bool."""
  found = np.zeros(num, bool)
  if depth:
    found[cut.below(depth - 1)] = True
  return found


def _sent(spec: Spec, inputs, depth: int) -> tuple[float, ...]:
  """Counts the bytes of a sample of what crosses, by modality."""
  if depth:
    each = range(len(inputs))
    return tuple(4.0 * forward.patches(spec, m)[0] * spec.d for m in each)
  return tuple(v.size * v.dtype.itemsize / len(v) for v in inputs)


def _shapes(spec: Spec, inputs, depth: int):
  """Lists the shapes of a sample's arrays that cross, by modality."""
  if depth:
    every = range(len(inputs))
    return tuple(((forward.patches(spec, m)[0], spec.d),) for m in every)
  return tuple((v.shape[1:],) for v in inputs)


def _memory(spec, cut, task: Task, inputs, depth: int) -> Memory | None:
  if task.memory is None:
    return None
  key = jax.eval_shape(lambda: ambient.key(0))
  frozen: PyTree = {}
  if task.base and depth:
    whole = jax.eval_shape(task.base, key)
    blocks = whole['blocks'][: depth - 1]
    frozen = {'embed': whole['embed'], 'blocks': blocks}
  run = jnp.ones(len(inputs), bool)

  def ahead(params, frozen, values):
    z = _front(spec, cut, depth, params, frozen, values, run)
    return z if depth == 0 else z['x']

  params = jax.eval_shape(task.init, key)
  return counting.count(
    ahead, params, frozen, inputs, task.groups, task.num_blocks
  ).memory


def _front(
  spec: Spec, cut: Cut, s, params, frozen, inputs, run, branch=False
) -> Any:
  """Computes the first layers of one device; see `SplitPoints`."""
  if not s:
    return [tree.masked(run[m], x) for m, x in enumerate(inputs)]

  def embed(m, x):
    return forward.encode(spec, cut, params, frozen, m, x, 0)

  features = {
    name: split_points.where(run[m], partial(embed, m), x, branch)
    for m, (name, x) in enumerate(zip(spec.modalities, inputs, strict=True))
  }
  x, seen = forward.gather(spec, cut, params, features, run)
  count = min(s - 1, len(cut.blocks))
  x, _ = forward.blocks(spec, cut, params, frozen, x, seen, range(count))
  # Nothing of a token that is not there crosses.
  z = {'x': x * seen.reshape(-1, 1), 'seen': seen}
  if s <= len(cut.blocks) + 1:
    return z
  return forward.head(spec, cut, params, frozen, z['x'], seen)


def _back(
  spec: Spec, cut: Cut, s, params, frozen, z, run, branch=False
) -> Array:
  """Computes the rest on the server."""
  if s > len(cut.blocks) + 1:
    return z
  if not s:
    z = _front(spec, cut, 1, params, frozen, z, run, branch)
  which = range(max(s - 1, 0), len(cut.blocks))
  seen = jax.lax.stop_gradient(z['seen'])
  x, _ = forward.blocks(spec, cut, params, frozen, z['x'], seen, which)
  return forward.head(spec, cut, params, frozen, x, seen)
