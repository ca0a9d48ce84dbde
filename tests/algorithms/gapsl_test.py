"""Gradients at the split, bent towards the leaders' direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax.algorithms import gapsl_style
from relief_jax.errors import InputError
from tests.support import tiny

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))


def options(**values):
  return gapsl_style.Options(**{'rescale': False, **values})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 2, width=32), st.booleans())
def test_the_cosine_to_the_leader_never_falls(seed, eta, rescale):
  rng = np.random.default_rng(seed)
  mean = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
  leader = gapsl_style.unit(jnp.asarray(rng.normal(size=(3, 5)), jnp.float32))
  new = gapsl_style.corrected(mean, leader, options(eta=eta, rescale=rescale))
  before = (gapsl_style.unit(mean) * leader).sum(-1)
  after = (gapsl_style.unit(new) * leader).sum(-1)
  expected = (before + eta * (1 - before**2)) / jnp.sqrt(
    1 + eta**2 * (1 - before**2)
  )
  np.testing.assert_allclose(after, expected, atol=2e-5)
  assert (np.asarray(after) >= np.asarray(before) - 2e-5).all()
  if rescale:
    np.testing.assert_allclose(
      jnp.linalg.norm(new, axis=-1), jnp.linalg.norm(mean, axis=-1), rtol=1e-5
    )


def test_no_gradient_is_bent_to_nothing():
  zero = jnp.zeros((2, 4))
  leader = gapsl_style.unit(jnp.ones((2, 4)))
  np.testing.assert_array_equal(
    gapsl_style.corrected(zero, leader, options(rescale=True)), zero
  )


def run(method='gapsl_style', population=None, **values):
  population = population or tiny.population(TASK)
  setting = tiny.setting(population, method, layers=1, **values)
  return tiny.step(method, TASK, population, setting, 2)


def gap(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(x - y).max()) for x, y in pairs)


@pytest.mark.slow
def test_without_strength_it_is_parallel_split_learning():
  """And with it, another one: where the split is, not at the server."""
  plain, info = run('psl')
  none, found = run(eta=0.0)
  assert gap(none.server.params, plain.server.params) < 1e-6
  assert gap(none.clients.method.params, plain.clients.method.params) < 1e-6
  np.testing.assert_array_equal(found.upload, info.upload)
  np.testing.assert_array_equal(found.download, info.download)
  bent, _ = run(eta=1.0)
  assert gap(bent.clients.method.params, plain.clients.method.params) > 1e-5


@pytest.mark.slow
def test_two_devices_are_left_alone():
  few = tiny.only(tiny.population(TASK), 0, 3)
  plain, _ = run('psl', few)
  bent, _ = run(population=few, eta=1.0)
  assert gap(bent.clients.method.params, plain.clients.method.params) < 1e-6


@pytest.mark.parametrize('layers', [0, -1])
def test_a_split_with_all_on_one_side_is_refused(layers):
  setting = tiny.setting(tiny.population(TASK), 'gapsl_style', layers=layers)
  with pytest.raises(InputError, match='on the device and something at'):
    tiny.algorithm('gapsl_style', TASK, setting)
