"""Cuts adapters to ranks per device, and prices every rank (**ours**).

A device has a rank of every layer with adapters, [L]: of a layer of rank r the
first r columns of every `a` and rows of `b`, and of one of rank 0 nothing. One
rank for all layers is the usual case.
One rule for the scale: a device counts its product alpha / r, as a model of
that rank does, while the server keeps factors in the scale alpha / R of its
own. Of b it is therefore sent (r / R) b, and (R / r) of the change of it is
what the server gets: the product is the same on both sides, and only the steps
that b makes are larger on devices of a lower rank.

Either half of the adapters may rest (`Halves`). Then it is neither sent nor
optimised, and of a block's weight gradients the share of its numbers that
train is charged; the passes through the model stay. FLOPs of rank r lie on the
line through those of ranks 1 and R, which is exact: all of them are linear. So
they are in each layer's rank by itself; at rank 0 what is left of a layer is
the addition of its output, which is charged. *Memory* counts parameters,
gradients and optimiser at rank r, and activations as of rank R, which is a
bound.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs, tree
from relief_jax.budgets.greedy import SLACK
from relief_jax.budgets.memory import Step
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.task import CostOverride, Plan, Ranks, Task, Work
from relief_jax.types import Array, Fleet, PyTree

RULES = ('budget', 'fixed', 'random')


class Halves(NamedTuple):
  """Says which halves of the adapters train; [] bools, traced or not."""

  a: Any = True
  b: Any = True


class Counts(NamedTuple):
  """Counts the numbers of every block, float64; static.

  Attributes:
    a: [L, G] of its factors `a`, of a layer and rank.
    b: [L, G] of its factors `b`.
    rest: [G] that are in no adapter.
  """

  a: np.ndarray
  b: np.ndarray
  rest: np.ndarray


def required(task: Task, method: str) -> Ranks:
  """Gives the model's adapters.

  Raises:
    InputError: it has none, or some whose rank is above their layer's.
  """
  ranks = task.ranks
  if ranks is None:
    raise InputError(
      f'{method!r} with a model without adapters of low rank',
      'a frozen base and adapters of its linear layers',
      'set --config.backbone=lora, or --config.backbone=transformer '
      "--config.model.lora=\"('q','v')\"; of a model of your own pass "
      'frozen=models.Adapters(...)',
    )
  own = shapes(task)
  for layer in ranks.layers:
    inputs = sum(own[a].shape[0] for a in layer.a)
    outputs = own[layer.b].shape[1]
    most = min(inputs, outputs)
    if ranks.rank > most:
      raise InputError(
        f'adapters of rank {ranks.rank} for {method!r}, above the rank {most} '
        f'of the layer of {inputs} inputs and {outputs} outputs with '
        f'{layer.b}',
        'a rank that no layer with adapters is below',
        f'set --config.model.rank={most}, or leave the layer out',
      )
  return ranks


def shapes(task: Task) -> dict[str, jax.ShapeDtypeStruct]:
  """Gives the shape of every parameter by name."""
  return tree.named_leaves(blocks.shapes(task), '/')


def leaf_groups(task: Task) -> dict[str, int]:
  """Gives the block of every parameter by name."""
  return tree.named_leaves(blocks.leaf_groups(task), '/')


def counted(task: Task, ranks: Ranks) -> Counts:
  """Counts the numbers of every block in the halves of its adapters."""
  a, b = np.zeros((2, len(ranks.layers), task.num_blocks))
  rest = np.zeros(task.num_blocks)
  group, own = leaf_groups(task), shapes(task)
  for number, layer in enumerate(ranks.layers):
    for name in layer.a:
      a[number, group[name]] += own.pop(name).shape[0]
    b[number, group[layer.b]] += own.pop(layer.b).shape[1]
  for name, shape in own.items():
    rest[group[name]] += shape.size
  return Counts(a, b, rest)


def sizes(counts: Counts, rank: Array, halves: Halves) -> Array:
  """Counts the numbers that train or travel, [..., G] of ranks [..., L]."""
  low = [
    jnp.where(on, jnp.asarray(v, jnp.float32), 0.0)
    for on, v in zip(halves, (counts.a, counts.b), strict=True)
  ]
  # Whole numbers: exact at full precision.
  rank = jnp.asarray(rank, jnp.float32)
  found = jnp.matmul(rank, low[0] + low[1], precision='highest')
  rest = jnp.asarray(counts.rest, jnp.float32)
  return found + rest.reshape((1,) * (found.ndim - 1) + (-1,))


def by_layer(ranks: Ranks, rank: Array | int) -> Array:
  """Gives every layer its rank, [..., L] of one for all [...]."""
  rank = jnp.asarray(rank)[..., None]
  return jnp.broadcast_to(rank, (*rank.shape[:-1], len(ranks.layers)))


def elements(
  ranks: Ranks, params: PyTree, rank: Array, halves: Halves
) -> PyTree:
  """Marks the elements of the adapters that a device has, or trains, P bool.

  Args:
    ranks: of the model.
    params: P, for the shapes.
    rank: [L] int32 of the device.
    halves: that are marked; all that is in no adapter is marked, too.
  """
  named = tree.named_leaves(params, '/')
  every = {name: jnp.ones(v.shape, bool) for name, v in named.items()}
  for number, layer in enumerate(ranks.layers):
    there = jnp.arange(ranks.rank) < rank[number]
    for a in layer.a:
      every[a] &= there[None, :] & halves.a
    every[layer.b] &= there[:, None] & halves.b
  return tree.with_leaves(params, every)


def cut(ranks: Ranks, params: PyTree, rank: Array) -> PyTree:
  """Sets the factors beyond the ranks [L] to 0, P."""
  mask = elements(ranks, params, rank, Halves())
  return jax.tree.map(lambda m, v: jnp.where(m, v, 0.0), mask, params)


def rescaled(ranks: Ranks, params: PyTree, factor: Array) -> PyTree:
  """Multiplies every `b` by its layer's factor [L], P."""
  named = tree.named_leaves(params, '/')
  new = {v.b: factor[i] * named[v.b] for i, v in enumerate(ranks.layers)}
  return tree.with_leaves(params, new)


