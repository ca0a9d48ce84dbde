"""Who takes part: uniform draws at a cost that the fleet's size is not in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.rounds import cohort
from relief_jax.types import Fleet


def fleet(clients):
  """Nothing but ids."""
  ids = jnp.arange(clients, dtype=jnp.int32)
  return Fleet(ids, *[None] * 8)


def draws(clients, size, count):
  """[count, size] cohorts."""
  keys = jax.random.split(jax.random.key(0), count)
  one = jax.jit(lambda key: cohort.draw(key, fleet(clients), size))
  return np.asarray(jax.lax.map(one, keys))


@pytest.mark.parametrize('clients, size', [(40, 10), (40, 1), (12, 7)])
def test_distinct_ordered_and_uniform(clients, size):
  found = draws(clients, size, 2000)
  assert found.dtype == np.int32
  assert (np.diff(found) > 0).all()  # so also distinct
  assert found.min() >= 0 and found.max() < clients
  # Each client about equally often: five deviations of a binomial.
  share = size / clients
  often = np.bincount(found.ravel(), minlength=clients)
  limit = 5 * np.sqrt(2000 * share * (1 - share))
  np.testing.assert_allclose(often, 2000 * share, atol=limit)


def test_pairs_are_uniform_too():
  found = draws(12, 3, 4000)
  together = np.zeros((12, 12))
  for a, b in ((0, 1), (0, 2), (1, 2)):
    np.add.at(together, (found[:, a], found[:, b]), 1)
  often = together[np.triu_indices(12, 1)]
  share = 3 / 66
  limit = 5 * np.sqrt(4000 * share * (1 - share))
  np.testing.assert_allclose(often, 4000 * share, atol=limit)


def test_too_many_repeats_are_drawn_anew(monkeypatch):
  """All values equal at first, as the worst of luck would have it."""
  real, calls = jax.random.randint, []

  def unlucky(key, shape, low, high, dtype):
    calls.append(shape)
    value = real(key, shape, low, high, dtype)
    return jnp.zeros_like(value) if len(calls) == 1 else value

  monkeypatch.setattr(jax.random, 'randint', unlucky)
  found = np.asarray(cohort.draw(jax.random.key(0), fleet(100), 20))
  assert len(set(found.tolist())) == 20 and len(calls) == 2


def test_nothing_of_the_fleet_is_sorted_or_drawn():
  """Only gathers look at a fleet of 4001 when 5 take part."""
  text = (
    jax.jit(lambda key: cohort.draw(key, fleet(4001), 5))
    .lower(jax.random.key(0))
    .as_text()
  )
  assert '4001x' not in text
