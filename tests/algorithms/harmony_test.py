"""The two stages of Harmony, and its clusters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms.parts import encoder_clusters
from relief_jax.algorithms.parts import kmeans as kmeans_lib
from relief_jax.config import validation
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from tests.support import tiny
from tests.twins import twin
from tests.twins.harmony_twin import HarmonyTwin

# The fourth is padding; the second and the fifth have one sensor.
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [0, 1], [1, 1]], bool)
SAMPLES = [9, 6, 8, 0, 7, 5]
PADDING, ALONE, MEMBERS = 3, [1, 4], [0, 2, 5]
ROUNDS = 4  # two of each stage


def world(order=None):
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  if order is not None:
    fleet = jax.tree.map(lambda v: v[order], population.fleet)
    population = population.replace(fleet=fleet, rows=population.rows[order])
  return task, population


def chosen(population, **overrides):
  values = {'members': 2, 'rounds': 3.0, **overrides}
  return tiny.setting(population, 'harmony', **values)


@functools.cache
def ran():
  """All four rounds, (state, info) after each."""
  task, population = world()
  setting = chosen(population)
  return list(tiny.run('harmony', task, population, setting, ROUNDS))


@pytest.mark.slow
def test_equals_a_loop():
  """Models, distances, bytes and FLOPs, in both stages."""
  task, population = world()
  slow = HarmonyTwin(task, population, chosen(population))
  fleet = population.fleet
  for number, (state, info) in enumerate(ran()):
    loss, up, down, flops = slow.both(number)
    for k, v in twin.named(state.second.own).items():
      want = [one[k] for one in slow.own]
      np.testing.assert_allclose(v, want, rtol=0, atol=1e-5, err_msg=k)
    np.testing.assert_allclose(info.loss, loss, rtol=0, atol=1e-5)
    np.testing.assert_allclose(info.upload, up, rtol=1e-6)
    np.testing.assert_allclose(info.download, down, rtol=1e-6)
    links = 8 * up / fleet.uplink + 8 * down / fleet.downlink
    np.testing.assert_allclose(
      info.seconds, 8 * flops / fleet.speed + links, rtol=1e-5
    )
    # As far as float32 holds such small steps.
    np.testing.assert_allclose(
      state.second.distance, slow.distance, rtol=1e-2, atol=1e-14
    )
  assert (state.second.distance[np.array(MEMBERS)] > 0).all()


def test_a_classifier_per_cluster():
  """One in the first round of the second stage, then two of three devices."""
  one, two = (state.second.own for state, _ in ran()[-2:])
  heads = [np.asarray(own['head']['w'])[MEMBERS] for own in (one, two)]
  assert [len(np.unique(h, axis=0)) for h in heads] == [1, 2]
  encoders = two['encoder']['acc'][0]['w'][jnp.array(MEMBERS)]
  assert len(np.unique(encoders, axis=0)) == 3


def test_one_sensor_rests_with_the_model_of_that_sensor():
  _, (alone, info), *_, (state, last) = ran()
  for n, m in zip(ALONE, (0, 1), strict=True):
    for k, v in twin.named(state.second.own).items():
      np.testing.assert_array_equal(v[n], twin.named(alone.second.own)[k][n])
      if k.startswith(('bias', 'head')):
        want = twin.named(alone.first[m].params)[k]
        np.testing.assert_array_equal(v[n], want)
  for cost in (last.upload, last.download, last.seconds, last.joules):
    np.testing.assert_array_equal(cost[np.array([*ALONE, PADDING])], 0)
  assert (np.asarray(info.upload) > 0).tolist() == [1, 1, 1, 0, 1, 1]


def test_the_order_of_devices_does_not_matter():
  """Nor what is written about one that is not there."""
  order = jnp.array([4, 2, 5, 0, 3, 1])
  task, population = world(order)
  fleet = population.fleet
  there = fleet.samples > 0
  fleet = fleet.replace(
    speed=jnp.where(there, fleet.speed, 0.0),
    watts=jnp.where(there[:, None], fleet.watts, jnp.nan),
  )
  setting = chosen(population)
  found, found_info = tiny.step(
    'harmony', task, population.replace(fleet=fleet), setting, ROUNDS
  )
  state, info = ran()[-1]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b[order], rtol=0, atol=1e-6),
    found.second.own,
    state.second.own,
  )
  for field in ('client', 'upload', 'seconds', 'joules'):
    np.testing.assert_allclose(
      getattr(found_info, field), getattr(info, field)[order], rtol=1e-6
    )


@pytest.mark.slow
def test_one_modality_is_fedavg():
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task, 3)
  found, info = tiny.step('harmony', task, population, chosen(population), 2)
  setting = tiny.setting(population, 'fedavg')
  want, want_info = tiny.step('fedavg', task, population, setting, 2)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, [b] * 3),
    found.second.own,
    want.params,
  )
  for field in ('loss', 'upload', 'download', 'seconds', 'joules'):
    np.testing.assert_array_equal(
      getattr(info, field), getattr(want_info, field)
    )


def test_clusters_of_every_group():
  """Three heaps, one heap, and a group whose points are all the same."""
  heaps = np.array([0.0, 10.0, 30.0])[np.arange(11) % 3]
  rng = np.random.default_rng(0)
  points = np.concatenate([heaps, [5.0, 6.0, 7.0], np.zeros(6)])[:, None]
  points = points + 0.1 * rng.normal(size=points.shape)
  points[14:] = 0
  group = np.array([0] * 11 + [1] * 3 + [2] * 6)
  order = rng.permutation(20)
  kmeans = jax.jit(kmeans_lib.kmeans, static_argnums=(2, 3))
  for shuffled in (np.arange(20), order):
    found = np.zeros(20, int)
    found[shuffled] = kmeans(
      jnp.asarray(points[shuffled], jnp.float32),
      jnp.asarray(group[shuffled]),
      4,
      5,
    )
    same = found[:11, None] == found[None, :11]
    np.testing.assert_array_equal(same, heaps[:, None] == heaps[None])
    assert not found[11:].any()


def test_encoders_that_stay_where_they_are():
  """No distance of a modality: nothing is divided by 0."""
  _, population = world()
  distance = (
    jnp.zeros((6, 2))
    .at[jnp.array(MEMBERS), 0]
    .set(jnp.array([1e-9, 1e-7, 1.1e-7]))
  )
  clustered = jax.jit(encoder_clusters.clustered, static_argnums=2)
  for given, want in ((distance, 2), (0 * distance, 1)):
    group, cluster = clustered(population.fleet, given, 2)
    assert len(set(np.asarray(group)[MEMBERS].tolist())) == 1
    found = np.asarray(cluster)[MEMBERS]
    assert len(set(found.tolist())) == want and found[1] == found[2]


@pytest.mark.parametrize(
  ('backbone', 'model', 'wrong', 'message'),
  [
    ('lora', {}, {}, 'backbone=cnn'),
    ('cnn', {'groups': 'joint'}, {}, 'groups=split'),
    ('cnn', {}, {'keep_client_state': True}, 'keep_client_state=False'),
  ],
)
def test_what_makes_no_sense_is_refused(backbone, model, wrong, message):
  task = tiny.task(backbone, modalities=('acc', 'gyro'), **model)
  population = tiny.population(task, 4)
  with pytest.raises(InputError, match=message):
    tiny.algorithm('harmony', task, chosen(population, **wrong))


@pytest.mark.parametrize(
  ('name', 'value'), [('alone', 1.5), ('encoder_lr', -1.0), ('members', 0)]
)
def test_options_out_of_range(name, value):
  with pytest.raises(InputError, match=f'config.harmony.{name} is {value}'):
    validation.validate(tiny.config(**{f'harmony.{name}': value}))


@pytest.mark.slow
@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_every_layout_and_a_cohort(backbone):
  """One at a time and under a vmap; encoders come down once."""
  task = tiny.task(
    backbone, modalities=('acc', 'gyro'), adapters=backbone == 'lora'
  )
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  setting = chosen(population, cohort=3, alone=0.3, epochs=1)
  runs = [
    list(
      tiny.run(
        'harmony',
        task,
        population,
        setting._replace(layout=Layout(block)),
        8,
      )
    )
    for block in (1, 0)
  ]
  last = [each[-1][0] for each in runs]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
    *((state.second.own, state.second.joined) for state in last),
  )
  turns = {n: [] for n in MEMBERS}
  for _, info in runs[0][1:]:
    for n, down in zip(info.client.tolist(), info.download, strict=True):
      if n in turns:
        turns[n].append(float(down))
  for down in turns.values():
    first, *later = down
    assert all(0 < more < first for more in later)
