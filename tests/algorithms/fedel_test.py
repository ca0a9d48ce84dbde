"""The window of FedEL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs
from relief_jax.config import validation
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from tests.support import tiny

BLOCKS = 3


@pytest.mark.slow
def test_every_block_is_in_a_window_once_a_sweep():
  """Whatever a device affords; what is trained lies in its window."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(3, 3, 4), exits=True)
  owned = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1]], bool)
  population = tiny.population(task, owned=owned)
  fleet = population.fleet
  every = jnp.ones(task.num_blocks, bool)
  share = jnp.array([0.3, 0.5, 0.8, 0.001, 9.0])
  budget = share * costs.step_flops(task.work, fleet.owned, every)
  population = population.replace(fleet=fleet.replace(budget=budget))
  setting = tiny.setting(population, 'fedel', deadline=1.0, steps=1)
  block = np.array(
    [int(g[7]) if g.startswith('encoder') else -1 for g in task.blocks.name]
  )
  low, start = np.zeros(5, int), np.zeros(5, int)
  seen = [set() for _ in range(5)]
  sweeps = np.zeros(5, int)
  for state, info in tiny.run('fedel', task, population, setting, 8):
    after = np.asarray(state.clients.method.start)
    for n in range(5):
      high = after[n] - 1 if after[n] else BLOCKS - 1
      assert 0 <= low[n] <= start[n] <= high < BLOCKS
      seen[n] |= set(range(low[n], high + 1))
      trained = set(block[np.asarray(info.trained)[n]]) - {-1}
      assert trained <= set(range(low[n], high + 1))
      if not after[n]:
        assert seen[n] == set(range(BLOCKS))
        seen[n], sweeps[n] = set(), sweeps[n] + 1
      else:
        assert state.clients.method.low[n] == min(trained, default=high + 1)
    low, start = np.asarray(state.clients.method.low), after
  # The poorest stops behind every block, the richest never.
  np.testing.assert_array_equal(sweeps[[3, 4]], [2, 8])
  assert (sweeps >= 2).all() and (sweeps < 8)[:3].all()
  assert not np.asarray(info.trained)[3].any()


@pytest.mark.slow
def test_every_layout_leaves_by_the_same_exit():
  """A branch per exit, or under a vmap all of them and one that counts."""
  task = tiny.task(modalities=('acc', 'gyro'), exits=True)
  population = tiny.with_share(task, tiny.population(task), 0.6)
  setting = tiny.setting(population, 'fedel', deadline=1.0)
  found = [
    tiny.step(
      'fedel', task, population, setting._replace(layout=Layout(block)), 3
    )[0]
    for block in (1, 0)
  ]
  np.testing.assert_array_equal(
    found[0].clients.method.start, found[1].clients.method.start
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
    *[state.params for state in found],
  )


def test_a_share_is_a_share():
  with pytest.raises(InputError, match='fedel.beta is 1.5'):
    validation.validate(tiny.config(**{'fedel.beta': 1.5}))
