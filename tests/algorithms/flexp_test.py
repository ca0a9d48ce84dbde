"""Personal ends around a shared middle, served in turn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import flexp_sfl
from relief_jax.errors import InputError
from tests.rounds.split_test import InTurn
from tests.support import tiny
from tests.twins import twin

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))


@functools.cache
def run(clients=None, rounds=1, **values):
  population = tiny.population(TASK)
  if clients:
    population = tiny.only(population, *clients)
  setting = tiny.setting(population, 'flexp_sfl', **values)
  every = list(tiny.run('flexp_sfl', TASK, population, setting, rounds))
  return every, setting, population


@pytest.mark.slow
def test_with_nothing_personal_it_is_sgd_in_turn():
  ((state, info),), setting, population = run(personal=False, align=0.0)
  slow = InTurn(TASK, population, setting)
  slow.given = [set()] * 5
  want = slow.round(0)
  for k, v in twin.named(state.params).items():
    np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
  np.testing.assert_allclose(info.loss, want.loss, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_one_device_with_nothing_personal_is_fedavg():
  """Of that device alone."""
  ((state, _),), _, population = run((3,), personal=False, align=0.0)
  plain = tiny.setting(population, 'fedavg')
  want, _ = tiny.step('fedavg', TASK, population, plain)
  for a, b in zip(
    *map(jax.tree.leaves, (state.params, want.params)), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_nobody_moves_what_is_anothers():
  """Of two that train, front and end; the rest keep their bits."""
  ((state, info),), _, population = run((0, 3))
  kept, start = state.clients.method, tiny.init(TASK)
  personal = 0
  for mine, old in zip(
    jax.tree.leaves(kept.params),
    jax.tree.leaves(
      jax.tree.map(
        lambda a, b: None if a is None else b,
        kept.params,
        start,
        is_leaf=lambda v: v is None,
      )
    ),
    strict=True,
  ):
    personal += 1
    for n in (1, 2, 4):
      np.testing.assert_array_equal(mine[n], old)
    assert not np.array_equal(mine[0], mine[3])
  assert personal
  np.testing.assert_array_equal(np.asarray(info.upload)[[1, 2, 4]], 0)


@pytest.mark.slow
def test_the_alignment_moves_the_middle_alone():
  """No gradient through the server's copy; zero where both are the same."""
  z = [(jnp.ones((2, 3, 4)), jnp.ones((2, 3)))]
  other = [(jnp.arange(24.0).reshape(2, 3, 4), jnp.ones((2, 3)))]
  assert float(flexp_sfl.divergence(z, z)) == 0
  assert float(flexp_sfl.divergence(other, z)) > 0
  slope = jax.grad(lambda x: flexp_sfl.divergence([(x, other[0][1])], z))
  np.testing.assert_array_equal(slope(other[0][0]), 0)
  first = run()[0][0][0]
  ((without, _),), _, _ = run(align=0.0)
  # In the first step all copies are the same, and no device splits before.
  gap = [
    float(np.abs(a - b).max())
    for a, b in zip(
      *map(
        jax.tree.leaves,
        (first.clients.method.params, without.clients.method.params),
      ),
      strict=True,
    )
  ]
  assert max(gap) > 0


@pytest.mark.slow
def test_what_crosses_by_hand():
  """At the front and the split up, in front of the end down; and back."""
  ((_, info),), _, population = run()
  spec = tiny.spec_of(TASK)
  owned = np.asarray(population.fleet.owned).sum(-1)
  front = spec.lengths()[1] * spec.filters[0]
  last = spec.filters[1]
  each = 2 * 4 * 4 * owned  # steps, batch, bytes
  # The front ends at the split: one crossing is both.
  np.testing.assert_array_equal(info.upload, each * (front + last))
  np.testing.assert_array_equal(info.download, each * (front + last))


@pytest.mark.parametrize('values', [{'layers': 2}, {'layers': -1}])
def test_a_split_with_nothing_for_the_server_is_refused(values):
  setting = tiny.setting(tiny.population(TASK), 'flexp_sfl', **values)
  with pytest.raises(InputError, match='for flexp_sfl'):
    tiny.algorithm('flexp_sfl', TASK, setting)
