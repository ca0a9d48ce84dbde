"""The fusion that weighs modalities by noise and change of their inputs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import simulate, tree
from relief_jax.clients import history, training
from relief_jax.clients.records import Batch, Gate
from relief_jax.config.validation import validate
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.models import dual_health
from relief_jax.models.dual_health import Dual
from relief_jax.simulate import Simulation
from relief_jax.storage.model_file import load_model
from relief_jax.types import Bank
from relief_jax.world import order
from tests.support import tiny

OPTIONS = {'fusion': 'dual_health_style'}
NAMES = ('acc', 'gyro', 'mag')


def windows(seed=0, batch=6, width=16, channels=2):
  """Slow waves, [B, T, c]: nearly no noise by their second differences."""
  rng = np.random.default_rng(seed)
  at = np.arange(width) / width
  phase = rng.uniform(0, 2 * np.pi, (batch, 1, channels))
  return np.sin(2 * np.pi * at[None, :, None] + phase).astype(np.float32)


def told(x, past=()):
  """Features without encoders, [B, 3], of windows behind `past`."""
  return dual_health.readings(
    Dual(), jnp.concatenate([*past, x], 1), x.shape[1]
  )


def mean_weight(features, run=(True, True, True), trust=None):
  found = dual_health.weights(
    Dual(),
    trust or dual_health.init(jax.random.key(0), NAMES, 3, 4)['trust'],
    dict(zip(NAMES, features, strict=True)),
    dict(zip(NAMES, run, strict=True)),
  )
  return np.asarray(found)


def test_noise_is_that_of_white_noise():
  rng = np.random.default_rng(0)
  for deviation in (0.5, 1.0, 3.0):
    x = deviation * rng.normal(size=(40, 125, 3)).astype(np.float32)
    noise = np.expm1(told(x)[:, 1]).mean()
    np.testing.assert_allclose(noise, deviation**2, rtol=0.1)


def test_the_noisier_a_sensor_the_lower_its_weight():
  """Five levels; without noise, equal modalities count alike."""
  clean, rng = windows(), np.random.default_rng(1)
  white = rng.normal(size=clean.shape).astype(np.float32)
  found = []
  for level in (0.0, 0.5, 1.0, 2.0, 4.0):
    features = [told(clean + level * white), told(clean), told(clean)]
    found.append(mean_weight(features)[0].mean())
  np.testing.assert_allclose(found[0], 1 / 3, rtol=1e-5)
  assert (np.diff(found) < -0.01).all()


def test_sudden_change_lowers_a_weight_for_as_long_as_it_is_new():
  before, moved = windows(0), windows(0) + 2.0
  calm = told(before, [before] * 3)
  np.testing.assert_array_equal(calm[:, 2], 0)
  fresh = told(moved, [before] * 3)
  later = told(moved, [before, moved, moved])
  # The mean of a channel has moved by 2, its deviation not at all.
  np.testing.assert_allclose(np.expm1(fresh[:, 2]), 2.0, rtol=1e-4)
  np.testing.assert_allclose(np.expm1(later[:, 2]), 2.0 / 16, rtol=1e-4)
  weight = [mean_weight([one, calm, calm])[0].mean() for one in (fresh, later)]
  assert weight[0] < weight[1] < 1 / 3


def test_weights_add_up_over_those_that_are_there():
  features = [told(windows(i) * 3**i) for i in range(3)]
  features[1] = features[1].at[2].set(0.0)  # a window that was lost
  for run in ((1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 0)):
    found = mean_weight(features, jnp.array(run, bool))
    here = np.array(run, bool)[:, None] & np.ones((3, 6), bool)
    here[1, 2] = False
    np.testing.assert_array_equal(found > 0, here)
    np.testing.assert_allclose(found.sum(0), here.any(0), rtol=1e-5)


def test_a_flat_line_is_no_reading():
  """What absent sensors are filled with has no part in the answer."""
  flat = np.full((6, 16, 2), -40.3, np.float32)
  np.testing.assert_array_equal(told(flat), 0)
  found = mean_weight([told(windows()), told(flat), told(flat)])
  np.testing.assert_allclose(found, [[1] * 6, [0] * 6, [0] * 6], rtol=1e-6)


def test_the_fit_is_calibrated():
  """Where nothing but c can tell, u comes to be the mean squared distance."""
  rng = np.random.default_rng(0)
  features = {
    'acc': jnp.asarray(
      np.concatenate([rng.normal(size=(64, 4)), np.ones((64, 1))], 1),
      jnp.float32,
    )
  }
  features['acc'] = jnp.pad(features['acc'], ((0, 0), (0, 2)))
  params = {
    'fusion': {'acc': jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)},
    'trust': {'acc': jnp.zeros(3)},
    'prototype': jnp.zeros((2, 5)),
  }
  y, run = jnp.zeros(64, jnp.int32), {'acc': jnp.bool_(True)}

  @jax.jit
  def step(trust):
    def loss(trust):
      own = {**params, 'trust': {'acc': trust}}
      return dual_health.penalty(
        Dual(align=0.0), own, features, run, jnp.ones(64), y
      )

    return trust - 0.5 * jax.grad(loss)(trust)

  trust = jnp.zeros(3)
  for _ in range(60):
    trust = step(trust)
  apart = jnp.square(features['acc'][:, :4] @ params['fusion']['acc']).mean()
  variance = jnp.exp(dual_health.log_variance(trust, features['acc'])).mean()
  np.testing.assert_allclose(variance, apart, rtol=0.01)


@functools.cache
def step():
  """(params, run) -> gradients of the whole loss and logits."""
  task = tiny.task(**OPTIONS)
  population = tiny.population(task, clients=3)
  batch = Batch(population.bank, jnp.array([0, 1, 7]), jnp.ones(3))
  train = jnp.ones(task.num_blocks, bool)

  @jax.jit
  def both(params, run):
    def loss(params):
      found = training.forward(task, params, {}, batch, Gate(run, None, train))
      y = population.bank.y[batch.row]
      value = training.cross_entropy(found.logits, y, batch.weight)
      value += task.penalty(params, found.features, run, batch.weight, y)
      return value, found.logits

    return jax.grad(loss, has_aux=True)(params)

  return task, tiny.init(task), both


@pytest.mark.slow
@pytest.mark.parametrize('run', [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 0)])
def test_what_is_away_gets_no_gradient(run):
  task, params, both = step()
  grads, scores = both(params, jnp.array(run, bool))
  chex.assert_tree_all_finite((grads, scores))
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  for g, m in enumerate(task.blocks.modality):
    if m >= 0 and not run[m]:
      assert sq[g] == 0, task.blocks.name[g]
    elif all(run):
      assert sq[g] > 0, task.blocks.name[g]
  for m, there in zip(NAMES, run, strict=True):
    moved = np.asarray(grads['trust'][m]) != 0
    assert moved[2] == bool(there), m


def test_a_window_meets_what_was_before_it():
  """Whatever its batch; of its own recording and device, and no other."""
  number = jnp.arange(7.0)[:, None, None] * jnp.ones((1, 2, 1))
  bank = Bank({'a': number}, {}, jnp.zeros(7), jnp.array([0, 0, 1, 2, 4, 4, 5]))
  row = jnp.array([3, 6, 0, 5])
  found = history.read(bank, row, 3, lambda r: bank.x['a'][r])
  np.testing.assert_array_equal(
    found[:, ::2, 0], [[0, 1, 2, 3], [4, 4, 5, 6], [0] * 4, [4, 4, 4, 5]]
  )
  # In the place of one that was lost stands the one after it.
  found = history.read(
    bank, row, 3, lambda r: bank.x['a'][r], lambda r: (r == 1) | (r == 2)
  )
  np.testing.assert_array_equal(found[0, ::2, 0], [0, 3, 3, 3])
  alone = history.read(bank.replace(before=None), row, 3, lambda r: bank.y[r])
  assert alone.shape == (4,)


def test_the_order_of_windows_is_that_of_their_device():
  data = Windows(
    {},
    np.zeros(6, np.int32),
    subject=np.array([1, 1, 1, 1, 2, 2]),
    run=np.array([0, 0, 0, 1, 2, 2]),
    start=np.array([20, 0, 10, 30, 0, 10]),
    classes=('a',),
    rate=1.0,
    width=10,
  )

  def parts(*each):
    return [np.array(one) for one in each]

  rows = np.array([0, 1, 2, 3, 4, 5, 0])  # the last one fills up
  everybody = order.before(data, rows, parts(range(6)))
  np.testing.assert_array_equal(everybody, [2, 1, 1, 3, 4, 4, 6])
  # The second device lacks what lies between, the third has no neighbour.
  apart = order.before(data, rows, parts([2, 3], [0, 1], [4], [5]))
  np.testing.assert_array_equal(apart, [1, 1, 2, 3, 4, 5, 6])
  # Of two that share windows, and see another one before window 0.
  shared = order.before(data, rows, parts([0, 1], [0, 1, 2]))
  np.testing.assert_array_equal(shared[:3], [0, 1, 1])


@pytest.mark.slow
def test_rounds_do_not_see_padding_or_other_devices(method='relief'):
  """Broken windows of devices that are not there reach nobody's average."""
  task = tiny.task(**OPTIONS)
  population = tiny.population(task)
  setting = tiny.setting(population, method)
  kept = tiny.only(population, 0, 1, 3)
  mine = np.zeros(len(population.bank.y), bool)
  for n in (0, 1, 3):
    mine[np.asarray(population.rows[n, : population.fleet.samples[n]])] = True
  broken = kept.replace(
    bank=kept.bank.replace(
      x={
        m: jnp.where(mine[:, None, None], x, jnp.nan)
        for m, x in kept.bank.x.items()
      }
    )
  )
  ends = [
    tiny.step(method, task, world, setting, 2)[0].params
    for world in (kept, broken)
  ]
  chex.assert_tree_all_finite(ends[1])
  chex.assert_trees_all_equal(*ends)


