"""The planner of batches and splits: its measures and its training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import hasfl_style
from relief_jax.budgets import cuts
from relief_jax.clients.records import Steps
from relief_jax.errors import InputError
from tests.support import handmade, tiny

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))


def run(rounds=3, **options):
  population = tiny.population(TASK)
  setting = tiny.setting(population, 'hasfl_style', batch=8, **options)
  return list(
    tiny.run('hasfl_style', TASK, population, setting, rounds)
  ), setting


def test_the_variance_of_a_gradient_is_measured_without_bias():
  """Of a quadratic loss sum_i |w - a_i|^2 / 2B it is that of the a_i."""
  task, size, batch = handmade.TASK, 4000, 6
  params, numbers = handmade.params(), handmade.SIZES.sum()

  def loss(params, step):
    flat = jnp.concatenate([v.ravel() for v in jax.tree.leaves(params)])
    points = jax.random.normal(step.key, (batch, numbers))
    each = 0.5 * jnp.square(flat[None] - points).sum(-1)
    return (step.weight * each).sum() / jnp.maximum(step.weight.sum(), 1e-9)

  def one(key):
    weight = (jnp.arange(batch) < 5).astype(jnp.float32)
    step = Steps(
      jnp.zeros(batch, int), weight, jnp.ones(1, bool), None, key=key
    )
    return hasfl_style.halves(task)(loss, params, step)[2].sigma2

  found = jax.vmap(one)(jax.random.split(jax.random.key(1), size)).mean(0)
  np.testing.assert_allclose(found, handmade.SIZES, rtol=0.05)


@pytest.mark.slow
def test_it_measures_plans_and_learns():
  every, setting = run()
  (state, first), *_, (last, info) = every
  seen = last.server.method_state
  assert (np.asarray(seen.sigma2) > 0).all()
  assert int(seen.rounds) == 3 and float(seen.loss) > 0
  # The first round has the deepest split, and is charged for batches of 8.
  points = cuts.required(TASK, 'hasfl_style')
  assert np.isfinite(info.loss).all()
  assert (np.asarray(info.upload) <= np.asarray(first.upload) * 1.001).all()
  assert len(points.layers) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    {'rule': 'random', 'batches': 'random'},
    {'rule': 'fixed', 'layers': 1, 'batches': 'adaptive'},
    {'rule': 'adaptive', 'batches': 'fixed'},
  ],
)
def test_baselines(options):
  every, _ = run(2, **options)
  assert np.isfinite(every[-1][1].loss).all()


def test_epochs_are_refused():
  population = tiny.population(TASK)
  setting = tiny.setting(population, 'hasfl_style', epochs=1)
  with pytest.raises(InputError, match='local_epochs'):
    tiny.algorithm('hasfl_style', TASK, setting)
