"""Buckets: fewer encoders in the program, and the same round."""

import functools

import chex
import jax
import numpy as np
import pytest

from relief_jax import algorithms, simulate
from relief_jax import config as config_lib
from relief_jax.engine import buckets, placement
from relief_jax.errors import InputError
from tests.contract.table import row
from tests.support import tiny

OWNED = np.array(
  [[1, 1], [1, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 0]], bool
)
ALWAYS = config_lib.default().method  # with every change
SAMPLES = [5, 6, 0, 7, 8, 9, 3, 4]  # the third is padding and owns nothing


def world(backbone, method='relief'):
  return made_world(backbone, tiny.needs(method))


@functools.cache
def made_world(backbone, needs):
  task = tiny.task(
    backbone, modalities=('acc', 'gyro'), filters=(4,), **dict(needs)
  )
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  share = [1, 0.5, 0, 0.6, 1, 0.3, -1, 1]  # one more sits out
  return task, tiny.with_share(task, population, share)


def setting(backbone, layout, devices=1, most=1, method='relief'):
  task, population = world(backbone, method)
  found = buckets.bucket(OWNED, task, most, 1)
  own = tiny.setting(
    population,
    method,
    deadline=1.0,
    layout=placement.parse_layout(layout, devices),
    buckets=found if most > 1 else (),
    **row(method).waits,
  )
  keeping = own._replace(keep_client_state=True)
  try:
    tiny.algorithm(method, task, keeping)
  except InputError:  # whose devices keep more than momentum
    return own
  return keeping


@pytest.mark.slow
@pytest.mark.parametrize(
  'method, backbone, layout, devices',
  [
    *(
      pytest.param(
        method,
        tiny.backbone(method),
        'all',
        1,
        marks=() if method == ALWAYS else pytest.mark.slow,
      )
      for method in algorithms.ALGORITHMS
    ),
    pytest.param(ALWAYS, 'lora', 'block:2', 2, marks=pytest.mark.slow),
    pytest.param('fedavg', 'lora', 'all', 1, marks=pytest.mark.slow),
    pytest.param('local_only', 'lora', 'all', 1, marks=pytest.mark.slow),
  ],
)
def test_buckets_change_no_result(method, backbone, layout, devices):
  task, population = world(backbone, method)
  assert len(setting(backbone, layout, devices, most=3).buckets) == 3
  plain, cut = (
    tiny.step(
      method,
      task,
      population,
      setting(backbone, layout, devices, most, method),
    )
    for most in (1, 3)
  )
  chex.assert_trees_all_close(plain, cut, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(plain[1].client, np.arange(len(OWNED)))
  np.testing.assert_array_equal(cut[1].client, np.arange(len(OWNED)))


def work(most):
  """FLOPs of a lowered round."""
  task, population = world('cnn')
  own = setting('cnn', 'all', most=most)
  state = tiny.start('relief', task, own)
  step = jax.jit(tiny.algorithm('relief', task, own).step)
  key = tiny.round_key(0, 0)
  lowered = step.lower(key, state, population, own.hparams)
  return lowered.cost_analysis()['flops']


@pytest.mark.slow
def test_encoders_that_nobody_has_are_not_in_the_program():
  # Of sixteen encoders nine are owned and one more is run; the rest of the
  # work, the optimiser's and the head's, stays.
  assert work(3) < 0.8 * work(1)


def random_signatures(clients=60, seed=0):
  owned = np.random.default_rng(seed).random((clients, 3)) < 0.5
  owned[:, 0] = True
  return owned


@pytest.mark.parametrize('most', [1, 2, 3, 100])
@pytest.mark.parametrize('multiple', [1, 8, 64])
def test_bucket(most, multiple):
  task, owned = tiny.task('cnn'), random_signatures()
  found = buckets.bucket(owned, task, most, multiple)
  assert len(found) <= most
  clients = sorted(n for one in found for n in one.clients)
  assert clients == list(range(len(owned)))
  for one in found:
    union = owned[list(one.clients)].any(0)
    assert one.present == tuple(np.flatnonzero(union))
  if most > 4:
    # Exact where nothing is padded; one where every bucket would be.
    assert len(found) == {1: 4, 8: len(found), 64: 1}[multiple]
  assert found == buckets.bucket(owned, task, most, multiple)


def small(**overrides):
  return tiny.config(
    backbone='lora',
    **{
      'rounds': 2,
      'layout': 'all',
      'buckets': 2,
      'model.base': 'random',
      'synthetic.modalities': 2,
      **overrides,
    },
  )


@pytest.mark.slow
def test_the_config_asks_for_them():
  simulation = simulate.Simulation(small())
  count = len(simulation.setting.buckets)
  assert count > 1
  cut, plain = simulate.run(small()), simulate.run(small(buckets=1))
  layout = f'all on 1 device(s) in {count} buckets'
  assert cut.summary['layout'] == simulation.description['layout'] == layout
  assert plain.summary['layout'] == 'all on 1 device(s)'
  chex.assert_trees_all_close(cut.params, plain.params, rtol=1e-4, atol=1e-5)
  with pytest.raises(InputError, match='config.buckets is 0'):
    simulate.Simulation(small(buckets=0))


@pytest.mark.parametrize(
  'overrides',
  [{'clients_per_round': 3}, {'layout': 'one'}, {'method': 'fedavg'}],
)
def test_one_bucket_where_they_are_no_use(overrides):
  assert simulate.Simulation(small(**overrides)).setting.buckets == ()
