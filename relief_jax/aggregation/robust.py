"""Means that a few lying clients cannot move far, cohort by cohort.

The coordinate-wise median and trimmed mean of Yin et al. (2018,
https://arxiv.org/abs/1803.01498), each over the clients that count for a group
and trained it. **Ours**: the cohorts; that every such client has one vote,
whatever its windows; that absent clients do not vote, so that nothing is
diluted (under `fill='skip'` FedAvg then averages as `cohort_mean` does); and
that the divergence is the same mean, of squared distances from the mean, so
that liars do not steer what RELIEF trains either.

All updates of a round are in memory at once, K times the model's parameters
(and, where devices hold parts of layers, a byte more for each); the estimate
of a run (engine/memory.py) counts them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.rounds.method import Merge, Recipe
from relief_jax.settings import Guard, Setting
from relief_jax.types import Array, PyTree, Task


def check(task: Task, setting: Setting, recipe: Recipe) -> None:
  """Refuses what a guard cannot be combined with.

  Raises:
    InputError: weights, dilution or sums beside the mean where every client
      has one vote, or clipping where what is sent is no free update.
  """
  guard = setting.guard
  if guard.clip and recipe.finish:
    raise InputError(
      'config.hparams.clip_norm for a method that codes its parameters',
      '0: a clipped update no longer ends at such parameters',
      'set --config.hparams.clip_norm=0',
    )
  if not guard.robust:
    return
  key, plain = ambient.key(0), jnp.zeros(len(task.group_names))
  params = jax.eval_shape(task.init, key)
  extra = jax.eval_shape(recipe.measure, plain, params)
  for found, cure in (
    (setting.weight == 'samples' and 'weights by samples', 'weight=uniform'),
    (recipe.weigh and 'weights that the devices find', 'flism.entropy=False'),
    (recipe.tell and 'plain sums of what devices tell', 'mean=mean'),
    (
      recipe.dilute and 'a mean over those who do not hold an element too',
      'feddrop.denominator=contributors',
    ),
    (
      jax.tree.leaves(extra) and 'plain sums of updates beside the mean',
      'mean=mean, or leave out what sums them (relief.norm=cosine, flism.kd)',
    ),
  ):
    if found:
      raise InputError(
        f'config.mean={guard.mean} with {found}',
        'one vote for every client that trained',
        f'set --config.{cure}',
      )


def merge(
  task: Task,
  guard: Guard,
  weight: Array,
  trained: Array,
  delta: PyTree,
  held: PyTree | None,
) -> Merge:
  """Robust means and divergences of stacked updates.

  Args:
    task: the model.
    guard: which mean.
    weight: [K, G] weights; above 0 for those who count.
    trained: [K, G] bool.
    delta: [K, *P] updates; what a client did not train is ignored.
    held: [K, *P] bool, elements that it trained, None for whole groups.

  Returns:
    As `mean.merge_sums`, with numbers of clients for weights.
  """
  num = len(task.group_names)
  voters = (weight > 0) & trained
  cut = _cuts(guard, weight.shape[0])

  def average(delta):
    def leaf(votes, u, h=None):
      votes = votes.reshape((-1,) + (1,) * (u.ndim - 1))
      return _average(u, votes if h is None else votes & h, cut)

    more = () if held is None else (held,)
    return jax.tree.map(
      lambda votes, *parts: jax.tree.map(
        lambda *leaves: leaf(votes, *leaves), *parts
      ),
      tree.spread(task.groups, voters.T),
      delta,
      *more,
    )

  mean = average(delta)
  far = jax.tree.map(lambda u, m: jnp.square(u - m[None]), delta, mean)
  spread = jax.tree.map(jnp.sum, average(far))
  count = voters.sum(0).astype(jnp.float32)
  return Merge(
    mean=mean,
    touched=_touched(task, voters, held),
    weight=count,
    trainers=count,
    spread=tree.group_sum(task.groups, spread, num),
    mean_sq=tree.group_sq_norms(task.groups, mean, num),
    extra=(),
    active=(weight.max(-1) > 0).sum().astype(jnp.float32),
  )


def _touched(task: Task, voters: Array, held: PyTree | None) -> PyTree:
  if held is None:
    return tree.spread(task.groups, voters.any(0))

  def leaf(votes, h):
    return (votes.reshape((-1,) + (1,) * (h.ndim - 1)) & h).any(0)

  return jax.tree.map(
    lambda votes, part: jax.tree.map(lambda h: leaf(votes, h), part),
    tree.spread(task.groups, voters.T),
    held,
  )


def _cuts(guard: Guard, most: int) -> np.ndarray:
  """Values cut off on either side of n = 0 .. `most`, [most + 1] int32."""
  count = np.arange(most + 1)
  if guard.mean == 'median':
    return (np.maximum(count, 1) - 1).astype(np.int32) // 2
  # In float64: 0.2 * 15 is 3 in the mind of whoever wrote it.
  return np.floor(guard.trim * count + 1e-9).astype(np.int32)


def _average(values: Array, votes: Array, cut: Any) -> Array:
  """Mean of what is left of the sorted values, [...]; 0 where nobody votes.

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
