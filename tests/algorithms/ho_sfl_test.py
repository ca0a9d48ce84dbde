"""Devices that estimate by probes what the server back-propagates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import ho_sfl
from relief_jax.compressors import Codec
from relief_jax.errors import InputError
from tests.algorithms.split_ledger_test import first_plan
from tests.support import tiny

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))
SIZE = 200


def part(probes):
  return ho_sfl.Part(TASK, np.ones(TASK.num_blocks, bool), 1.0, probes)


@pytest.mark.parametrize(
  'probes', [5, pytest.param(20, marks=pytest.mark.slow)]
)
def test_the_estimate_is_unbiased_and_points_where_it_should(probes):
  """Of d = 200 numbers: mean, squared norm, and cosine to the gradient."""
  gradient = jax.random.normal(jax.random.key(0), (SIZE,))
  found = part(probes)

  def one(key):
    def scalar(number):
      return jnp.vdot(gradient, ho_sfl.direction(found, gradient, key, number))

    values = jax.vmap(scalar)(jnp.arange(probes))
    return ho_sfl.estimate(found, gradient, key, values)

  count = 3000
  every = jax.vmap(one)(jax.random.split(jax.random.key(1), count))
  norm = float(jnp.linalg.norm(gradient))
  # A sum of `count` draws of so much variance each.
  error = every.mean(0) - gradient
  spread = norm * np.sqrt((SIZE + probes + 1) / probes / count)
  assert float(jnp.linalg.norm(error)) < 1.3 * spread
  squares = float(jnp.square(every).sum(-1).mean())
  assert squares == pytest.approx(
    (SIZE + probes + 1) / probes * norm**2, rel=0.05
  )
  cosine = every @ gradient / jnp.linalg.norm(every, axis=-1) / norm
  assert float(cosine.mean()) == pytest.approx(
    np.sqrt(probes / (probes + SIZE + 1)), rel=0.05
  )


@functools.cache
def run(**values):
  population = tiny.population(TASK)
  setting = tiny.setting(population, 'ho_sfl', layers=1, **values)
  state, info = tiny.step('ho_sfl', TASK, population, setting)
  return state, info, setting


@pytest.mark.slow
def test_who_was_away_replays_the_round():
  """From scalars and seeds alone; two programs may round the last bit apart."""
  state, _, setting = run()
  before = tiny.init(TASK)
  heard = state.server.method_state
  replayed = jax.jit(
    lambda hparams, params, heard: ho_sfl.replay(
      TASK, setting.static, hparams, params, heard
    )
  )(setting.hparams, before, heard)
  held = [g.startswith('encoder0') for g in TASK.blocks.name]
  count = 0

  def leaf(g, old, new, own):
    nonlocal count
    if held[g]:
      count += 1
      for a, b, c in zip(*map(jax.tree.leaves, (old, new, own)), strict=True):
        np.testing.assert_allclose(c, b, rtol=5e-7, atol=1e-10)
        assert (np.asarray(a) != np.asarray(b)).any()

  jax.tree.map(leaf, TASK.groups, before, state.params, replayed)
  assert count == 2


@pytest.mark.slow
def test_a_difference_is_the_directional_derivative():
  finite, exact = run()[0], run(probe='jvp')[0]
  a, b = (s.server.method_state.scalars for s in (finite, exact))
  np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-3 * np.abs(b).max())


@pytest.mark.slow
def test_what_crosses_by_hand():
  """Activations, labels, scalars; no weights. Probes cost forward passes."""
  _, info, setting = run()
  probes = setting.options.probes
  fleet = tiny.population(TASK).fleet
  spec = tiny.spec_of(TASK)
  owned = np.asarray(fleet.owned).sum(-1)
  crossing = 4 * spec.lengths()[1] * spec.filters[0] * owned * 4
  up = 2 * (crossing + 4 * 4 + 4 * probes)
  down = 2 * (crossing + 2 * 4 * probes)
  np.testing.assert_array_equal(info.upload, up)
  np.testing.assert_array_equal(info.download, down)
  few, many = (
    first_plan(TASK, tiny.population(TASK), 'ho_sfl', layers=1, probes=count)
    for count in (3, 6)
  )
  np.testing.assert_allclose(many.cost.work.fwd, few.cost.work.fwd * 7 / 4)


def test_without_probes_the_device_part_stays_and_nothing_comes_down():
  state, info, setting = run(probe='none')
  held = np.array([g.startswith('encoder0') for g in TASK.blocks.name])

  def leaf(g, old, new):
    same = [
      np.array_equal(a, b)
      for a, b in zip(*map(jax.tree.leaves, (old, new)), strict=True)
    ]
    assert all(same) if held[g] else not all(same)

  jax.tree.map(leaf, TASK.groups, tiny.init(TASK), state.params)
  assert not np.asarray(info.download).any()
  probed = first_plan(TASK, tiny.population(TASK), 'ho_sfl', layers=1)
  alone = first_plan(
    TASK, tiny.population(TASK), 'ho_sfl', layers=1, probe='none'
  )
  np.testing.assert_array_equal(
    probed.cost.upload - alone.cost.upload, 2 * 4 * setting.options.probes
  )
  assert not np.asarray(alone.trained)[:, held].any()
  np.testing.assert_allclose(
    6 * alone.cost.work.fwd[1], probed.cost.work.fwd[1], rtol=1e-6
  )
  # Forward passes need as much memory, whether they are probes or not.
  np.testing.assert_array_equal(alone.cost.memory, probed.cost.memory)


@pytest.mark.parametrize(
  'changed, expected',
  [
    ({'layers': -1}, 'on the device and something at'),
    ({'epochs': 1}, 'local_epochs'),
    ({'probe': 'none', 'gradient_codec': 'int8'}, 'no gradient comes down'),
    ({'uplink_codec': Codec('int8')}, 'uplink_codec'),
  ],
)
def test_what_means_nothing_is_refused(changed, expected):
  """A codec of weights, too, since none travel."""
  setting = tiny.setting(tiny.population(TASK), 'ho_sfl', **changed)
  with pytest.raises(InputError, match=expected):
    tiny.algorithm('ho_sfl', TASK, setting)
