"""Computes means of updates over clients and their divergence, from sums."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients.device import Device, Update
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


class Mean(NamedTuple):
  """Holds the mean and the statistics of a round's updates.

  Attributes:
    delta: P, the masked mean update over all counted clients.
    touched: prefix tree of P, bool: some client trained it.
    weight: [G] sum of the weights of T_g, counted clients that trained it.
    trainers: [G] their number |T_g|.
    variance: [G] weighted variance of their updates around *their* mean, summed
      over the block's numbers.
    sq_norm: [G] squared norm of their mean.
    active: [] number of participants K that count.
    extra: further sums of the aggregator (`with_sums`); with several they
      are nested, (of the inner one, of the outer one).
    sums: of `Update.sums`.
    rows: [K, ...] of every leaf, of `Update.rows`; zeros where nothing trained.
  """

  delta: PyTree
  touched: PyTree
  weight: Array
  trainers: Array
  variance: Array
  sq_norm: Array
  active: Array
  extra: PyTree = ()
  sums: PyTree = ()
  rows: PyTree = ()


class Aggregator(NamedTuple):
  """Describes a mean over clients, as a map and a reduction.

  Attributes:
    client: (Update, Device) -> (summed, stacked), of one client: pytrees that
      are added up over the cohort, and kept apart by client.
    server: (summed, stacked [K, ...], weight [K, G], trained [K, G]) -> Mean.
    over: clients over which an element is averaged: `contributors`, whose
      sub-model contains it, or `all` that count for its block.
    adds: it makes sums beside the mean.
    plain: its mean is a sum of updates, each times its weight, over the sum of
      the weights [G], and other updates move nothing else.
  """

  client: Callable[[Update, Device], tuple[PyTree, PyTree]]
  server: Callable[[PyTree, PyTree, Array, Array], Mean]
  over: Literal['contributors', 'all'] = 'contributors'
  adds: bool = False
  plain: bool = False


def masked_mean(
  task: Task, over: Literal['contributors', 'all'] = 'contributors'
) -> Aggregator:
  """Builds the weighted mean of every block over its counted clients.

  Updates are summed as they are made and never stacked over clients.

  Args:
    task: the model.
    over: as in `Aggregator`.
  """
  num = task.num_blocks

  def client(update, device):
    del device
    weight, element_weight = (
      tree.broadcast_groups(task.groups, update.weight),
      None,
    )
    if update.submodel_mask is not None:
      element_weight = jax.tree.map(
        lambda m: m.astype(jnp.float32), update.submodel_mask
      )
      element_weight = tree.scale(weight, element_weight)
    squares = tree.group_sq_norms(task.groups, update.delta, num)
    total = tree.scale(weight, update.delta)
    return (total, tree.scale(update.weight, squares), element_weight), ()

  def server(summed, stacked, weight, trained):
    del stacked
    return of_sums(task, weight, trained, *summed, over=over)

  return Aggregator(client, server, over, plain=True)


def with_sums(
  aggregator: Aggregator, measure: Callable[[Update, Device], PyTree]
) -> Aggregator:
  """Adds further sums over clients to a mean, `Mean.extra`.

  Args:
    aggregator: the mean.
    measure: (update as it arrives, device) -> pytree.
  """

  def client(update, device):
    summed, stacked = aggregator.client(update, device)
    return (summed, measure(update, device)), stacked

  def server(summed, stacked, weight, trained):
    summed, extra = summed
    mean = aggregator.server(summed, stacked, weight, trained)
    return mean._replace(
      extra=(mean.extra, extra) if aggregator.adds else extra
    )

  return aggregator._replace(
    client=client, server=server, adds=True, plain=False
  )


def of_sums(
  task: Task,
  weight: Array,
  trained: Array,
  total: PyTree,
  squares: Array,
  element_weight: PyTree | None = None,
  *,
  over: Literal['contributors', 'all'] = 'contributors',
) -> Mean:
  """Computes means and divergences: E|D|^2 - |ED|^2, never negative.

  Devices that count without training contribute zeros to `total`, so the
  trainers' own mean is the same total over their own weight.

  A difference of sums in float32 loses what the mean has in common. With
  10^5 clients, one added at a time, the variance is off by less than
  5e-5 (1 + R) of itself, R = sq_norm / variance (numerics_test.py measures
  1e-5 (1 + R); in blocks it is a hundredth of that). Updates of unlike devices
  have R of about 1; beyond 10^3 read the variance as a bound only.

  Args:
    task: the model.
    weight: [K, G] weights in the mean.
    trained: [K, G] bool.
    total: P, weighted updates.
    squares: [G], weighted squared norms.
    element_weight: P, summed weights of the clients whose sub-model contains
      an element, where blocks are not whole.
    over: as in `Aggregator`.
  """
  num = task.num_blocks
  moved = weight * trained
  counted, trainers = weight.sum(0), moved.sum(0)
  total_sq = tree.group_sq_norms(task.groups, total, num)
  mean_sq = tree.divide(total_sq, jnp.square(trainers))
  everybody = element_weight is None or over == 'all'
  divisor = (
    tree.broadcast_groups(task.groups, counted) if everybody else element_weight
  )
  touched = (
    tree.broadcast_groups(task.groups, trainers > 0)
    if element_weight is None
    else jax.tree.map(lambda v: v > 0, element_weight)
  )
  return Mean(
    delta=tree.divide(total, divisor),
    touched=touched,
    weight=trainers,
    trainers=(moved > 0).sum(0).astype(jnp.float32),
    variance=jnp.maximum(tree.divide(squares, trainers) - mean_sq, 0.0),
    sq_norm=mean_sq,
    active=(weight.max(-1) > 0).sum().astype(jnp.float32),
  )
