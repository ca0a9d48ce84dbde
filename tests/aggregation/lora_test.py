"""Merges of adapters: products before and after, against loops of NumPy.

Layers are not square, alpha / r is not 1, one device lacks a sensor, and ranks
and weights are unequal.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import tree
from relief_jax.aggregation import lora
from relief_jax.aggregation.lora import Args
from relief_jax.aggregation.mean import masked_mean
from relief_jax.algorithms.fedex import residual
from relief_jax.algorithms.fedsvd import turn
from relief_jax.algorithms.flexlora import truncate
from relief_jax.algorithms.flora import restart
from relief_jax.algorithms.parts.adapters import Merging
from relief_jax.clients.device import Update
from tests.support import tiny

WEIGHTS, OWNED = [1.0, 3.0, 2.0], [[1, 1], [1, 0], [1, 1]]


class Round:
  """Three devices that trained adapters of a task, and their mean."""

  def __init__(self, rank=2, ranks=(2, 1, 2), same_a=False, seed=0):
    self.task = tiny.task(
      'lora', modalities=('acc', 'gyro'), rank=rank, lora_alpha=5.0
    )
    self.ranks = self.task.ranks
    self.rng = np.random.default_rng(seed)
    self.start = self.drawn()
    owned = np.array(OWNED, bool)
    trained = np.array([[*o, True] for o in owned])
    aggregate = lora.products(self.task, self.ranks, masked_mean(self.task))
    self.after, total = [], None
    for n, r in enumerate(ranks):
      new = self.drawn()
      if same_a:
        new['lora_a'] = self.start['lora_a']
      there = np.arange(rank) < r
      delta = jax.tree.map(jnp.subtract, new, self.start)
      on = tree.broadcast_groups(self.task.groups, trained[n])
      delta = tree.select(on, delta, jax.tree.map(jnp.zeros_like, delta))
      weight = jnp.asarray(WEIGHTS[n] * trained[n], jnp.float32)
      args = Args(jnp.array([r]), jnp.array(not same_a), jnp.array(True))
      summed, _ = aggregate.client(
        Update(delta, weight, on, jnp.float32(0.0)),
        types.SimpleNamespace(args=args),
      )
      total = summed if total is None else jax.tree.map(jnp.add, total, summed)
      full = jax.tree.map(jnp.add, self.start, delta)
      self.after.append(
        (
          {m: np.array(a) * there for m, a in full['lora_a'].items()},
          np.array(full['lora_b']) * there[:, None],
        )
      )
    weight = jnp.asarray(np.array(WEIGHTS)[:, None] * trained, jnp.float32)
    self.mean = aggregate.server(total, (), weight, jnp.asarray(trained))
    self.means = jax.tree.map(jnp.add, self.start, self.mean.delta)
    self.goal = lora.goals(self.ranks, self.start, self.mean.extra, 1.0)
    self.trained = owned if not same_a else np.ones_like(owned)

  def drawn(self):
    params = tiny.init(self.task)
    return jax.tree.map(
      lambda v: jnp.asarray(self.rng.normal(size=v.shape), jnp.float32), params
    )

  def wanted(self):
    """The mean of products, device by device."""
    found = {}
    for m, name in enumerate(('acc', 'gyro')):
      total = weight = 0.0
      for n, (a, b) in enumerate(self.after):
        if self.trained[n, m]:
          total = total + WEIGHTS[n] * 2.5 * 2 / self.ranks.rank * a[name] @ b
          weight += WEIGHTS[n]
      found[f'fusion/{name}'] = total / weight
    return found

  def merged(self, merge):
    """Parameters, and products with what went into the base."""
    family = types.SimpleNamespace(ranks=self.ranks, fresh=self.task.init)
    now = Merging(self.means, self.goal, self.mean.extra, jax.random.key(7))
    params, into = merge(family)(now)
    found = lora.pieces(self.ranks, params)
    return params, {k: v + into.get(k, 0.0) for k, v in found.items()}


def close(found, want):
  for k, v in want.items():
    np.testing.assert_allclose(found[k], v, rtol=0, atol=2e-5)


@pytest.mark.parametrize('same_a', [False, True])
def test_the_goal_is_the_mean_of_products(same_a):
  done = Round(same_a=same_a, ranks=(2, 2, 2) if same_a else (2, 1, 2))
  assert done.ranks.scale == 2.5
  close(done.goal, done.wanted())


@pytest.mark.parametrize('merge', [residual, restart])
def test_what_goes_into_the_base_makes_it_exact(merge):
  done = Round()
  params, found = done.merged(merge)
  close(found, done.wanted())
  if merge is restart:
    assert not params['lora_b'].any()
    fresh = done.task.init(jax.random.key(7))
    np.testing.assert_array_equal(
      params['lora_a']['acc'], fresh['lora_a']['acc']
    )


def test_stacked_factors_are_the_exact_sum():
  """FLoRA's own form: columns p_n a_n beside each other, rows b_n."""
  done, share = Round(), np.array(WEIGHTS) / sum(WEIGHTS)
  a = np.concatenate(
    [p * a['acc'] for p, (a, _) in zip(share, done.after, strict=True)], 1
  )
  b = np.concatenate([b for _, b in done.after])
  close(done.goal, {'fusion/acc': 2.5 * a @ b})


def test_factors_apart_are_not():
  done = Round()
  away = lora.error(lora.pieces(done.ranks, done.means), done.goal)
  assert away > 0.1
  # Nothing of rank R is nearer to the mean product than its SVD.
  _, best = done.merged(truncate)
  assert 0 < lora.error(best, done.goal) < away


def test_of_a_common_factor_the_mean_is_exact():
  done = Round(ranks=(2, 2, 2), same_a=True)
  close(lora.pieces(done.ranks, done.means), done.wanted())


def test_turning_keeps_the_product():
  done = Round(ranks=(2, 2, 2), same_a=True)
  params, found = done.merged(turn)
  close(found, done.wanted())
  a = np.concatenate(list(params['lora_a'].values()))
  np.testing.assert_allclose(a.T @ a, np.eye(2), atol=1e-6)
  b = np.asarray(params['lora_b'])
  assert (b[np.arange(2), np.abs(b).argmax(1)] > 0).all()


def test_of_full_rank_nothing_is_lost():
  done = Round(rank=6, ranks=(6, 3, 1))
  params, found = done.merged(truncate)
  close(found, done.wanted())
  # The first ranks are the best: a device of rank r gets them.
  value = np.concatenate(list(done.wanted().values()))
  _, s, _ = np.linalg.svd(value)
  for r in (1, 3):
    a = np.concatenate(list(params['lora_a'].values()))[:, :r]
    rest = value - done.ranks.scale * a @ np.asarray(params['lora_b'])[:r]
    np.testing.assert_allclose(
      np.linalg.norm(rest), np.linalg.norm(s[r:]), rtol=1e-4
    )


def test_nobody_there_changes_nothing():
  done = Round()
  sums = jax.tree.map(jnp.zeros_like, done.mean.extra)
  goal = lora.goals(done.ranks, done.start, sums, 1.0)
  close(goal, lora.pieces(done.ranks, done.start))
  for merged in (
    lora.truncated(done.ranks, done.start, sums, goal),
    lora.turned(done.ranks, done.start, sums),
    lora.restarted(done.ranks, done.start, sums, done.means),
  ):
    jax.tree.map(np.testing.assert_array_equal, merged, done.start)
