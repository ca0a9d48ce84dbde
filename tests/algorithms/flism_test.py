"""What makes FLISM different from FedAvg."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import flism
from relief_jax.clients import batches
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from tests.support import tiny
from tests.twins import flism_twin

# Between the entropies of the four devices after a round.
FLOOR = 1.0935
OFF = {'contrast': False, 'entropy': False, 'kd': 0.0}
VERSIONS = {
  'none': OFF,
  'contrast': {**OFF, 'contrast': True},
  'weights': {**OFF, 'contrast': True, 'entropy': True, 'floor': FLOOR},
  'kd': {},
  'plain': {'entropy': False},
}


@functools.cache
def ran(version, method='flism'):
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, 4)
  given = VERSIONS[version] if method == 'flism' else {}
  setting = tiny.setting(population, method, fill='input', **given)
  return tiny.step(method, task, population, setting)


def same(a, b) -> bool:
  return all(
    jax.tree.leaves(jax.tree.map(lambda u, v: bool((u == v).all()), a, b))
  )


@pytest.mark.slow
def test_none_is_fedavg_to_the_bit():
  state, info = ran('none')
  want, want_info = ran('none', 'fedavg')
  assert same(state.params, want.params) and not info.extra
  np.testing.assert_array_equal(info.seconds, want_info.seconds)


@pytest.mark.slow
def test_every_term_counts():
  """And the teacher is the plain mean of the updates that were weighted."""
  found = [ran(version)[0] for version in VERSIONS]
  for one, two in itertools.combinations(found, 2):
    assert not same(one.params, two.params)
  *_, taught, plain = found
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
    taught.server.method_state,
    plain.params,
  )


@pytest.mark.slow
def test_bytes_of_a_teacher_and_an_entropy():
  _, plain = ran('none', 'fedavg')
  for version, models, scalars in (
    ('contrast', 1, 0),
    ('weights', 1, 1),
    ('kd', 2, 1),
  ):
    _, info = ran(version)
    np.testing.assert_allclose(info.download, models * plain.download)
    np.testing.assert_allclose(info.upload, plain.upload + 4 * scalars)


@pytest.mark.slow
def test_one_sensor_has_no_second_view():
  """Their loss is FedAvg's."""
  alone = tiny.owned_by_default(4, 2).sum(1) == 1
  assert alone.any() and not alone.all()
  loss, plain = ran('contrast')[1].loss, ran('none')[1].loss
  np.testing.assert_allclose(loss[alone], plain[alone], rtol=1e-6)
  assert (loss[~alone] > plain[~alone] + 0.1).all()


@pytest.mark.slow
def test_weights_are_clipped():
  free, clipped = (
    np.asarray(ran(v)[1].extra['weight_factor']) for v in ('kd', 'weights')
  )
  assert (free[:, :1] == free).all() and len(set(free[:, 0])) == 4
  assert (free > 1 / np.log(3)).all() and free.max() > 1 / FLOOR
  np.testing.assert_allclose(clipped.max(), 1 / FLOOR, rtol=1e-6)
  assert clipped.min() < 1 / FLOOR


def test_the_second_view():
  """Never nothing and never all; each number left out as often."""
  owned = jnp.array([True, False, True, True])
  keys = jax.random.split(jax.random.key(0), 600)
  left = np.asarray(jax.vmap(flism.second_view, (0, None))(keys, owned))
  assert not left[:, 1].any()
  count = np.bincount(left.sum(1), minlength=5)
  assert count[1] + count[2] == 600 and abs(count[1] - 300) < 60
  np.testing.assert_allclose(left[:, [0, 2, 3]].mean(0), 0.5, atol=0.08)
  two = flism.second_view(keys[0], jnp.array([True, True]))
  assert int(two.sum()) == 1


@pytest.mark.slow
def test_contrast_pair_by_pair():
  """Padding has no part in it, and dead features have a gradient."""
  rng = np.random.default_rng(0)
  first, second = rng.normal(size=(2, 5, 3)).astype(np.float32)
  y, weight = np.array([0, 1, 0, 2, 1]), np.array([1.0, 1, 1, 1, 0])
  want = jax.jit(lambda *z: flism_twin.contrast(*z, y, weight, 0.5))(
    first, second
  )
  first[4], second[4] = np.inf, 1e20
  found = flism.supcon(first, second, y, weight, 0.5)
  np.testing.assert_allclose(found, want, rtol=1e-5)
  dead = jnp.zeros((5, 3))
  slope = jax.grad(flism.supcon)(dead, second[:5] * 0 + 1, y, weight, 0.5)
  assert jnp.isfinite(slope).all()


def test_every_window_once():
  row, weight = batches.in_order(jnp.array([7, 5, 9, 9, 9]), 3, 2)
  assert row.shape == weight.shape == (3, 2)
  assert row[weight > 0].tolist() == [7, 5, 9]


def test_frozen_features_are_not_contrasted():
  task = tiny.task('lora', modalities=('acc', 'gyro'))
  population = tiny.population(task, 4)
  with pytest.raises(InputError, match='contrast=False'):
    tiny.algorithm('flism', task, tiny.setting(population, 'flism'))


@pytest.mark.slow
@pytest.mark.parametrize('fill', ['input', 'skip'])
def test_every_layout(fill):
  """Also where batches hold padding."""
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, 4)
  setting = tiny.setting(population, 'flism', fill=fill, epochs=2)
  found = [
    tiny.step(
      'flism', task, population, setting._replace(layout=Layout(block)), 2
    )
    for block in (1, 0)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
    *((s.params, s.server.method_state, i.extra, i.loss) for s, i in found),
  )
