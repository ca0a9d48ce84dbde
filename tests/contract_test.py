"""What every algorithm promises; one that is registered joins by itself."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax.types import Algorithm, RoundInfo
from tests import tiny

ROUNDS, CLIENTS = 8, 5
# With one backbone everybody takes part, with the other three are drawn.
COHORT = {'cnn': 5, 'lora': 3}
# The fourth client is padding, and the fastest of all.
SAMPLES = [9, 6, 8, 0, 7]
PADDING = 3
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]], bool)

METHODS = pytest.mark.parametrize('method', algorithms.ALGORITHMS)
BACKBONES = pytest.mark.parametrize('backbone', ['cnn', 'lora'])


@functools.cache
def world(backbone):
  task = tiny.task(backbone, modalities=('acc', 'gyro'), filters=(4,))
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  population = tiny.with_share(task, population, 0.8)
  fleet = population.fleet
  fleet = fleet.replace(speed=fleet.speed.at[PADDING].mul(10))
  return task, population.replace(fleet=fleet)


@functools.cache
def made(method, backbone):
  task, population = world(backbone)
  setting = tiny.setting(
    population,
    cohort=COHORT[backbone],
    steps=4,
    batch=6,
    client_momentum=0.5,
    deadline=1.0,
    fill=algorithms.DEFAULT_FILL.get(method, 'skip'),
  )
  return tiny.algorithm(method, task, setting)


@functools.cache
def ran(method, backbone):
  """States before and after, and what was observed in all rounds."""
  task, population = world(backbone)
  algorithm = made(method, backbone)

  @functools.partial(jax.jit, compiler_options=tiny.QUICK)
  def run(key, population):
    before = algorithm.init(key, task.init(key))

    def step(state, number):
      return algorithm.step(jax.random.fold_in(key, number), state, population)

    return before, *jax.lax.scan(step, before, jnp.arange(ROUNDS))

  return run(jax.random.key(0), population)


def size(method, backbone):
  """Rows of a record; in the centre all windows always take part."""
  return CLIENTS if method == 'centralized' else COHORT[backbone]


def kinds(tree):
  return jax.tree.map(lambda v: (v.shape, v.dtype, v.weak_type), tree)


@METHODS
@BACKBONES
def test_types(method, backbone):
  task, _ = world(backbone)
  algorithm = made(method, backbone)
  assert isinstance(algorithm, Algorithm)
  before, after, infos = ran(method, backbone)
  # A state that changed its type would be compiled again, call after call.
  assert kinds(before) == kinds(after)
  assert not any(v.weak_type for v in jax.tree.leaves(before))
  plain = jax.eval_shape(task.init, jax.random.key(0))
  leading = (CLIENTS,) if algorithm.personal else ()
  for state in (before, after):
    params = algorithm.params(state)
    chex.assert_trees_all_equal_structs(params, plain)
    for mine, one in zip(
      jax.tree.leaves(params), jax.tree.leaves(plain), strict=True
    ):
      assert (mine.shape, mine.dtype) == (leading + one.shape, one.dtype)


@METHODS
@BACKBONES
def test_info(method, backbone):
  task, _ = world(backbone)
  _, after, infos = ran(method, backbone)
  num, count = len(task.group_names), size(method, backbone)
  assert isinstance(infos, RoundInfo)
  costs = (infos.upload, infos.download, infos.seconds, infos.joules)
  chex.assert_shape([infos.client, infos.loss, *costs], (ROUNDS, count))
  chex.assert_shape(infos.trained, (ROUNDS, count, num))
  chex.assert_shape(infos.divergence, (ROUNDS, num))
  assert infos.client.dtype == jnp.int32 and infos.trained.dtype == bool
  cohorts = {tuple(sorted(set(c.tolist()))) for c in np.asarray(infos.client)}
  assert all(len(c) == count for c in cohorts)
  assert (len(cohorts) > 1) == (count < CLIENTS)
  chex.assert_tree_all_finite((infos.loss, costs))
  chex.assert_tree_all_finite(made(method, backbone).params(after))
  assert all((np.asarray(v) >= 0).all() for v in costs)


@METHODS
@BACKBONES
def test_the_loss_falls(method, backbone):
  _, _, infos = ran(method, backbone)
  real = np.asarray(infos.client) != PADDING
  loss = np.average(infos.loss, 1, real)
  assert loss[0] == pytest.approx(np.log(3), rel=0.3)
  assert loss[-2:].mean() < 0.9 * loss[0], loss


def sent_by_centralized(task, population, infos):
  """The raw windows of the sensors on board, once."""
  numbers = [4 * population.bank.x[m][0].size for m in task.modalities]
  raw = (np.array(SAMPLES) * (OWNED @ numbers))[infos.client]
  return np.where(np.arange(ROUNDS)[:, None] == 0, raw, 0)


SENT = {
  'centralized': sent_by_centralized,
  'local_only': lambda task, population, infos: np.zeros(infos.client.shape),
}


@METHODS
@BACKBONES
def test_what_is_trained_is_sent(method, backbone):
  """Four bytes a number, unless the method is no federated averaging."""
  task, population = world(backbone)
  _, _, infos = ran(method, backbone)
  expected = np.asarray(infos.trained) @ (4 * np.asarray(task.work.size))
  if method in SENT:
    expected = SENT[method](task, population, infos)
  np.testing.assert_allclose(infos.upload, expected)


@METHODS
@BACKBONES
def test_work_takes_time_and_energy_and_padding_none(method, backbone):
  _, _, infos = ran(method, backbone)
  busy = np.asarray(infos.seconds)
  assert (busy.max(1) > 0).all()
  np.testing.assert_array_equal(busy > 0, np.asarray(infos.joules) > 0)
  padding = np.asarray(infos.client) == PADDING
  assert padding.any()
  for cost in (infos.upload, infos.download, infos.seconds, infos.joules):
    np.testing.assert_array_equal(cost[padding], 0)
  if method != 'centralized':
    working = np.asarray(infos.trained).any(-1)
    np.testing.assert_array_equal(busy > 0, working)
    np.testing.assert_array_equal(working, ~padding)
