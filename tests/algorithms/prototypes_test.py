"""Prototypes, dispersion and confidence, and the methods made of them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms.parts import prototypes
from relief_jax.algorithms.parts.prototypes import Prototypes, Sums
from tests.support import tiny
from tests.twins import prototype_twin, twin

SAMPLES = [9, 6, 8, 0, 7, 5]
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [0, 1], [1, 1]], bool)


@functools.cache
def world(whole=False):
  task = tiny.task(modalities=('acc', 'gyro'))
  owned = np.ones_like(OWNED) if whole else OWNED
  return task, tiny.population(task, owned=owned, samples=SAMPLES)


def test_running_means_of_prototypes():
  """By the number of updates, and only where somebody sent something."""
  old = Prototypes(
    {'acc': jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])},
    {'acc': jnp.array([3, 1, 0])},
  )
  sums = Sums(
    {'acc': jnp.array([[8.0, 4.0], [0.0, 0.0], [5.0, 7.0]])},
    {'acc': jnp.array([4.0, 0.0, 2.0])},
  )
  found = prototypes.update(old, sums, jnp.bool_(True))
  want = [[(3 * 1 + 2) / 4, (3 * 2 + 1) / 4], [3, 4], [2.5, 3.5]]
  np.testing.assert_allclose(found.mean['acc'], want)
  assert found.updates['acc'].tolist() == [4, 1, 1]
  chex.assert_trees_all_equal(
    prototypes.update(old, sums, jnp.bool_(False)), old
  )


def test_weights_of_windows_and_of_means():
  sums = Sums(
    {'acc': jnp.array([[6.0], [0.0]])}, {'acc': jnp.array([3.0, 0.0])}
  )
  by_window = prototypes.weighted(sums, {'acc': jnp.float32(0.5)})
  assert by_window.features['acc'].tolist() == [[3.0], [0.0]]
  assert by_window.weight['acc'].tolist() == [1.5, 0.0]
  by_device = prototypes.weighted(sums, {'acc': jnp.float32(1.0)}, mean=True)
  assert by_device.features['acc'].tolist() == [[2.0], [0.0]]
  assert by_device.weight['acc'].tolist() == [1.0, 0.0]
  broken = sums._replace(features={'acc': jnp.array([[jnp.nan], [0.0]])})
  nothing = prototypes.weighted(broken, {'acc': jnp.float32(0.0)})
  assert nothing.features['acc'].tolist() == [[0.0], [0.0]]


def test_a_label_stands_for_what_is_missing():
  known = Prototypes(
    {'acc': jnp.eye(3), 'gyro': 2 * jnp.eye(3)},
    {'acc': jnp.zeros(3, jnp.int32), 'gyro': jnp.array([0, 2, 0])},
  )
  y = jnp.array([1, 0])
  seen = {'acc': jnp.ones((2, 3)), 'gyro': jnp.ones((2, 3))}
  filled, run = prototypes.substitute(known, y, seen, jnp.array([True, False]))
  np.testing.assert_array_equal(filled['acc'], seen['acc'])
  np.testing.assert_array_equal(filled['gyro'], [[0, 2, 0], [2, 0, 0]])
  assert run.tolist() == [True, True]
  # Of a modality without any prototype the slot stays out of the fusion.
  _, run = prototypes.substitute(known, y, seen, jnp.array([False, True]))
  assert run.tolist() == [False, True]
  slope = jax.grad(
    lambda mean: prototypes.substitute(
      known._replace(mean={**known.mean, 'gyro': mean}),
      y,
      seen,
      jnp.array([True, False]),
    )[0]['gyro'].sum()
  )(known.mean['gyro'])
  assert not slope.any()


def test_confidence_falls_with_dispersion():
  far = jnp.array([[1.0], [1.0], [1.5], [4.0], [jnp.nan], [100.0]])
  owned = jnp.array([[True]] * 5 + [[False]])
  found = prototypes.confidence(far, owned, 2.0)[:, 0]
  middle = np.median([1, 1, 1.5, 4])
  want = np.exp(-2 * np.maximum(np.array([1, 1, 1.5, 4]) / middle - 1, 0))
  np.testing.assert_allclose(found[:4], want, rtol=1e-6)
  # Who was never measured is trusted; who has no sensor moves no median.
  assert found[4:].tolist() == [1.0, 1.0]


def test_dispersions_run():
  old = jnp.array([jnp.nan, 2.0, 2.0, jnp.nan])
  new = jnp.array([1.0, 4.0, jnp.nan, jnp.nan])
  found = prototypes.running(old, new, jnp.float32(0.25))
  np.testing.assert_allclose(found, [1.0, 2.5, 2.0, np.nan])


@pytest.mark.slow
@pytest.mark.parametrize('weighted', [True, False])
def test_confidence_in_use_equals_a_loop(weighted):
  """From the second round on, where one device's sensor is noisy."""
  task, population = world()
  bank = population.bank
  rows = np.asarray(population.rows[2][:8])
  noisy = bank.x['gyro'].at[rows].mul(4.0)
  population = population.replace(
    bank=bank.replace(x={**bank.x, 'gyro': noisy})
  )
  setting = tiny.setting(
    population, 'qqr_style', start=1, weighted=weighted, align=0.05
  )
  slow = prototype_twin.QualityTwin(task, population, setting)
  if not weighted:
    slow.worth = lambda n, m: float(slow.fleet.owned[n, m])
  for number, (state, info) in enumerate(
    tiny.run('qqr_style', task, population, setting, 4)
  ):
    want = slow.round(number)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
    np.testing.assert_allclose(info.loss, want.loss, atol=1e-5)
    np.testing.assert_allclose(
      state.server.method_state.dispersion, slow.dispersion, atol=1e-5
    )
  slow.number = 9
  trust = [slow.conf(n, 1) for n in (0, 2, 4, 5)]
  assert min(trust) == trust[1] < 0.2 and np.median(trust) > 0.8


