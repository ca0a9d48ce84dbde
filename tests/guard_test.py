"""Clients that diverge or lie: dropped, clipped, outvoted; against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms, guard, robust, simulate
from relief_jax import config as config_lib
from relief_jax.compressors import Codec
from relief_jax.errors import InputError
from relief_jax.guard import Faults, Guard
from relief_jax.placement import Layout, clients_mesh
from relief_jax.recipe import Recipe
from tests import tiny, twin
from tests.equivalence_test import assert_close, assert_same

CLIENTS, PADDING = 7, 5
LIARS = (1, 3)
SAMPLES = [9, 6, 8, 7, 5, 0, 6]
DROP = Guard(drop=True, faults=Faults('nan'))
TRIMMED = Guard(mean='trimmed', trim=0.25)
MEDIAN = Guard(mean='median')


@functools.cache
def world(method='fedavg'):
  """Two sensors; the fourth client of five owners of both is padding."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(4,))
  owned = np.array([[1, 1]] * 4 + [[1, 0], [1, 1], [1, 0]], bool)
  population = tiny.population(task, owned=owned, samples=SAMPLES)
  return task, tiny.with_share(task, population, 0.8)


def setting(method, found=Guard(), liars=(), **overrides):
  """Of `world`, with a guard and these clients faulty."""
  made = tiny.setting(world()[1], method, guard=found, **overrides)
  faulty = jnp.isin(jnp.arange(CLIENTS), jnp.asarray(liars, int))
  hparams = {**made.hparams, 'faulty': faulty.astype(jnp.float32)}
  return made._replace(hparams=hparams)


def by_numpy(found, values):
  """The mean of a cohort's values, [n, ...] -> [...]."""
  if not len(values):
    return np.zeros(values.shape[1:])
  if found.mean == 'median':
    return np.median(values, 0)
  cut = int(found.trim * len(values) + 1e-9)
  return np.sort(values, 0)[cut : len(values) - cut].mean(0)


@pytest.mark.parametrize('parts', [False, True], ids=['groups', 'parts'])
@pytest.mark.parametrize(
  'found',
  [MEDIAN, TRIMMED, Guard(mean='trimmed', trim=0.2)],
  ids=['median', 'trimmed', 'fifth'],
)
def test_robust_means_by_cohort(found, parts):
  task, _ = world()
  num, count = len(task.group_names), 15  # 0.2 * 15 is below 3 in float32
  rng = np.random.default_rng(0)
  params = tiny.init(task)
  delta = jax.tree.map(
    lambda v: rng.normal(size=(count, *v.shape)).astype(np.float32), params
  )
  weight = rng.integers(0, 2, (count, num)).astype(np.float32)
  trained = rng.random((count, num)) < 0.8
  trained[:, 1] &= np.arange(count) < 2  # a cohort of two at most
  trained[:, 2] = False  # and an empty one
  weight[:, 0], trained[:, 0] = 1, True  # and all
  held = jax.tree.map(lambda v: rng.random(v.shape) < 0.7, delta)
  merge = robust.merge(
    task,
    found,
    jnp.asarray(weight),
    jnp.asarray(trained),
    jax.tree.map(jnp.asarray, delta),
    jax.tree.map(jnp.asarray, held) if parts else None,
  )
  voters = (weight > 0) & trained
  assert voters[:, 0].sum() == 15 and voters[:, 3].sum() > 2
  want_spread, want_sq = np.zeros(num), np.zeros(num)
  groups = jax.tree.leaves(
    jax.tree.map(
      lambda g, part: jax.tree.map(lambda _: g, part), task.groups, params
    )
  )
  touched = jax.tree.leaves(
    jax.tree.map(
      lambda t, part: (
        jax.tree.map(lambda v: np.broadcast_to(t, v.shape), part)
        if not parts
        else t
      ),
      merge.touched,
      params if not parts else merge.touched,
    )
  )
  leaves = zip(
    groups,
    jax.tree.leaves(delta),
    jax.tree.leaves(held),
    jax.tree.leaves(merge.mean),
    touched,
    strict=True,
  )
  for g, values, holds, mean, moved in leaves:
    flat = values.reshape(count, -1)
    holds = holds.reshape(count, -1) if parts else np.ones(flat.shape, bool)
    for i, v in enumerate(flat.T):
      mine = v[voters[:, g] & holds[:, i]]
      centre = by_numpy(found, mine)
      assert mean.reshape(-1)[i] == pytest.approx(centre, abs=1e-6)
      assert moved.reshape(-1)[i] == bool(len(mine))
      want_spread[g] += by_numpy(found, np.square(mine - centre))
      want_sq[g] += centre**2
  np.testing.assert_allclose(merge.spread, want_spread, rtol=1e-5)
  np.testing.assert_allclose(merge.mean_sq, want_sq, rtol=1e-5, atol=1e-9)
  np.testing.assert_array_equal(merge.trainers, voters.sum(0))
  assert merge.active == (weight.max(1) > 0).sum()
