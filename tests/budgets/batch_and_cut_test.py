"""The choice of batch and split, against all plans of few devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.budgets import batch_and_cut, cuts, server_order

GRID = jnp.array([1, 2, 4, 8])
HELD = jnp.array([[1, 0, 0], [1, 1, 0]], bool)


def problem(seed, devices, same=False, **changes):
  """Two points: the deeper one takes more time and crosses less."""
  rng = np.random.default_rng(seed)
  count = 1 if same else devices
  speed, link = rng.uniform(0.2, 5, (2, count, 1)).repeat(devices // count, 1)
  flops, crossing = np.array([[1.0, 3.0]]), np.array([[4.0, 1.0]])
  zero = np.zeros((devices, 2))
  each = cuts.Prices(
    *map(
      lambda v: jnp.asarray(v, jnp.float32),
      (
        flops / speed + crossing / link,
        0.1 * (4 - flops) + zero,
        2 * flops / speed + crossing / link,
        zero,
        zero,
        flops + zero,
        zero,
        zero,
      ),
    )
  )
  one = each._replace(memory=each.memory + 2)
  values = dict(
    grid=GRID,
    one=one,
    more=each,
    merge=jnp.asarray(0.5 * flops / link, jnp.float32),
    memory=jnp.asarray(rng.uniform(8, 30, (count,)).repeat(devices // count)),
    active=jnp.ones(devices, bool),
    held=HELD,
    order=server_order.barrier,
    bound=batch_and_cut.Bound(
      sigma2=jnp.asarray(rng.uniform(0.5, 2, 3), jnp.float32),
      squares=jnp.asarray(rng.uniform(0, 0.01, 3), jnp.float32),
      gap=jnp.float32(1),
      beta=1.0,
      rate=jnp.float32(0.1),
      every=2,
      target=0.0,
    ),
  )
  bound = values['bound']._replace(
    **{k: v for k, v in changes.items() if k in bound_fields()}
  )
  rest = {k: v for k, v in changes.items() if k not in bound_fields()}
  return batch_and_cut.Problem(**{**values, 'bound': bound, **rest})


def bound_fields():
  return batch_and_cut.Bound._fields


def every_plan(found, target):
  devices = len(found.active)
  choices = itertools.product(np.asarray(GRID), range(2))
  plans = np.array(list(itertools.product(list(choices), repeat=devices)))
  cost = jax.vmap(
    lambda p: batch_and_cut.objective(found, target, p[:, 0], p[:, 1])
  )
  return np.asarray(cost(jnp.asarray(plans)))


@pytest.mark.slow
@pytest.mark.parametrize(
  'devices',
  [
    1,
    pytest.param(2, marks=pytest.mark.slow),
    pytest.param(3, marks=pytest.mark.slow),
  ],
)
def test_few_devices_get_the_best_of_all_plans(devices):
  for seed in range(4):
    found = problem(seed, devices)
    target = 2 * batch_and_cut.noise(found, *batch_and_cut.start(found, 8))
    found = found._replace(bound=found.bound._replace(target=float(target)))
    batch, at, cost = batch_and_cut.solve(found)
    assert float(cost) <= every_plan(found, target).min() * 1.01
    assert np.isfinite(cost) and np.isin(batch, GRID).all()
    own = batch_and_cut.priced(found, batch, at)
    assert (own.memory <= found.memory).all()
    first = batch_and_cut.objective(
      found, target, *batch_and_cut.start(found, 8)
    )
    assert float(cost) <= float(first)


@pytest.mark.slow
def test_equal_devices_get_equal_plans():
  batch, at, _ = batch_and_cut.solve(problem(1, 4, same=True))
  assert len(set(np.asarray(batch).tolist())) == 1
  assert len(set(np.asarray(at).tolist())) == 1


@pytest.mark.slow
def test_a_slow_link_moves_the_split_to_where_less_crosses():
  """And a slow processor to where less is computed."""
  none = {'memory': None, 'squares': jnp.zeros(3)}
  fast, slow = (problem(2, 3, **none) for _ in range(2))

  def with_times(found, flops, crossing):
    zero = found.one.server
    ahead = jnp.array([[flops + 4 * crossing, 3 * flops + crossing]])
    each = found.one._replace(
      ahead=ahead + 0 * zero, behind=ahead + 0 * zero, server=0 * zero
    )
    return found._replace(one=each, more=each, merge=0 * zero)

  _, at, _ = batch_and_cut.solve(with_times(fast, 0.01, 1.0))
  np.testing.assert_array_equal(at, 1)
  _, at, _ = batch_and_cut.solve(with_times(slow, 1.0, 0.01))
  np.testing.assert_array_equal(at, 0)


def test_without_averages_nothing_drifts():
  found = problem(3, 2, every=1)
  at = jnp.array([0, 1])
  batch = jnp.array([4, 4])
  alone = batch_and_cut.noise(found, batch, at)
  expected = 0.1 / 4 * found.bound.sigma2.sum() * (1 / 4 + 1 / 4)
  assert float(alone) == pytest.approx(float(expected), rel=1e-5)
  more = problem(3, 2, every=2)
  assert float(batch_and_cut.noise(more, batch, at)) > float(alone)


@pytest.mark.slow
def test_a_target_out_of_reach_keeps_the_start():
  found = problem(0, 2, target=1e-9)
  batch, at, cost = batch_and_cut.solve(found)
  assert np.isinf(cost)
  first = batch_and_cut.start(found, 8)
  np.testing.assert_array_equal(batch, first[0])
  np.testing.assert_array_equal(at, first[1])
