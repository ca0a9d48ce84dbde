"""Which sensors the pooled model is trained with."""

import chex
import jax
import numpy as np
import pytest

from tests.support import tiny
from tests.twins import twin


def trained(population, task, **given):
  setting = tiny.setting(population, 'centralized', **given)
  state, info = tiny.step('centralized', task, population, setting)
  return state[0], info


def moved(task, params):
  """Names of the parameters that differ from their start."""
  before, now = twin.named(tiny.init(task)), twin.named(params)
  return {k for k, v in now.items() if not np.array_equal(v, before[k])}


@pytest.mark.slow
def test_sensors_that_nobody_has_train_only_where_all_are_on():
  # Many filters, of which some answer to a constant.
  task = tiny.task(modalities=('acc', 'gyro'), filters=(8, 16))
  alone = tiny.population(task, owned=[[1, 0]] * 3, fill=-1.5)
  fleet, some = trained(alone, task)
  complete, every = trained(alone, task, sensors='complete')
  filled, _ = trained(alone, task, fill='input')
  assert {k for k in moved(task, fleet) if 'gyro' in k} == set()
  for params in (complete, filled):
    assert any('encoder/gyro' in k for k in moved(task, params))
  # One encoder is run and trained, not two.
  assert some.seconds.sum() < every.seconds.sum()


@pytest.mark.slow
def test_a_fleet_with_all_sensors_is_the_complete_one():
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, owned=[[1, 1]] * 3)
  found = [
    trained(population, task, sensors=sensors)[0]
    for sensors in ('fleet', 'complete')
  ]
  chex.assert_trees_all_equal(*found)


@pytest.mark.slow
def test_padding_lends_no_sensors():
  """A device without data owns all; only the others' sensors are drawn."""
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(
    task, owned=[[1, 0], [1, 1], [1, 0]], samples=[6, 0, 7]
  )
  params, _ = trained(population, task)
  assert not any('gyro' in k for k in moved(task, params))
  assert all(np.isfinite(v).all() for v in jax.tree.leaves(params))
