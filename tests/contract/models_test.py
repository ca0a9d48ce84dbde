"""Promises of docs/contract.md for models that the methods' own tests lack.

A fusion that weighs its sensors, the transformer, and experts in its blocks;
six devices, some of them short of time and sensors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax.engine import placement
from relief_jax.models.mixture import Mixture
from relief_jax.simulate import Simulation
from tests.contract.loops_test import COUNT, HOLDS, close
from tests.support import tiny

SMALL = {'d': 8, 'blocks': 2, 'attention_heads': 2, 'patch': 4}
ONE, TWO = (
  ('transformer', {**SMALL, 'mixture': Mixture(3, 2, 5, 0.1, blocks)})
  for blocks in (1, 2)
)
# Name: the model and a method that is tried on it.
MODELS = {
  'dual_health_style': (('cnn', {'fusion': 'dual_health_style'}), 'fedavg', {}),
  'transformer': (('transformer', SMALL), 'fedavg', {}),
  'experts': (ONE, 'fedavg', {}),
  'chosen experts': (ONE, 'hfedmoe', {}),
  'routed experts': (ONE, 'hfedmoe', {'form': 'routed', 'most': 2}),
  'used experts': (ONE, 'hfedmoe', {'rule': 'usage'}),
  'any experts': (TWO, 'hfedmoe', {'rule': 'random', 'form': 'routed'}),
  'aligned experts': (TWO, 'fedalign_moe_style', {}),
}
OFTEN = ('dual_health_style',)
EVERY = pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow)
    for n in MODELS
  ],
)
BLOCKS = placement.Layout(block=4)


@functools.cache
def world(name):
  """Task and population; budgets between the least and all."""
  (backbone, overrides), *_ = MODELS[name]
  task = tiny.task(backbone, modalities=('acc', 'gyro'), **overrides)
  population = tiny.population(task, owned=HOLDS, samples=COUNT)
  share = jnp.array([1.2, 0.6, 0.45, 9.0, 0.75, -0.5])
  return task, tiny.with_share(task, population, share)


def after(name, population=None, method='', **overrides):
  """State and info of two rounds."""
  task, usual = world(name)
  _, own, options = MODELS[name]
  population = usual if population is None else population
  method, options = (method, {}) if method else (own, options)
  fill = algorithms.facts(method).fill
  values = {'deadline': 1.0, 'fill': fill, **options, **overrides}
  setting = tiny.setting(population, method, **values)
  return tiny.step(method, task, population, setting, 2)


@functools.cache
def usual(name):
  return after(name)


@pytest.mark.slow
@pytest.mark.invariant(3)
@EVERY
def test_layouts_agree(name):
  state, info = usual(name)
  other, record = after(name, layout=BLOCKS)
  close(other.params, state.params)
  for field in ('client', 'trained', 'upload', 'download'):
    np.testing.assert_array_equal(getattr(record, field), getattr(info, field))
  np.testing.assert_allclose(record.seconds, info.seconds, rtol=1e-5)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), state.params, tiny.init(world(name)[0])
  )
  assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.invariant(5)
@EVERY
def test_the_order_of_devices(name):
  _, population = world(name)
  order = np.array([4, 2, 5, 0, 3, 1])
  fleet = jax.tree.map(lambda v: v[order], population.fleet)
  other = population.replace(fleet=fleet, rows=population.rows[order])
  state, info = usual(name)
  found, record = after(name, other)
  close(found.params, state.params)
  for field in ('client', 'trained', 'upload', 'download'):
    np.testing.assert_array_equal(
      getattr(record, field), getattr(info, field)[order]
    )
  np.testing.assert_allclose(record.seconds, info.seconds[order], rtol=1e-5)


@pytest.mark.invariant(4, 7)
@EVERY
def test_what_is_not_there_may_be_nan(name):
  """Not a bit changes; nor does what nobody on board has trained."""
  _, population = world(name)
  rows, bank = np.asarray(population.rows), population.bank
  x = {m: np.array(v) for m, v in bank.x.items()}
  for n, held in enumerate(HOLDS):
    for own, there in zip(x.values(), held, strict=True):
      if COUNT[n] and not there:
        own[rows[n]] = np.nan
  bad = {m: jnp.asarray(v) for m, v in x.items()}
  found = after(name, population.replace(bank=bank.replace(x=bad)))
  jax.tree.map(np.testing.assert_array_equal, found, usual(name))


@EVERY
def test_methods_of_experts_choose(name):
  """Within the budget, and within `most`."""
  task, _ = world(name)
  _, method, options = MODELS[name]
  _, info = usual(name)
  assert np.isfinite(info.loss).all()
  if method == 'fedavg':
    return
  trained = np.asarray(info.trained)
  mine = trained[:, list(task.experts.blocks)].sum(-1)
  count = len(task.experts.blocks)
  assert (mine <= options.get('most', count)).all()
  working = trained.any(-1)
  assert working.any() and (mine[working] < count).any() and mine.any()
  assert trained[working][:, list(task.experts.gates)].all()
  size = 4 * np.asarray(task.work.size)
  whole = working * (size.sum() - (~HOLDS * size[: HOLDS.shape[1]]).sum(-1))
  if options.get('form') == 'routed':
    assert (info.download[working] < whole[working]).any()
  elif method == 'hfedmoe':
    np.testing.assert_allclose(info.download, whole)


@pytest.mark.slow
@pytest.mark.invariant(6)
def test_all_experts_within_budget_and_no_threshold_are_fedavg():
  name, unlimited = 'chosen experts', {'deadline': float('inf')}
  task, _ = world(name)
  every = tiny.population(task, owned=np.ones_like(HOLDS), samples=COUNT)
  rich = tiny.with_share(task, every, 1.0)
  plain, cost = after(name, rich, method='fedavg', fill='skip', **unlimited)
  neutral = {'threshold': 0.0, 'gate': 'equal', **unlimited}
  found, own = after(name, rich, **neutral)
  close(found.params, plain.params)
  for field in ('upload', 'download', 'seconds'):
    np.testing.assert_allclose(
      getattr(own, field), getattr(cost, field), rtol=1e-6
    )


SIZES = {
  'model.transformer.d': 8,
  'model.transformer.blocks': 1,
  'model.transformer.heads': 2,
  'model.experts.number': 3,
  'model.experts.blocks': 1,
  'data.own_share': 0.0,
}


@pytest.mark.slow
@pytest.mark.invariant(2)
@pytest.mark.parametrize('method', ['hfedmoe', 'fedalign_moe_style'])
def test_a_run_of_experts_resumed(method):
  config = tiny.config(
    method=method,
    backbone='transformer',
    rounds_per_call=1,
    eval_every=1,
    rounds=2,
    layout='one',
    **{**SIZES, 'model.transformer.patch': 10},
  )
  whole, resumed = Simulation(config), Simulation(config)
  whole.advance()
  stored = jax.tree.map(np.array, whole.snapshot())
  whole.advance()
  resumed.restore(stored, whole.history[:1])
  resumed.advance()
  jax.tree.map(
    np.testing.assert_array_equal, resumed.snapshot(), whole.snapshot()
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'method, options',
  [('hfedmoe', {'form': 'routed', 'most': 1}), ('fedalign_moe_style', {})],
)
def test_a_run_of_text(method, options):
  """The next character, by experts of tokens; and how a text is routed."""
  config = tiny.config(
    method=method,
    backbone='transformer',
    dataset='synthetic_text',
    partition='subject',
    rounds_per_call=2,
    eval_every=2,
    rounds=2,
    layout='one',
    deadline='none',
    **{
      **SIZES,
      'data.width': 8,
      'data.split': 'official',
      'data.test_subjects': (),
      'data.public_subjects': 0,
      'synthetic.subjects': 8,
      **{f'{method}.{k}': v for k, v in options.items()},
    },
  )
  simulation = Simulation(config)
  simulation.advance()
  (found,) = simulation.history
  assert 1 < found['perplexity'] < 100
  model = simulation.model()
  (name,) = model.modalities
  routes = model.routes({name: np.zeros((3, 8), np.int32)})
  assert routes.shape == (3 * 8, 3)
  np.testing.assert_array_equal(routes.sum(1), 2)
