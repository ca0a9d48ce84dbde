"""Counts a model's FLOPs and memory by block, from its own jaxpr.

The loss and its gradient of all blocks are traced together. What the loss needs
is the forward pass; what else leads to the gradients of one block alone is that
block's weight gradient; what leads to those of several is a gradient passed
through, paid once where any of them trains (`task.Work`). So a set of blocks
costs what is left of the program when the rest of its gradients is not asked
for. FLOPs per equation: jaxprs.py.

*Memory* (**ours**): what the backward pass reads of the forward pass is kept,
by those blocks whose gradients read it; copies are made anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.clients.training import criterion
from relief_jax.engine import ambient
from relief_jax.models import jaxprs, layers
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.scoring import targets
from relief_jax.task import Memory, Task, Work
from relief_jax.types import Array, PyTree

# Of the traced step; counts are per sample, and what is done once a step is
# spread over as many.
BATCH = 32


class Counted(NamedTuple):
  """Holds what a model costs.

  Attributes:
    work: FLOPs and sizes.
    memory: of a training step.
    order: numbers of the blocks as the forward pass comes to use them.
  """

  work: Work
  memory: Memory
  order: tuple[int, ...]


def count(
  loss: Callable[..., Array],
  params: PyTree,
  frozen: PyTree,
  inputs: Sequence[PyTree],
  groups: PyTree,
  num: int,
) -> Counted:
  """Counts a training step.

  Args:
    loss: (params, frozen, inputs) -> [], of `BATCH` samples; or whatever leaves
      a part of a model, whose gradient then is given.
    params: P of shapes.
    frozen: shapes of what never trains.
    inputs: [M] shapes of the modalities' inputs, [BATCH, ...].
    groups: prefix tree of P, numbers of blocks.
    num: G.

  Raises:
    InputError: operations whose FLOPs nobody can count (jaxprs.py).
  """

  def step(params, frozen, inputs, seed):
    value, pull = jax.vjp(lambda p: loss(p, frozen, inputs), params)
    return value, pull(seed)[0]

  with layers.bare():
    seed = jax.eval_shape(loss, params, frozen, list(inputs))
    traced = jax.make_jaxpr(step)(params, frozen, list(inputs), seed)
  flat = jaxprs.flatten(traced)
  leaves = [len(jax.tree.leaves(v)) for v in (params, frozen, *inputs)]
  out = len(jax.tree.leaves(seed))
  first = np.cumsum([0, *leaves])
  places = [flat.ins[a:b] for a, b in zip(first, first[1:], strict=False)]
  owners = jax.tree.leaves(
    jax.tree.map(lambda g, t: jax.tree.map(lambda _: g, t), groups, params)
  )
  forward = 1 << num
  need = _reach_back(flat, [forward] * out, owners)
  seeded = _reach(flat, dict.fromkeys(flat.ins[-out:], 1))
  sensed = _reach(
    flat, {v: 1 << m for m, own in enumerate(places[2:]) for v in own}
  )
  builder = WorkBuilder(len(inputs), num)
  for op in flat.ops:
    wanted = _joined(need, op.outs)
    if not op.flops or not wanted:
      continue
    each, among = op.flops / BATCH, _members(wanted, num)
    if wanted & forward:
      seen = _members(_joined(sensed, op.outs), len(inputs))
      if len(seen) == 1:
        builder.fwd[seen[0]] += each
      else:
        builder.shared += each
    elif len(among) == 1:
      builder.wgrad[among[0]] += each
    else:
      builder.gradient_path(each, among)
  kept = _kept(flat, need, seeded, set(places[0]) | set(places[1]))
  return Counted(
    work=builder.build(tree.group_sizes(groups, params, num)),
    memory=Memory(
      fixed=np.float32(_bytes(frozen)),
      working=np.float32(_working(flat, need, forward) / BATCH),
      kept=np.array([v / BATCH for v in kept.values()], np.float32),
      readers=np.array(
        [[bool(k >> g & 1) for g in range(num)] for k in kept], bool
      ).reshape(len(kept), num),
    ),
    order=_order(flat, dict(zip(places[0], owners, strict=True))),
  )


def memory(task: Task, example: Mapping[str, Any]) -> Memory:
  """Counts the memory of a task that was not counted when it was made.

  Args:
    task: the model.
    example: shapes of its inputs, as `Spec.example`.

  Raises:
    InputError: as `count`.
  """

  def loss(params, frozen, values):
    features = {
      m: task.encode(params, frozen, i, values[i], 0)
      for i, m in enumerate(task.modalities)
    }
    every = jnp.ones(len(values), bool)
    scores = task.fuse(params, frozen, features, every)
    y, weight = targets.zeros(task.targets, scores), jnp.ones(BATCH)
    return criterion(task)(scores, y, weight)

  key = jax.eval_shape(lambda: ambient.key(0))
  return count(
    loss,
    jax.eval_shape(task.init, key),
    jax.eval_shape(task.base, key) if task.base else {},
    [batch_of(value) for value in example.values()],
    task.groups,
    task.num_blocks,
  ).memory


def batch_of(value: Any) -> jax.ShapeDtypeStruct:
  """Gives the shape of a batch of inputs like an example's."""
  return jax.ShapeDtypeStruct((BATCH, *value.shape[1:]), value.dtype)