@functools.cache
def simulated(**keys):
  return simulate.run(
    tiny.config(
      **{
        'method': 'fedavg',
        'rounds': 2,
        'fill': 'skip',
        'model.fusion': OPTIONS['fusion'],
      },
      **keys,
    )
  )


@pytest.mark.slow
def test_a_run_scores_and_its_model_predicts(tmp_path):
  result = simulated()
  assert 0 <= result.history[-1]['f1'] <= 1
  model = result.model
  rng = np.random.default_rng(0)
  x = {
    m: rng.normal(size=(5, 20, 2)).astype(np.float32) for m in model.modalities
  }
  path = tmp_path / 'model.safetensors'
  result.export(path)
  again = load_model(path)
  np.testing.assert_array_equal(again.scores(x), model.scores(x))
  # A sensor that is away and one that hangs are the same.
  first, *others = model.modalities
  alone = model.scores(x, [first])
  hangs = {**x, **{m: np.full((5, 20, 2), 7.0) for m in others}}
  np.testing.assert_allclose(model.scores(hangs), alone, rtol=1e-5, atol=1e-6)


def test_what_does_not_go_together_is_refused():
  choices = {'model.fusion': 'dual_health_style'}
  for overrides, match in (
    ({'backbone': 'lora'}, 'backbone=cnn'),
    ({'backbone': 'transformer'}, 'backbone=cnn'),
    ({'fusion_norm': True}, 'fusion_norm=False'),
    ({'method': 'heterofl'}, 'fusion=concat'),
    ({'method': 'depthfl'}, 'fusion=concat'),
    ({'method': 'splitfed'}, 'backbone'),
  ):
    with pytest.raises(InputError, match=match):
      Simulation(tiny.config(**{**choices, **overrides}))
  with pytest.raises(InputError, match='dual.temperature'):
    validate(tiny.config(**{'model.dual.temperature': 0.0}))