@pytest.mark.slow
def test_with_every_sensor_pmm_trains_as_fedavg():
  task, population = world(whole=True)
  found, info = tiny.step(
    'pmm', task, population, tiny.setting(population, 'pmm'), 3
  )
  want, plain = tiny.step(
    'fedavg', task, population, tiny.setting(population, 'fedavg'), 3
  )
  chex.assert_trees_all_close(found.params, want.params, atol=1e-6, rtol=0)
  own = 4 * prototypes.sizes(task).sum()
  np.testing.assert_array_equal(
    info.upload - plain.upload, own * (np.array(SAMPLES) > 0)
  )


@pytest.mark.slow
def test_a_prototype_trains_columns_and_no_encoder():
  """Where everybody lacks the gyro, once there is a prototype of it."""
  task, population = world(whole=True)
  setting = tiny.setting(population, 'pmm')
  state, _ = tiny.step('pmm', task, population, setting, 2)
  fleet = population.fleet
  gone = population.replace(
    fleet=fleet.replace(owned=fleet.owned.at[:, 1].set(False))
  )
  one = tiny.compiled('pmm', task, setting)
  after, info = one(jax.random.key(9), state, gone, setting.hparams)
  for m, moved in (('acc', True), ('gyro', False)):
    same = jax.tree.map(
      lambda a, b: bool((a == b).all()),
      after.params['encoder'][m],
      state.params['encoder'][m],
    )
    assert all(jax.tree.leaves(same)) != moved
  assert (
    after.params['fusion']['gyro'] != state.params['fusion']['gyro']
  ).any()
  trained = dict(
    zip(task.blocks.name, np.asarray(info.trained)[0], strict=True)
  )
  assert trained['fusion/gyro'] and not trained['encoder/gyro']


@pytest.mark.slow
def test_encoders_of_owners():
  """Their mean is not diluted by who lacks the sensor; the rest stays."""
  task, population = world()
  plain, _ = tiny.step('pmm', task, population, tiny.setting(population, 'pmm'))
  own, _ = tiny.step(
    'pmm', task, population, tiny.setting(population, 'pmm', owners=True)
  )
  start = twin.named(tiny.init(task))
  plain, own = twin.named(plain.params), twin.named(own.params)
  owners = {'acc': 4, 'gyro': 4}  # of five that are there
  for k, v in start.items():
    part, *rest = k.split('/')
    factor = 5 / owners[rest[0]] if part == 'encoder' else 1.0
    np.testing.assert_allclose(
      own[k] - v, factor * (plain[k] - v), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_prototypes_in_few_bits_now_and_then():
  task, population = world(whole=True)
  setting = tiny.setting(population, 'pmm', bits=2, refresh=2)
  before, sent = None, []
  for state, info in tiny.run('pmm', task, population, setting, 4):
    sent.append(np.asarray(info.upload)[0])
    mean = state.server.method_state.sent.mean['acc']
    assert len(np.unique(np.abs(mean))) <= 2  # 0 and the scale
    if before is not None and len(sent) % 2 == 0:
      np.testing.assert_array_equal(mean, before)
    elif before is not None:
      assert (mean != before).any()
    before = mean
  groups = 4 * float(task.work.size.sum())
  # Two bits a number and a float32 scale, of both modalities.
  message = sum(
    -(-int(size) // 4) + 4 for size in np.asarray(prototypes.sizes(task))
  )
  assert sent == [groups + message, groups, groups + message, groups]


@pytest.mark.slow
def test_trusted_sensors_change_nothing_in_relief():
  task, population = world()
  plain = tiny.setting(population, 'relief')
  want, want_info = tiny.step('relief', task, population, plain, 2)
  setting = tiny.setting(population, 'relief', confidence=True, start=100)
  found, info = tiny.step('relief', task, population, setting, 2)
  chex.assert_trees_all_close(found.params, want.params, atol=1e-6, rtol=0)
  assert (info.upload >= want_info.upload).all()
  early = tiny.setting(population, 'relief', confidence=True, start=1, beta=9.0)
  found, _ = tiny.step('relief', task, population, early, 3)
  want, _ = tiny.step('relief', task, population, plain, 3)
  changed = found.params['fusion']['acc'] != want.params['fusion']['acc']
  assert changed.any()