def _bytes(shapes: PyTree) -> float:
  return float(sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(shapes)))


def _joined(marks: list[int], values: Sequence[int]) -> int:
  found = 0
  for v in values:
    found |= marks[v]
  return found


def _members(mark: int, num: int) -> list[int]:
  return [g for g in range(num) if mark >> g & 1]


def _reach(flat: jaxprs.Flat, start: dict[int, int]) -> list[int]:
  """Marks what follows from some values, a bit for each of them."""
  marks = [start.get(v, 0) for v in range(len(flat.nbytes))]
  _settle(flat.ops, marks, lambda op: (op.ins, op.outs))
  return marks


def _reach_back(
  flat: jaxprs.Flat, forward: Sequence[int], owners: Sequence[int]
) -> list[int]:
  """Marks what the outputs (`forward`) and each block's gradient need."""
  marks = [0] * len(flat.nbytes)
  bits = [*forward, *(1 << g for g in owners)]
  for v, bit in zip(flat.outs, bits, strict=True):
    if v is not None:
      marks[v] |= bit
  _settle(flat.ops[::-1], marks, lambda op: (op.outs, op.ins))
  return marks


def _settle(ops: Sequence[jaxprs.Op], marks: list[int], ends: Any) -> None:
  """Hands marks on along operations until none is new (a scan's go round)."""
  changed = True
  while changed:
    changed = False
    for op in ops:
      source, target = ends(op)
      mark = _joined(marks, source)
      for v in target:
        if mark & ~marks[v]:
          marks[v] |= mark
          changed = True


def _order(flat: jaxprs.Flat, owners: dict[int, int]) -> tuple[int, ...]:
  """Lists blocks by the place of the first operation on their parameters."""
  used = (owners[v] for op in flat.ops for v in op.ins if v in owners)
  return tuple(dict.fromkeys([*used, *owners.values()]))


def _kept(
  flat: jaxprs.Flat, need: list[int], seeded: list[int], held: set[int]
) -> dict[int, float]:
  """Finds what is kept for the backward pass, {blocks as bits: bytes}.

  Args:
    flat: the step.
    need: blocks whose gradients need a value.
    seeded: values of the backward pass.
    held: parameters, which are there anyway.
  """
  made = {v: op for op in flat.ops for v in op.outs if op.copies}
  readers: dict[int, int] = {}
  for op in flat.ops:
    wanted = _joined(need, op.outs)
    if not wanted or not _joined(seeded, op.outs):
      continue
    waiting, seen = [v for v in op.ins if not seeded[v]], set[int]()
    while waiting:
      v = waiting.pop()
      if v in seen:
        continue
      seen.add(v)
      if v in made:
        waiting += made[v].ins
      elif v not in held:
        readers[v] = readers.get(v, 0) | wanted
  found: dict[int, float] = {}
  for v, blocks in readers.items():
    if flat.nbytes[v]:
      found[blocks] = found.get(blocks, 0.0) + flat.nbytes[v]
  return found


def _working(flat: jaxprs.Flat, need: list[int], forward: int) -> float:
  """Finds the most bytes that one operation of the forward pass reads, writes.

  Copies are taken for free.
  """
  return max(
    (
      float(sum(flat.nbytes[v] for v in {*op.ins, *op.outs}))
      for op in flat.ops
      if not op.copies and _joined(need, op.outs) & forward
    ),
    default=0.0,
  )
