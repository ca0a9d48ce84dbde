"""Cuts adapters to a rank per device, and prices every rank (**ours**).

A device of rank r has the first r columns of every `a` and rows of every `b`.
One rule for the scale: a device counts its product alpha / r, as a model of
that rank does, while the server keeps factors in the scale alpha / R of its
own. Of b it is therefore sent (r / R) b, and (R / r) of the change of it is
what the server gets: the product is the same on both sides, and only the steps
that b makes are larger on devices of a lower rank.

Either half of the adapters may rest (`Halves`). Then it is neither sent nor
optimised, and of a block's weight gradients the share of its numbers that
train is charged; the passes through the model stay. FLOPs of rank r lie on the
line through those of ranks 1 and R, which is exact: all of them are linear.
*Memory* counts parameters, gradients and optimiser at rank r, and activations
as of rank R, which is a bound.
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
  """Counts the numbers of every block, [G] float64 each; static.

  Attributes:
    a: of its factors `a`, by rank.
    b: of its factors `b`, by rank.
    rest: that are in no adapter.
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


def count(task: Task, ranks: Ranks) -> Counts:
  """Counts the numbers of every block in the halves of its adapters."""
  a, b, rest = np.zeros((3, task.num_blocks))
  group = leaf_groups(task)
  first = {name for layer in ranks.layers for name in layer.a}
  second = {layer.b for layer in ranks.layers}
  for name, shape in shapes(task).items():
    if name in first:
      a[group[name]] += shape.shape[0]
    elif name in second:
      b[group[name]] += shape.shape[1]
    else:
      rest[group[name]] += shape.size
  return Counts(a, b, rest)


def sizes(counts: Counts, rank: Array, halves: Halves) -> Array:
  """Counts the numbers that train or travel, [K, G] of ranks [K]."""
  low = [
    jnp.where(on, jnp.asarray(v, jnp.float32), 0.0)
    for on, v in zip(halves, (counts.a, counts.b), strict=True)
  ]
  rank = jnp.asarray(rank, jnp.float32)[..., None]
  row = (1,) * (rank.ndim - 1) + (-1,)
  rest = jnp.asarray(counts.rest, jnp.float32).reshape(row)
  return rest + rank * (low[0] + low[1]).reshape(row)


def trains(counts: Counts, halves: Halves) -> Array:
  """Marks the blocks in which anything trains, [G] bool."""
  return sizes(counts, jnp.float32(1.0), halves) > 0


def elements(
  ranks: Ranks, params: PyTree, rank: Array, halves: Halves
) -> PyTree:
  """Marks the elements of the adapters that a device has, or trains, P bool.

  Args:
    ranks: of the model.
    params: P, for the shapes.
    rank: [] int32 of the device.
    halves: that are marked; all that is in no adapter is marked, too.
  """
  there = jnp.arange(ranks.rank) < rank
  named = tree.named_leaves(params, '/')
  every = {name: jnp.ones(v.shape, bool) for name, v in named.items()}
  for layer in ranks.layers:
    for a in layer.a:
      every[a] &= there[None, :] & halves.a
    every[layer.b] &= there[:, None] & halves.b
  return tree.with_leaves(params, every)


def cut(ranks: Ranks, params: PyTree, rank: Array) -> PyTree:
  """Sets the factors beyond a rank to 0, P."""
  mask = elements(ranks, params, rank, Halves())
  return jax.tree.map(lambda m, v: jnp.where(m, v, 0.0), mask, params)


def rescaled(ranks: Ranks, params: PyTree, factor: Array) -> PyTree:
  """Multiplies every `b` by a factor, P."""
  named = tree.named_leaves(params, '/')
  new = {layer.b: factor * named[layer.b] for layer in ranks.layers}
  return tree.with_leaves(params, new)


class Table(NamedTuple):
  """Holds what every rank costs, built once on the host.

  Attributes:
    ranks: of the model.
    counts: of its blocks.
    work: [R] of every field, of ranks 1 to R with both halves.
    levels: ranks that a device may be given, the largest first: R, R / 2, ...
  """

  ranks: Ranks
  counts: Counts
  work: Work
  levels: tuple[int, ...]


def table(task: Task, ranks: Ranks) -> Table:
  """Prices all ranks of a model.

  Args:
    task: the model, of rank R.
    ranks: of it.
  """
  low = ranks.at(1).work if ranks.rank > 1 else task.work
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
  return Table(ranks, count(task, ranks), work, tuple(levels))


def work_of(table: Table, rank: Array, halves: Halves) -> Work:
  """Gives the work of clients' ranks, [K] of every field.

  Args:
    table: of the model.
    rank: [K] int32, at least 1.
    halves: that train.
  """
  found = jax.tree.map(lambda v: v[rank - 1], table.work)
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
    rank: [K] int32, at least 1.
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
    rank = jnp.full(budget.shape, level)
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
    rank: [K] int32.
    fits: [K] bool.
    halves: that train, and are sent.
    received: [K, G] numbers of every block that a device is sent.
  """
  moved = trains(table.counts, halves)
  trained = whole.trained & fits[:, None] & moved[None]
  found = whole._replace(
    run=whole.run & trained.any(-1, keepdims=True),
    trained=trained,
    counted=trained.astype(jnp.float32),
    client_args=rank,
  )
  sent = sizes(table.counts, rank, halves)
  return found._replace(
    cost=CostOverride(
      work=work_of(table, rank, halves),
      wire=4 * jnp.stack(jnp.broadcast_arrays(sent, received)),
      memory=needed(task, table, step, found, rank, halves),
    )
  )
