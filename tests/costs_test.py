"""Costs by hand: two modalities, five groups, every figure on paper.

Groups: 0 shared head, 1 and 2 the encoders of a and b, 3 and 4 their columns.
The head's gradient (10 FLOPs) is passed on for every other group; each column
block's gradient (4 for a, 6 for b) only for the encoder below it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax.costs import idle_joules, round_costs, step_flops, total
from relief_jax.task import CostOverride, Plan, Work
from relief_jax.types import Fleet

WORK = Work(
  shared=jnp.float32(100),
  fwd=jnp.array([1000.0, 2000.0]),
  wgrad=jnp.array([50.0, 1000, 2000, 20, 30]),
  agrad=jnp.array([10.0, 4, 6]),
  path=jnp.array(
    [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=bool
  ),
  size=jnp.array([8.0, 100, 200, 10, 20]),
)


def mask(*numbers, size=5):
  return jnp.array([i in numbers for i in range(size)])


def make_fleet(samples):
  clients = len(samples)
  return Fleet(
    id=jnp.arange(clients),
    owned=jnp.ones((clients, 2), bool),
    tier=jnp.zeros(clients, jnp.int32),
    samples=jnp.array(samples, jnp.int32),
    speed=jnp.full(clients, 1000.0),
    uplink=jnp.full(clients, 400.0),
    downlink=jnp.full(clients, 800.0),
    watts=jnp.tile(jnp.array([5.0, 3, 2, 1]), (clients, 1)),
    budget=jnp.ones(clients),
  )


@pytest.mark.parametrize(
  ('run', 'train', 'flops'),
  [
    ((), (), 100),
    ((0,), (), 100 + 1000),
    ((0,), (0,), 1100 + 50),
    # The column's own gradient, and the pass through the head to reach it.
    ((0,), (0, 3), 1150 + 20 + 10),
    # An encoder needs the pass through its column too, trained or not.
    ((0,), (0, 1), 1150 + 1000 + 10 + 4),
    # The pass through the head is shared, hence paid once.
    ((0,), (0, 1, 3), 1150 + 1000 + 20 + 10 + 4),
    ((0, 1), (0, 1, 2, 3, 4), 3100 + 3100 + 20),
  ],
)
def test_step_flops_by_hand(run, train, flops):
  assert step_flops(WORK, mask(*run, size=2), mask(*train)) == flops


def test_costs_of_groups_are_not_additive():
  run = mask(0, size=2)
  idle = step_flops(WORK, run, mask())
  one, other, both = (
    step_flops(WORK, run, mask(*s)) - idle for s in ((1,), (3,), (1, 3))
  )
  assert both == one + other - 10


def test_round_by_hand():
  """4 samples of 2184 FLOPs at 1000 FLOP/s; 118 numbers each way."""
  groups = mask(0, 1, 3)[None]
  plan = Plan(mask(0, size=2)[None], groups, groups.astype(jnp.float32))
  sent = 4 * total(groups, WORK.size)
  costs = round_costs(WORK, make_fleet([7]), plan, jnp.array([4.0]), sent, sent)
  compute, sending, receiving = 8.736, 472 * 8 / 400, 472 * 8 / 800
  np.testing.assert_allclose(costs.flops, [8736])
  np.testing.assert_allclose(costs.upload, [118 * 4])
  np.testing.assert_allclose(costs.download, [118 * 4])
  np.testing.assert_allclose(costs.seconds, [compute + sending + receiving])
  np.testing.assert_allclose(
    costs.joules, [5 * compute + 3 * sending + 2 * receiving], rtol=1e-6
  )
  assert all(x.dtype == jnp.float32 for x in costs)


def test_bytes_of_both_links_are_charged_apart():
  groups = mask(0, 1, 2, 3, 4)[None]
  plan = Plan(jnp.ones((1, 2), bool), groups, groups.astype(jnp.float32))
  costs = round_costs(
    WORK, make_fleet([1]), plan, jnp.zeros(1), jnp.array([50.0]), jnp.ones(1)
  )
  np.testing.assert_allclose(costs.upload, [50])
  np.testing.assert_allclose(costs.download, [1])
  np.testing.assert_allclose(costs.seconds, [1 + 0.01])
  np.testing.assert_allclose(costs.joules, [3 * 1 + 2 * 0.01])


def test_padding_and_sitting_out_cost_nothing():
  """Even a padding client without speed or links: no NaN may leak."""
  fleet = make_fleet([7, 0, 7])
  fleet = dataclasses.replace(
    fleet,
    speed=fleet.speed.at[1].set(0),
    uplink=fleet.uplink.at[1].set(0),
    downlink=fleet.downlink.at[1].set(0),
  )
  works = jnp.array([True, True, False])[:, None]
  train = jnp.ones((3, 5), bool) & works
  plan = Plan(jnp.ones((3, 2), bool) & works, train, train * 1.0)
  costs = round_costs(WORK, fleet, plan, *[jnp.full(3, 4.0)] * 3)
  for name, field in costs._asdict().items():
    assert field[0] > 0 or name == 'waiting'
    np.testing.assert_array_equal(field[1:], 0)
  np.testing.assert_array_equal(idle_joules(fleet, costs.seconds), 0)


def test_waiting_inside_a_round_takes_time_and_idle_power():
  fleet = make_fleet([7, 7])
  every = jnp.ones((2, 5), bool)
  plan = Plan(jnp.ones((2, 2), bool), every, every * 1.0)
  cost = CostOverride(waiting=jnp.array([3.0, 0.0]))
  late = plan._replace(cost=cost)
  costs, plain = (
    round_costs(WORK, fleet, p, *[jnp.full(2, 4.0)] * 3) for p in (late, plan)
  )
  np.testing.assert_allclose(costs.seconds, plain.seconds + cost.waiting)
  np.testing.assert_array_equal(costs.joules, plain.joules)
  found = idle_joules(fleet, costs.seconds, costs.waiting)
  np.testing.assert_allclose(found, [3, 3])


def test_waiting_costs_idle_power():
  waiting = idle_joules(make_fleet([1, 1, 0]), jnp.array([2.0, 10, 0]))
  np.testing.assert_allclose(waiting, [8, 0, 0])


def test_costs_add_up_over_steps_and_clients():
  fleet = make_fleet([1, 1])
  train = jnp.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
  plan = Plan(jnp.array([[1, 0], [1, 1]], bool), train, train * 1.0)

  def costs(samples):
    sent = total(train, WORK.size)
    return round_costs(WORK, fleet, plan, samples, sent, sent)

  once, twice = costs(jnp.full(2, 3.0)), costs(jnp.full(2, 6.0))
  np.testing.assert_allclose(twice.flops, 2 * once.flops)
  np.testing.assert_allclose(twice.upload, once.upload)
  alone = jax.tree.map(lambda x: x[1:], (fleet, plan))
  sent = total(train, WORK.size)[1:]
  alone = round_costs(WORK, *alone, jnp.full(1, 3.0), sent, sent)
  for both, single in zip(once, alone, strict=True):
    np.testing.assert_allclose(both[1:], single)


sets = st.lists(st.booleans(), min_size=5, max_size=5)


@settings(max_examples=50, deadline=None)
@given(sets, sets)
def test_a_larger_set_never_costs_less(some, more):
  run = jnp.ones(2, bool)
  small = step_flops(WORK, run, jnp.array(some))
  large = step_flops(WORK, run, jnp.array(some) | jnp.array(more))
  union = step_flops(WORK, run, jnp.array(more)) + small
  assert small <= large <= union - step_flops(WORK, run, mask())


def test_jit_and_vmap_agree_with_numpy():
  rng = np.random.default_rng(0)
  groups, passes, clients = 40, 20, 16
  wgrad, fwd, agrad = (
    rng.integers(1, 10**8, n).astype(np.float32) for n in (groups, 6, passes)
  )
  path = rng.random((passes, groups)) < 0.1
  work = Work(
    jnp.float32(7e6), *map(jnp.asarray, (fwd, wgrad, agrad, path, wgrad))
  )
  run, train = (rng.random((clients, n)) < 0.5 for n in (6, groups))
  want = [
    7e6
    + fwd.astype(np.float64)[r].sum()
    + wgrad.astype(np.float64)[t].sum()
    + agrad.astype(np.float64)[(path & t).any(1)].sum()
    for r, t in zip(run, train, strict=True)
  ]
  batched = jax.jit(step_flops)(work, run, train)
  mapped = jax.jit(jax.vmap(step_flops, (None, 0, 0)))(work, run, train)
  np.testing.assert_allclose(batched, want, rtol=1e-6)
  np.testing.assert_allclose(mapped, want, rtol=1e-6)


def test_sums_keep_full_precision_on_accelerators():
  """TF32 would round 16385 to 16384 and let a set pass over its budget."""
  text = jax.jit(step_flops).lower(WORK, mask(0, size=2), mask(0)).as_text()
  assert text.count('precision = [HIGHEST, HIGHEST]') == 3
