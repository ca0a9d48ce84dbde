"""Robust means by cohort against NumPy, coordinate by coordinate."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from relief_jax.aggregation import robust
from relief_jax.settings import Guard

TRIMMED = Guard(mean='trimmed', trim=0.25)
MEDIAN = Guard(mean='median')


def by_numpy(found, values):
  """The mean of a cohort's values, [n] -> []."""
  if not len(values):
    return 0.0
  if found.mean == 'median':
    return np.median(values, 0)
  cut = int(found.trim * len(values) + 1e-9)
  return np.sort(values, 0)[cut : len(values) - cut].mean(0)


# A shared group of two leaves, a cohort, one of two clients, and an empty one.
NAMES = ('shared', 'acc', 'gyro', 'mag')
TASK = SimpleNamespace(
  groups={name: g for g, name in enumerate(NAMES)}, num_blocks=4
)
SHAPES = {'shared': {'w': (2, 2), 'b': (2,)}, 'acc': (5,), 'gyro': (5,)}
SHAPES['mag'] = (2,)


def drawn(draw, count):
  """[count, *P] of the stub above."""
  return jax.tree.map(
    lambda shape: draw((count, *shape)),
    SHAPES,
    is_leaf=lambda v: isinstance(v, tuple),
  )


@functools.cache
def compiled(found):
  """`robust.of_stacked` of the stub."""
  return jax.jit(functools.partial(robust.of_stacked, TASK, found))


@pytest.mark.parametrize(
  ('found', 'parts'),
  [
    (MEDIAN, False),
    (MEDIAN, True),
    (TRIMMED, True),
    (Guard(mean='trimmed', trim=0.2), False),  # 0.2 * 15 < 3 in float32
  ],
)
def test_robust_means_by_cohort(found, parts):
  rng, count = np.random.default_rng(0), 15
  delta = drawn(lambda s: rng.normal(size=s).astype(np.float32), count)
  held = drawn(lambda s: rng.random(s) < 0.7, count)
  weight = rng.integers(0, 2, (count, 4)).astype(np.float32)
  trained = rng.random((count, 4)) < 0.8
  weight[:, 0], trained[:, 0] = 1, True
  weight[:, 2], trained[:, 2] = 1, np.arange(count) < 2
  trained[:, 3] = False
  mean = compiled(found)(weight, trained, delta, held if parts else None)
  voters = (weight > 0) & trained
  assert 2 < voters[:, 1].sum() < 15
  variance, sq_norm = np.zeros(4), np.zeros(4)
  for g, name in enumerate(NAMES):
    leaves = map(jax.tree.leaves, (delta[name], held[name], mean.delta[name]))
    for values, holds, centres in zip(*leaves, strict=True):
      holds = holds if parts else np.ones_like(holds)
      for at in np.ndindex(centres.shape):
        mine = values[:, *at][voters[:, g] & holds[:, *at]]
        centre = by_numpy(found, mine)
        assert centres[at] == pytest.approx(centre, abs=1e-6)
        variance[g] += by_numpy(found, np.square(mine - centre))
        sq_norm[g] += centre**2
    for moved, holds in zip(
      jax.tree.leaves(mean.touched[name]),
      jax.tree.leaves(held[name]) if parts else [True],
      strict=True,
    ):
      votes = voters[:, g].reshape((-1,) + (1,) * np.ndim(moved))
      np.testing.assert_array_equal(moved, (votes & holds).any(0))
  np.testing.assert_allclose(mean.variance, variance, rtol=1e-5)
  np.testing.assert_allclose(mean.sq_norm, sq_norm, rtol=1e-5)
  np.testing.assert_array_equal(mean.trainers, voters.sum(0))
  assert mean.active == (weight.max(1) > 0).sum()


def test_a_mean_of_no_numbers_says_so():
  """Who stops at NaN must see it, behind whatever mean."""
  delta = drawn(np.zeros, 3)
  jax.tree.map(lambda v: v[2].fill(np.nan), delta)
  for voter in (True, False):
    weight = np.ones((3, 4), np.float32)
    weight[2] = voter
    mean = compiled(MEDIAN)(weight, weight > 0, delta, None).delta
    broken = [np.isnan(v).all() for v in jax.tree.leaves(mean)]
    assert all(broken) == any(broken) == voter
