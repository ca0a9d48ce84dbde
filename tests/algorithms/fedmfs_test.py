"""Shapley values, and what they choose."""

import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import fedmfs_style
from relief_jax.algorithms.parts import shapley
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from tests.support import tiny
from tests.twins import fedmfs_twin


def game(players, seed=0):
  """Worths of all coalitions, and the table of who is in."""
  inside = shapley.coalitions(players)
  return inside, np.random.default_rng(seed).normal(size=len(inside))


@pytest.mark.parametrize('players', [1, 2, 3, 4])
def test_axioms(players):
  inside, worth = game(players)
  phi = shapley.values(worth)
  np.testing.assert_allclose(phi.sum(), worth[-1] - worth[0])  # efficiency
  other = game(players, 1)[1]
  np.testing.assert_allclose(  # linearity
    shapley.values(2 * worth + other), 2 * phi + shapley.values(other)
  )
  # Symmetry: players whose places in the game are exchanged exchange values.
  swap = inside[:, ::-1]
  place = (swap * 2 ** np.arange(players)).sum(1)
  np.testing.assert_allclose(shapley.values(worth[place]), phi[::-1])
  # A player whom nobody notices.
  deaf = worth[(inside[:, 1:] * 2 ** np.arange(1, players)).sum(1)]
  np.testing.assert_allclose(shapley.values(deaf)[0], 0, atol=1e-12)
  # A player who always adds the same.
  steady = deaf + 3.0 * inside[:, 0]
  np.testing.assert_allclose(shapley.values(steady)[0], 3.0)


def test_equals_are_paid_alike():
  """By hand: the second and third need each other, the first nobody."""
  inside = shapley.coalitions(3)
  worth = 2.0 * inside[:, 0] + 6.0 * (inside[:, 1] & inside[:, 2])
  np.testing.assert_allclose(shapley.values(worth), [2, 3, 3])


def test_too_many_players():
  with pytest.raises(InputError, match='at most 8'):
    shapley.coalitions(9)


def test_scaled_among_those_owned():
  owned = jnp.array([True, False, True, True])
  found = fedmfs_style.scaled(jnp.array([1.0, 9.0, 3.0, 2.0]), owned)
  np.testing.assert_allclose(found, [0, 0, 1, 0.5])
  np.testing.assert_array_equal(fedmfs_style.scaled(jnp.ones(4), owned), 0)


OPTIONS = (
  {'shapley': 1.0, 'size': 0.0, 'recency': 0.0},
  {'shapley': 0.4, 'size': 0.3, 'recency': 0.5, 'top': 1},
)


def world():
  """Six devices with two or three sensors, one without, short of time."""
  task = tiny.task()
  owned = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]])
  population = tiny.population(task, owned=owned)
  share = np.array([0.75, 0.9, 0.85, 0.9, 5.0])
  return task, tiny.with_share(task, population, share)


@pytest.mark.slow
@pytest.mark.parametrize('options', OPTIONS)
def test_equals_a_loop_over_orders(options):
  """Values, choices, FLOPs and bytes, over three rounds."""
  task, population = world()
  setting = tiny.setting(
    population, 'fedmfs_style', deadline=1.0, steps=6, **options
  )
  slow = fedmfs_twin.MeritTwin(task, population, setting)
  fleet = population.fleet
  for number, (_, info) in enumerate(
    tiny.run('fedmfs_style', task, population, setting, 3)
  ):
    want = slow.round(number)
    found = [
      {g for g, on in zip(task.blocks.name, row, strict=True) if on}
      for row in np.asarray(info.trained)
    ]
    assert found == want.trained
    np.testing.assert_allclose(info.upload, want.upload)
    flops = np.array(
      [slow.spent(n, chosen) for n, chosen in enumerate(want.trained)]
    )
    assert (flops <= fleet.budget * (1 + 1e-5)).all()
    busy = 24 * flops / fleet.speed
    busy += 8 * (info.upload / fleet.uplink + info.download / fleet.downlink)
    np.testing.assert_allclose(info.seconds, busy, rtol=1e-5)
  # Some measured, some had nothing to choose, and not all trained all.
  measured = {n for _, n in slow.phi}
  assert measured and 1 not in measured
  assert any(found[n] != slow.access(n) for n in measured)


@pytest.mark.slow
def test_the_same_in_every_layout():
  task, population = world()
  setting = tiny.setting(
    population, 'fedmfs_style', deadline=1.0, steps=6, **OPTIONS[0]
  )
  one, block = (
    tiny.step(
      'fedmfs_style', task, population, setting._replace(layout=Layout(size)), 2
    )[1]
    for size in (1, 2)
  )
  np.testing.assert_array_equal(one.trained, block.trained)
  np.testing.assert_allclose(one.loss, block.loss, rtol=1e-5)
