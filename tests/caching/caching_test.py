"""Plans of expert caches: bounds, exact solutions, and what fools greedy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import caching
from relief_jax.errors import InputError

some = settings(max_examples=60, deadline=None)


def single(worth, size, capacity, together=1):
  """One user and one server; sets of `worth` {experts: seconds saved}."""
  sets = np.full((len(worth), together), -1)
  for row, those in zip(sets, worth, strict=True):
    row[: len(those)] = those
  rate = np.array([list(worth.values())], float)
  return caching.Problem(sets, rate, [[0.0]], [1.0], size, [capacity]).checked()


@st.composite
def problems(draw, together, servers=1):
  """Small ones, of up to five experts and three users."""
  experts = draw(st.integers(2, 5))
  users = draw(st.integers(1, 3))
  every = list(itertools.combinations(range(experts), min(together, experts)))
  sets = draw(st.lists(st.sampled_from(every), min_size=1, max_size=6))
  number = st.integers(0, 9)

  def array(shape, values=number):
    return np.array(
      draw(
        st.lists(
          values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
        )
      )
    ).reshape(shape)

  rate = array((users, len(sets)))
  rate[0, 0] += 1
  near = array((users, servers)).astype(float)
  near[near == 9] = np.inf
  return caching.Problem(
    np.array(sets),
    rate,
    near,
    array(users) + 3,
    array(experts, st.integers(1, 3)),
    array(servers, st.integers(0, 5)),
  ).checked()


def fits(problem, placed):
  return (placed @ problem.size <= problem.capacity).all()


@some
@given(problems(1))
def test_one_expert_a_token_in_one_cache(problem):
  """Both bounds, and dynamic programming is exact."""
  best = caching.saving(problem, caching.exhaustive(problem))
  for placed, bound in (
    (caching.greedy(problem), 1 - np.exp(-0.5)),
    (caching.enumerated(problem), 1 - np.exp(-1)),
    (caching.successive(problem), 1.0),
  ):
    assert fits(problem, placed)
    assert caching.saving(problem, placed) >= bound * best * (1 - 1e-9)


@some
@given(problems(1, servers=2))
def test_one_expert_a_token_in_two_caches(problem):
  best = caching.saving(problem, caching.exhaustive(problem))
  placed = caching.successive(problem)
  assert fits(problem, placed)
  assert caching.saving(problem, placed) >= best / 2 * (1 - 1e-9)


@some
@given(st.sampled_from([2, 3]).flatmap(problems))
def test_several_experts_a_token_in_one_cache(problem):
  best = caching.saving(problem, caching.exhaustive(problem))
  placed = caching.successive(problem)
  assert fits(problem, placed)
  np.testing.assert_allclose(caching.saving(problem, placed), best, atol=1e-9)


@some
@given(problems(2, servers=2))
def test_further_passes_never_save_less(problem):
  once, again = (caching.successive(problem, n) for n in (1, 3))
  assert fits(problem, again)
  assert caching.saving(problem, again) >= caching.saving(problem, once) - 1e-9


def test_experts_that_work_together_fool_greedy():
  """Experts 1 and 2 are worth 10 together only, 3 and 4 are worth 1 each."""
  problem = single({(0, 1): 10, (2,): 1, (3,): 1}, [1] * 4, 2, together=2)
  values = {
    solve: caching.saving(problem, solve(problem))
    for solve in (caching.greedy, caching.successive, caching.exhaustive)
  }
  assert list(values.values()) == [2.0, 10.0, 10.0]


def test_the_best_single_expert_saves_the_bound():
  """The density of the small one is higher, its worth is not."""
  problem = single({(0,): 2, (1,): 10}, [1, 10], 10)
  assert caching.saving(problem, caching.greedy(problem)) == 10


def test_waits_by_hand():
  """Two users; one reaches the first server alone."""
  sets = np.array([[0, 1], [2, -1]])
  problem = caching.Problem(
    sets, [[1, 1], [2, 0]], [[0.1, np.inf], [0.1, 0.2]], [1, 3], [1] * 3, [2, 2]
  ).checked()
  placed = np.array([[1, 0, 0], [0, 1, 0]], bool)
  # The first user waits for expert 1, the second for the second server.
  assert caching.latency(problem, placed) == pytest.approx((1 + 1 + 0.4) / 4)
  assert caching.saving(problem, placed) == pytest.approx(2 * 2.8)


tables = st.lists(st.integers(0, 20), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(tables, tables, st.booleans(), st.booleans())
def test_convolutions(first, second, falls, drops):
  """Concave ones, and others, beside all pairs."""
  size = min(len(first), len(second))
  pair = []
  for steps, concave in ((first, falls), (second, drops)):
    steps = sorted(steps[:size], reverse=True) if concave else steps[:size]
    pair.append(np.concatenate([[0.0], np.cumsum(steps)]))
  found, place = caching.max_convolution(*pair)
  for b in range(size + 1):
    assert found[b] == max(pair[0][a] + pair[1][b - a] for a in range(b + 1))
    assert found[b] == pair[0][place[b]] + pair[1][b - place[b]]


def test_routes_become_sets():
  routes = [np.array([[1, 1, 0], [1, 1, 0]]), np.array([[0, 0, 1], [1, 1, 0]])]
  problem = caching.of_routes(routes, [[0.0], [0.0]], [1, 1], [1] * 3, [2])
  rates = {
    tuple(row[row >= 0]): rate.tolist()
    for row, rate in zip(problem.sets, problem.rate.T, strict=True)
  }
  assert rates == {(0, 1): [2, 1], (2,): [0, 1]}
  assert caching.latency(problem, caching.successive(problem)) == 0.25


def test_more_memory_never_waits_longer():
  problem = single({(0, 1): 10, (2,): 1, (3,): 1}, [1] * 4, 2, together=2)
  found = caching.curve(problem, range(5))
  assert found['exhaustive'] == found['successive']
  assert found['exhaustive'][2] == pytest.approx(2 / 12)
  assert (np.diff(list(found.values())) <= 1e-12).all()
  two = problem._replace(near=np.zeros((1, 2)), capacity=np.array([1, 1]))
  found = caching.curve(two, [1])
  assert np.isnan(found['enumerated'][0])  # for one cache only


def test_what_means_nothing_is_refused():
  good = dict(
    sets=[[0, 1]], rate=[[1]], near=[[0]], far=[1], size=[1, 1], capacity=[1]
  )
  caching.Problem(**good).checked()
  for wrong, match in (
    ({'size': [1.5, 1]}, 'divide bytes'),
    ({'size': [0, 1]}, 'mend size'),
    ({'rate': [[1, 1]]}, 'a row per user'),
    ({'rate': [[0]]}, 'give rates'),
    ({'rate': [[np.nan]]}, 'mend rate'),
    ({'near': [[np.nan]]}, 'mend near'),
    ({'far': [np.inf]}, 'mend far'),
    ({'sets': [[0, 2]]}, 'give a size'),
    ({'sets': [0, 1]}, 'pad shorter'),
  ):
    with pytest.raises(InputError, match=match):
      caching.Problem(**{**good, **wrong}).checked()
  with pytest.raises(InputError, match='give a size'):
    caching.of_routes([np.ones((2, 3))], [[0]], [1], [1, 1], [1])
  many = single({tuple(range(13)): 1}, [1] * 13, 2, together=13)
  with pytest.raises(InputError, match='caching.greedy'):
    caching.successive(many)
  with pytest.raises(InputError, match='caching.successive'):
    caching.exhaustive(many._replace(size=np.ones(20, int)))
  two = many._replace(capacity=np.array([1, 1]), near=np.zeros((1, 2)))
  with pytest.raises(InputError, match='caching.greedy'):
    caching.enumerated(two)
