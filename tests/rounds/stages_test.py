"""Two algorithms one after the other, each a counter."""

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.rounds.records import Algorithm
from relief_jax.rounds.stages import stages


def counter(by):
  """Adds to its state, and tells what it was."""

  def step(key, state, population, hparams):
    del key, population, hparams
    return state + by, {'was': state}

  return Algorithm(
    init=lambda key, params: params,
    step=step,
    params=lambda state: {'model': state},
    personal=by == 100.0,
  )


BOTH = stages(
  counter(1.0),
  counter(100.0),
  begin=lambda hparams: hparams['begin'],
  # The second stage starts from ten times what the first one has.
  hand_over=lambda first, second, population: second * 0 + 10 * first,
)


def ran(begin, rounds=5):
  """Models after each round and what the rounds told."""
  state = BOTH.init(jax.random.key(0), jnp.float32(2))
  hparams = {'begin': jnp.int32(begin)}
  step = jax.jit(BOTH.step)
  models, told = [], []
  for _ in range(rounds):
    state, info = step(jax.random.key(1), state, (), hparams)
    models.append(float(BOTH.params(state)['model']))
    told.append(float(info['was']))
  return models, told, state


def test_the_second_goes_on_where_the_first_one_ends():
  models, told, state = ran(2)
  np.testing.assert_array_equal(models, [30, 40, 140, 240, 340])
  np.testing.assert_array_equal(told, [2, 3, 40, 140, 240])
  assert (state.first, state.second, state.round) == (4, 340, 5)


def test_either_stage_may_be_all_of_a_run():
  models, told, state = ran(9)
  np.testing.assert_array_equal(models, [30, 40, 50, 60, 70])
  np.testing.assert_array_equal(told, [2, 3, 4, 5, 6])
  models, told, state = ran(0)  # nothing is handed over
  np.testing.assert_array_equal(models, [102, 202, 302, 402, 502])
  assert state.first == 2


def test_what_is_tested_is_the_second_one_s_model():
  assert BOTH.personal and not counter(1.0).personal
