"""What makes each method of partial training different from FedAvg."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs
from relief_jax.algorithms import fiarse
from relief_jax.budgets import depth, widths
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from tests.support import tiny


def test_levels_count_from_the_output():
  task = tiny.task(modalities=('acc', 'gyro'), groups='layer')
  found = dict(zip(task.blocks.name, depth.levels(task), strict=True))
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
  return dict(zip(task.blocks.name, count.tolist(), strict=True))


@pytest.mark.slow
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


def test_units_drawn_at_random():
  """In the mean the share, with `exact` its floor, and nothing dropped at 1."""
  units = tiny.task().widths
  keys = jax.random.split(jax.random.key(0), 400)

  def kept(share, exact):
    def one(key):
      return widths.counts(widths.drawn(units, key, share, exact))

    return np.stack(jax.vmap(one)(keys), 1) / np.array(units.sizes)

  share = kept(0.6, False)[:, :-1].mean(0)
  np.testing.assert_allclose(share, 0.6, atol=0.06)
  whole = [np.floor(0.6 * size) / size for size in units.sizes[:-1]]
  np.testing.assert_array_equal(kept(0.6, True)[:, :-1], [whole] * 400)
  np.testing.assert_array_equal(kept(1.0, False), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('exact', 'rate'),
  [
    (False, 'fit'),
    pytest.param(True, 'fit', marks=pytest.mark.slow),
    pytest.param(False, 'sqrt', marks=pytest.mark.slow),
  ],
)
def test_the_drop_rate_meets_the_budget(exact, rate):
  """In every round, whatever is drawn, and most of it is used."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(8, 16), hidden=32)
  population = tiny.population(task, 4)
  every = jnp.ones(task.num_blocks, bool)
  share = jnp.array([1.0, 0.7, 0.5, 0.35])
  budget = share * costs.step_flops(task.work, every[:2], every)
  fleet = population.fleet.replace(
    budget=budget, uplink=jnp.full(4, jnp.inf), downlink=jnp.full(4, jnp.inf)
  )
  setting = tiny.setting(
    population, 'feddrop', deadline=1.0, fill='input', exact=exact, rate=rate
  )
  runs = tiny.run('feddrop', task, population.replace(fleet=fleet), setting, 30)
  seconds = np.stack([info.seconds for _, info in runs])
  ratio = seconds * np.asarray(fleet.speed / (8 * budget))
  np.testing.assert_allclose(ratio[:, 0], 1.0, rtol=1e-5)
  assert ratio.max() <= 1 + 1e-5
  assert (ratio.mean(0) > 0.8).all()
  if not exact:  # counts differ from round to round, unlike budgets
    assert (ratio[:, 1:].std(0) > 0.01).all()


def test_rolling_windows():
  """Over U rounds every unit is kept ceil(s U) times; round 0 is HeteroFL."""
  units = tiny.task().widths
  *hidden, classes = units.sizes
  for layer, size in enumerate(hidden):
    keep = [widths.rolling(units, 0.5, r)[layer] for r in range(size)]
    np.testing.assert_array_equal(np.sum(keep, 0), np.ceil(size / 2))
    np.testing.assert_array_equal(keep[0], np.arange(size) < np.ceil(size / 2))
  np.testing.assert_array_equal(
    widths.rolling(units, 0.5, 1)[-1], [1] * classes
  )


@pytest.mark.slow
@pytest.mark.parametrize('masked', ['zero', 'inf'])
def test_absent_classes_are_left_alone(masked):
  """Their rows of the head move only where somebody has the class."""
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, 3)
  y = jnp.where(population.bank.y == 2, 1, population.bank.y)
  population = population.replace(bank=population.bank.replace(y=y))
  setting = tiny.setting(population, 'heterofl', fill='input', masked=masked)
  state, _ = tiny.step('heterofl', task, population, setting)
  before, now = tiny.init(task)['head'], state.params['head']
  for name in ('w', 'b'):
    np.testing.assert_array_equal(now[name][..., 2], before[name][..., 2])
    # Some units are dead.
    assert (now[name][..., :2] != before[name][..., :2]).any()


def test_the_largest_weights():
  """The count is exact, also among equals."""
  params = {'a': jnp.array([0.0, -3.0, 1.0]), 'b': jnp.array([[1.0, 0.0, 1.0]])}
  shares = (1.0, 0.5, 0.3)
  for layer, counts in ((False, (6, 3, 2)), (True, (6, 4, 2))):
    ends = fiarse.largest_weights(params, shares, layer)
    for i, count in enumerate(counts):
      tau, last = jax.tree.map(lambda v, i=i: v[i], ends)
      held = fiarse.holds(params, tau, last)
      assert sum(int(v.sum()) for v in jax.tree.leaves(held)) == count
    if layer:  # the first of equals
      assert held['a'].tolist() == [False, True, False]
      assert held['b'].tolist() == [[True, False, False]]
    else:
      assert held['a'].tolist() == [False, True, True]
      assert not held['b'].any()


def test_the_surrogate_gradient():
  value = jnp.array([0.5, -2.0, 1.0, 3.0])
  held = jnp.array([True, True, True, False])
  slope = jax.grad(lambda v: fiarse.masked(v, held, 1.0).sum())(value)
  expected = [0.0, 1 + 2 * 2 / 9, 1 + 2 / 4, 0.0]
  np.testing.assert_allclose(slope, expected, rtol=1e-6)
  whole = jax.grad(lambda v: fiarse.masked(v, held | True, 0.0).sum())(
    value.at[0].set(0.0)
  )
  np.testing.assert_array_equal(whole, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['feddrop', 'fiarse', 'heterofl'])
def test_parts_of_layers_in_every_layout(method):
  """One at a time and under a vmap; who sits out holds nothing."""
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.with_share(task, tiny.population(task), 0.6)
  # FIARSE's small sub-models have no head yet, so that one is whole.
  budget = population.fleet.budget.at[:2].set(jnp.array([1e9, 0.0]))
  fleet = population.fleet.replace(budget=budget)
  population = population.replace(fleet=fleet)
  setting = tiny.setting(population, method, deadline=1.0, fill='input')
  found = [
    tiny.step(method, task, population, setting._replace(layout=Layout(block)))[
      0
    ].params
    for block in (1, 0)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), *found
  )
  start = tiny.init(task)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), found[0], start)
  assert any(jax.tree.leaves(moved))