class Table(NamedTuple):
  """Holds what every rank costs, built once on the host.

  Attributes:
    ranks: of the model.
    counts: of its blocks.
    work: [R] of every field, of ranks 1 to R of all layers with both halves.
    levels: ranks that a device may be given, the largest first: R, R / 2, ...
    slope: [L] of every field, of a rank more of one layer; None: not asked for.
  """

  ranks: Ranks
  counts: Counts
  work: Work
  levels: tuple[int, ...]
  slope: Work | None = None


def table(task: Task, ranks: Ranks, layered: bool = False) -> Table:
  """Prices all ranks of a model.

  Args:
    task: the model, of rank R.
    ranks: of it.
    layered: layers may have ranks of their own.
  """
  count = len(ranks.layers)
  low = ranks.work((1,) * count) if ranks.rank > 1 else task.work
  share = jnp.arange(ranks.rank) / max(ranks.rank - 1, 1)

  def line(one, most):
    one, most = jnp.asarray(one), jnp.asarray(most)
    if one.dtype == bool:
      return jnp.broadcast_to(most, (ranks.rank, *most.shape))
    part = share.reshape((-1,) + (1,) * one.ndim)
    return one[None] + part * (most - one)[None]

  work = jax.tree.map(line, low, task.work)
  levels = [ranks.rank]
  while levels[-1] > 1:
    levels.append(levels[-1] // 2)
  found = Table(ranks, counted(task, ranks), work, tuple(levels))
  return found._replace(slope=slopes(ranks)) if layered else found


def slopes(ranks: Ranks) -> Work:
  """Prices a rank more of one layer, [L] of every field."""
  count, most = len(ranks.layers), max(ranks.rank, 2)
  low = ranks.work((1,) * count)

  def one(number):
    more = ranks.work(tuple(most if i == number else 1 for i in range(count)))
    return jax.tree.map(
      lambda a, b: a if a.dtype == bool else (b - a) / (most - 1), low, more
    )

  return jax.tree.map(lambda *v: jnp.stack(v), *map(one, range(count)))


def work_of(table: Table, rank: Array, halves: Halves) -> Work:
  """Gives the work of clients' ranks, [K] of every field.

  Args:
    table: of the model; with slopes, where ranks of layers differ.
    rank: [K, L] int32, at least 1 where they do not.
    halves: that train.
  """
  most = jnp.maximum(rank.max(-1), 1)
  found = jax.tree.map(lambda v: v[most - 1], table.work)
  if table.slope is not None:
    less = (most[:, None] - rank).astype(jnp.float32)

    def fewer(whole, each):
      if whole.dtype == bool:
        return whole
      return whole - jnp.tensordot(less, each, 1, precision='highest')

    found = jax.tree.map(fewer, found, table.slope)
  trained = sizes(table.counts, rank, halves)
  whole = sizes(table.counts, rank, Halves())
  share = trained / jnp.maximum(whole, 1.0)
  tokens = found.tokens
  if tokens is not None:
    tokens = dataclasses.replace(tokens, wgrad=tokens.wgrad * share[:, None, :])
  return dataclasses.replace(
    found, wgrad=found.wgrad * share, size=trained, tokens=tokens
  )


def needed(
  task: Task, table: Table, step: Step, plan: Plan, rank: Array, halves: Halves
) -> Array | None:
  """Computes the memory of training at clients' ranks, [K] bytes.

  Args:
    task: the model; None comes back where nobody counted its memory.
    table: of it.
    step: a local one.
    plan: what runs and trains.
    rank: [K, L] int32.
    halves: that train.
  """
  if task.memory is None:
    return None
  held = blocks.owned_groups(plan.run, task.blocks.modality)
  whole = dataclasses.replace(
    task.work, size=sizes(table.counts, rank, Halves())
  )
  rests = whole.size - sizes(table.counts, rank, halves)
  return costs.training_bytes(
    task.memory, whole, held, plan.trained, step.batch, step.slots
  ) - 4 * (1 + step.slots) * costs.total(plan.trained, rests)


def choose(
  task: Task,
  table: Table,
  step: Step,
  fleet: Fleet,
  budget: Array,
  whole: Plan,
  rule: str,
  fixed: int,
) -> tuple[Array, Array]:
  """Chooses every client's rank within its budget of time and its memory.

  Args:
    task: the model.
    table: of its ranks.
    step: a local one.
    fleet: [K] clients.
    budget: [K] FLOPs per sample.
    whole: the plan where all fits.
    rule: `budget`, the largest of the levels that fits; `random`, one of those
      that fit, drawn once for a device; `fixed`.
    fixed: rank of `fixed`, 0 for R.

  Returns:
    [K] int32 ranks, and [K] bool, where one fits.
  """
  levels = (fixed or table.ranks.rank,) if rule == 'fixed' else table.levels
  fits = []
  for level in levels:
    rank = by_layer(table.ranks, jnp.full(budget.shape, level))
    work = work_of(table, rank, Halves())
    flops = jax.vmap(costs.step_flops)(work, whole.run, whole.trained)
    inside = flops <= budget * (1 + SLACK)
    used = needed(task, table, step, whole, rank, Halves())
    if used is not None and fleet.memory is not None:
      inside &= used <= fleet.memory
    fits.append(inside)
  every = jnp.stack(fits, -1)
  order = every.astype(jnp.float32)
  if rule == 'random':
    draw = jax.vmap(
      lambda n: jax.random.uniform(
        jax.random.fold_in(ambient.key(0), n), (len(levels),), minval=0.5
      )
    )(fleet.id)
    order *= draw
  return jnp.array(levels)[jnp.argmax(order, -1)], every.any(-1)


def narrow(
  task: Task,
  table: Table,
  step: Step,
  whole: Plan,
  rank: Array,
  fits: Array,
  halves: Halves,
  received: Array,
) -> Plan:
  """Narrows a plan to ranks; a device that affords none sits out.

  Args:
    task: the model.
    table: of its ranks.
    step: a local one.
    whole: the plan where all fits; its `trained` blocks count.
    rank: [K, L] int32.
    fits: [K] bool.
    halves: that train, and are sent.
    received: [K, G] numbers of every block that a device is sent.
  """
  sent = sizes(table.counts, rank, halves)
  trained = whole.trained & fits[:, None] & (sent > 0)
  found = whole._replace(
    run=whole.run & trained.any(-1, keepdims=True),
    trained=trained,
    counted=trained.astype(jnp.float32),
  )
  return found._replace(
    cost=CostOverride(
      work=work_of(table, rank, halves),
      wire=4 * jnp.stack(jnp.broadcast_arrays(sent, received)),
      memory=needed(task, table, step, found, rank, halves),
    )
  )
