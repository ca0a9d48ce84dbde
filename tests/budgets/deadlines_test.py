"""Deadlines: by hand, then that they admit exactly what they promise."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax.budgets import deadlines
from relief_jax.costs import step_flops
from relief_jax.errors import InputError
from relief_jax.task import Work
from relief_jax.world import fleets

# Shared head, encoders of a and b, their column blocks; `blocks.least`.
GROUPS = (-1, 0, 1, 0, 1)
SHARED = np.array(GROUPS) < 0
LEAST = np.array([1, 0, 0, 1, 1], bool)
WORK = Work(
  shared=jnp.float32(100),
  fwd=jnp.array([300.0, 600.0]),
  wgrad=jnp.array([50.0, 300, 600, 20, 30]),
  agrad=jnp.array([10.0, 4, 6]),
  path=jnp.array(
    [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=bool
  ),
  size=jnp.ones(5),
)


def make_fleet():
  """A slow owner of a, a fast owner of both, an even faster padding client."""
  fleet = fleets.build(
    'uniform', 3, ('a', 'b'), np.array([5, 5, 0]), np.random.default_rng(0)
  )
  fleet = dataclasses.replace(
    fleet,
    owned=jnp.array([[1, 0], [1, 1], [1, 1]], bool),
    speed=jnp.array([1e3, 10e3, 99e3]),
    tier=jnp.array([0, 1, 1]),
  )
  return deadlines.with_budgets(fleet, WORK, GROUPS)


def close(a, b):
  """Equal but for the documented slack."""
  np.testing.assert_allclose(a, b, rtol=2 * deadlines.SLACK)


# All of it: forward 1000, weights 1000, passes 20.
FULL = 2020.0


def test_by_hand():
  fleet = make_fleet()
  close(deadlines.reference_seconds(fleet, WORK, GROUPS), FULL / 10e3)
  close(fleet.budget[:2], [FULL / 10, FULL])
  # The slow one: forward 400, head 50, column 20 and the pass to it 10.
  close(deadlines.tight(fleet, WORK, GROUPS, LEAST), 480 / (FULL / 10))
  # And its encoder 300, with the pass through the column 4.
  close(deadlines.full(fleet, WORK, GROUPS), 784 / (FULL / 10))


def test_of_equally_fast_devices_the_fullest_counts():
  fleet = dataclasses.replace(make_fleet(), speed=jnp.full(3, 10e3))
  close(deadlines.reference_seconds(fleet, WORK, GROUPS), FULL / 10e3)
  fleet = deadlines.with_budgets(fleet, WORK, GROUPS)
  close(deadlines.full(fleet, WORK, GROUPS), 1)


# As a round does it: float32, compiled, client by client.
compiled_flops = jax.jit(jax.vmap(step_flops, (None, 0, 0)))


def random_case(seed, modalities):
  """A random model on the default fleet, encoders and columns apart."""
  rng = np.random.default_rng(seed)
  names = tuple('abcdef'[:modalities])
  fleet = fleets.build('four_tiers', 12, names, np.full(12, 9), rng)
  groups = (-1, *range(modalities), *range(modalities))
  columns = np.arange(len(groups)) > modalities
  least = columns | (np.asarray(groups) < 0)

  def some(*shape):
    return jnp.asarray(10 ** rng.uniform(1, 8, shape), jnp.float32)

  passes = modalities + 1
  work = Work(
    some(),
    some(modalities),
    some(len(groups)),
    some(passes),
    jnp.asarray(rng.random((passes, len(groups))) < 0.4),
    some(len(groups)),
  )
  return deadlines.with_budgets(fleet, work, groups), work, groups, least


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_deadlines_admit_their_sets_and_no_lower_one_does(seed, modalities):
  fleet, work, groups, least = random_case(seed, modalities)
  shared = np.asarray(groups) < 0
  owned = shared | np.asarray(fleet.owned)[:, groups]
  cases = {'tight': owned & least, 'full': owned}
  for kind, train in cases.items():
    value = deadlines.resolve(kind, fleet, work, groups, least)
    flops = compiled_flops(work, fleet.owned, jnp.asarray(train))
    assert (flops <= fleet.budget * jnp.float32(value)).all()
    assert (flops > fleet.budget * jnp.float32(value * 0.9999)).any()
  tight, full = (
    deadlines.resolve(k, fleet, work, groups, least) for k in cases
  )
  assert tight <= full and full >= 1
  assert deadlines.check(fleet, work, np.asarray(groups) < 0, tight).all()


@pytest.mark.parametrize(
  ('kind', 'value'),
  [('none', math.inf), (2, 2.0), ('1.5', 1.5), (0.1, 0.1), ('1e3', 1e3)],
)
def test_numbers(kind, value):
  fleet = make_fleet()
  assert deadlines.resolve(kind, fleet, WORK, GROUPS, LEAST) == value


@pytest.mark.parametrize(
  'kind', ['thight', '', 0, -1, '-2', math.nan, 'nan', None, True, -math.inf]
)
def test_anything_else_is_refused(kind):
  fleet = make_fleet()
  with pytest.raises(InputError, match=r"'tight'.*a positive number"):
    deadlines.resolve(kind, fleet, WORK, GROUPS, LEAST)


# Forward and head of the slow device.
START = 450 / (FULL / 10)


def test_too_slow_is_refused_with_a_cure_that_works():
  fleet = make_fleet()
  with pytest.raises(InputError) as error:
    deadlines.check(fleet, WORK, SHARED, START * 0.999, ('low', 'full'))
  text = str(error.value)
  assert '1 of 2 devices (tier low)' in text and 'sit_out' in text
  cure = float(text.split('--config.deadline=')[1].split(' ')[0])
  close(cure, 2.228)  # 2.2277 rounded up
  able = deadlines.check(fleet, WORK, SHARED, cure, ('low', 'full'))
  np.testing.assert_array_equal(able, [True, True, False])


def test_sitting_out():
  fleet = make_fleet()
  able = deadlines.check(fleet, WORK, SHARED, 1.0, sit_out=True)
  np.testing.assert_array_equal(able, [False, True, False])
  with pytest.raises(InputError, match='2 of 2 devices'):
    deadlines.check(fleet, WORK, SHARED, 0.1, sit_out=True)


def test_without_a_deadline_everybody_takes_part():
  able = deadlines.check(make_fleet(), WORK, SHARED, math.inf)
  np.testing.assert_array_equal(able, [True, True, False])


def test_joint_groups_have_one_named_deadline():
  """A group that is its own column block: tight is full."""
  fleet = make_fleet()
  every = np.ones(5, bool)
  close(
    deadlines.tight(fleet, WORK, GROUPS, every),
    deadlines.full(fleet, WORK, GROUPS),
  )
