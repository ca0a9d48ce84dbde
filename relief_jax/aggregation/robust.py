"""Computes means that a few Byzantine clients cannot move far, by cohort.

The coordinate-wise median and trimmed mean of Yin et al. (2018,
https://arxiv.org/abs/1803.01498), each over the clients that count for a group
and trained it. **Ours**: the cohorts; that every such client has one vote,
whatever its windows; that absent clients do not vote, so that nothing is
diluted (under `fill='skip'` FedAvg then averages as `cohort_mean` does); and
that the divergence is the same mean, of squared distances from the mean, so
that Byzantine clients do not steer the blocks that RELIEF trains either.

All updates of a round are in memory at once, K times the model's parameters
(and, where devices hold parts of layers, a byte more for each); the estimate
of a run (engine/memory.py) counts them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.aggregation.mean import Aggregator, Mean
from relief_jax.settings import Guard
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


def robust_mean(task: Task, guard: Guard) -> Aggregator:
  """Builds a robust mean of stacked updates.

  Args:
    task: the model.
    guard: which mean.
  """

  def client(update, device):
    del device
    return (), (update.delta, update.submodel_mask)

  def server(summed, stacked, weight, trained):
    del summed
    return of_stacked(task, guard, weight, trained, *stacked)

  return Aggregator(client, server)


def of_stacked(
  task: Task,
  guard: Guard,
  weight: Array,
  trained: Array,
  delta: PyTree,
  submodel_mask: PyTree | None,
) -> Mean:
  """Computes robust means and divergences of stacked updates.

  Args:
    task: the model.
    guard: which mean.
    weight: [K, G] weights; above 0 for clients that count.
    trained: [K, G] bool.
    delta: [K, *P] updates; what a client did not train is ignored.
    submodel_mask: [K, *P] bool, elements that it trained, None for whole
      groups.

  Returns:
    As `mean.of_sums`, with numbers of clients for weights.
  """
  num = task.num_blocks
  voters = (weight > 0) & trained
  cut = _cuts(guard, weight.shape[0])

  def average(delta):
    def leaf(votes, u, h=None):
      votes = votes.reshape((-1,) + (1,) * (u.ndim - 1))
      return _average(u, votes if h is None else votes & h, cut)

    more = () if submodel_mask is None else (submodel_mask,)
    return jax.tree.map(
      lambda votes, *parts: jax.tree.map(
        lambda *leaves: leaf(votes, *leaves), *parts
      ),
      tree.broadcast_groups(task.groups, voters.T),
      delta,
      *more,
    )

  mean = average(delta)
  far = jax.tree.map(lambda u, m: jnp.square(u - m[None]), delta, mean)
  spread = jax.tree.map(jnp.sum, average(far))
  count = voters.sum(0).astype(jnp.float32)
  return Mean(
    delta=mean,
    touched=_touched(task, voters, submodel_mask),
    weight=count,
    trainers=count,
    variance=tree.group_sum(task.groups, spread, num),
    sq_norm=tree.group_sq_norms(task.groups, mean, num),
    active=(weight.max(-1) > 0).sum().astype(jnp.float32),
  )


def _touched(task: Task, voters: Array, submodel_mask: PyTree | None) -> PyTree:
  if submodel_mask is None:
    return tree.broadcast_groups(task.groups, voters.any(0))

  def leaf(votes, h):
    return (votes.reshape((-1,) + (1,) * (h.ndim - 1)) & h).any(0)

  return jax.tree.map(
    lambda votes, part: jax.tree.map(lambda h: leaf(votes, h), part),
    tree.broadcast_groups(task.groups, voters.T),
    submodel_mask,
  )


def _cuts(guard: Guard, most: int) -> np.ndarray:
  """Counts the values cut off on either side of n = 0 .. `most`.

  [most + 1] int32.
  """
  count = np.arange(most + 1)
  if guard.mean == 'median':
    return (np.maximum(count, 1) - 1).astype(np.int32) // 2
  # In float64: 0.2 * 15 is 3 in the mind of whoever wrote it.
  return np.floor(guard.trim * count + 1e-9).astype(np.int32)


def _average(values: Array, votes: Array, cut: Any) -> Array:
  """Averages the sorted values that are left, [...]; 0 where nobody votes.

  Args:
    values: [K, ...].
    votes: [K, ...] bool, of as many axes, each as long or 1.
    cut: [K + 1] ints, how many of n values go on either side.

  Returns:
    As `np.median` and `scipy.stats.trim_mean`; NaN where a voter's is NaN.
  """
  count = votes.sum(0, keepdims=True)
  low = jnp.asarray(cut)[count]
  rank = jnp.arange(len(values)).reshape((-1,) + (1,) * (values.ndim - 1))
  kept = (low <= rank) & (rank < count - low)
  ordered = jnp.sort(jnp.where(votes, values, jnp.inf), 0)
  total = jnp.where(kept, ordered, 0.0).sum(0)
  mean = total / jnp.maximum(count - 2 * low, 1)[0]
  broken = (votes & jnp.isnan(values)).any(0)
  return jnp.where(broken, jnp.nan, mean)
