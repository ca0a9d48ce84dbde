"""What makes each method of partial training different from FedAvg."""

import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import depth
from relief_jax.errors import InputError
from tests import tiny


def test_levels_count_from_the_output():
  task = tiny.task(modalities=('acc', 'gyro'), groups='layer')
  found = dict(zip(task.group_names, depth.levels(task), strict=True))
  assert found == {
    **{f'encoder{i}/{m}': 3 - i for i in (0, 1) for m in ('acc', 'gyro')},
    **{f'fusion/{m}': 1 for m in ('acc', 'gyro')},
    'shared': 0,
  }
  joint = depth.levels(tiny.task(groups='joint'))
  np.testing.assert_array_equal(joint, [1, 1, 1, 0])
  np.testing.assert_array_equal(depth.levels(tiny.task('lora')), [1, 1, 1, 0])


def shares(side):
  """Depths 1, 2, 4, 3, 4 over four levels: who trains what."""
  task = tiny.task(modalities=('acc',), groups='layer')
  population = tiny.population(task, 5)
  fleet = population.fleet.replace(id=jnp.array([0, 1, 3, 2, 7]))
  setting = tiny.setting(population, 'fedpmt', depth='cycle', side=side)
  _, info = tiny.step('fedpmt', task, population.replace(fleet=fleet), setting)
  count = np.asarray(info.trained).sum(0)
  return dict(zip(task.group_names, count.tolist(), strict=True))


def test_contributors_of_every_depth():
  names = ('encoder0/acc', 'encoder1/acc', 'fusion/acc', 'shared')
  assert shares('output') == dict(zip(names, (2, 3, 4, 5), strict=True))
  assert shares('input') == dict(zip(names, (5, 4, 3, 2), strict=True))


def test_a_cohort_without_a_whole_device_is_refused():
  task = tiny.task()
  population = tiny.population(task)
  found = [
    tiny.algorithm(
      'fedpmt', task, tiny.setting(population, 'fedpmt', depth=rule)
    )
    for rule in ('budget', 'cycle')
  ]
  found[0].check(population.fleet, 1.0)
  with pytest.raises(InputError, match='levels of mag;'):
    found[1].check(population.fleet, 1.0)
  with pytest.raises(InputError, match='all 3 levels of acc, gyro, mag'):
    found[0].check(population.fleet, 0.5)
