"""Sensors that differ between devices, without a copy of the windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import simulate
from relief_jax.clients import sensor_faults
from relief_jax.config import default
from relief_jax.config.validation import validate
from relief_jax.engine import placement
from relief_jax.errors import InputError
from tests.support import tiny

OFF = dict(gain=0.0, bias=0.0, noise=0.0, jitter=0.0)


def draw(clients=4, modalities=3, seed=0, **levels):
  rng = np.random.default_rng(seed)
  return sensor_faults.draw({**OFF, **levels}, clients, modalities, rng)


def client(drawn, n):
  return jax.tree.map(lambda v: v[n], drawn)


def windows(count=6, time=40):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(count, time, 2)), jnp.float32)


def test_off_is_nothing():
  assert draw() is None


def test_only_what_is_on_is_there():
  drawn = draw(gain=0.2)
  assert drawn.gain.shape == (4, 3)
  assert drawn.bias is drawn.noise is drawn.jitter is drawn.key is None
  assert len(jax.tree.leaves(drawn)) == 1


def test_one_level_does_not_change_another():
  np.testing.assert_array_equal(
    draw(bias=0.3).bias, draw(gain=1.0, bias=0.3, jitter=0.1).bias
  )


def test_levels():
  drawn = draw(2000, 3, gain=0.2, bias=0.5, noise=0.3, jitter=0.4)
  assert np.log(drawn.gain).std() == pytest.approx(0.2, rel=0.05)
  assert np.std(drawn.bias) == pytest.approx(0.5, rel=0.05)
  for value, top in ((drawn.noise, 0.3), (drawn.jitter, 0.4)):
    assert 0 <= value.min() and value.max() <= top
    assert np.mean(value) == pytest.approx(top / 2, rel=0.05)


def test_gain_and_bias_are_the_formula():
  drawn, x = draw(gain=0.2, bias=0.5), windows()
  got = sensor_faults.apply(client(drawn, 2), 1, x, jnp.arange(6))
  np.testing.assert_allclose(
    got, drawn.gain[2, 1] * x + drawn.bias[2, 1], rtol=1e-6
  )


def test_noise_belongs_to_device_modality_and_window():
  drawn, x = draw(noise=0.5), jnp.zeros((6, 40, 2))
  rows = jnp.array([7, 3, 7, 5, 9, 3])
  one = np.asarray(sensor_faults.apply(client(drawn, 1), 0, x, rows))
  np.testing.assert_array_equal(one[0], one[2])
  np.testing.assert_array_equal(one[1], one[5])
  assert (one[0] != one[1]).any()
  again = sensor_faults.apply(client(drawn, 1), 0, x[:1], rows[:1])
  np.testing.assert_array_equal(again[0], one[0])
  for other in (
    sensor_faults.apply(client(drawn, 2), 0, x, rows) / drawn.noise[2, 0],
    sensor_faults.apply(client(drawn, 1), 1, x, rows) / drawn.noise[1, 1],
  ):
    assert (np.asarray(other)[0] != one[0] / drawn.noise[1, 0]).all()
  big = sensor_faults.apply(
    client(drawn, 1), 0, jnp.zeros((200, 40, 2)), jnp.arange(200)
  )
  assert np.std(big) == pytest.approx(float(drawn.noise[1, 0]), rel=0.05)


@pytest.mark.slow
def test_jitter_moves_samples_in_time():
  drawn = draw(jitter=0.5)
  one = client(drawn, 3)
  flat = jnp.ones((2, 40, 2))
  np.testing.assert_allclose(
    sensor_faults.apply(one, 0, flat, jnp.arange(2)), flat, rtol=1e-6
  )
  ramp = jnp.broadcast_to(jnp.arange(40.0)[:, None], (100, 40, 2))
  late = np.asarray(sensor_faults.apply(one, 0, ramp, jnp.arange(100)) - ramp)
  # A sensor samples all its channels at once.
  np.testing.assert_array_equal(late[..., 0], late[..., 1])
  assert np.abs(late).max() <= 1.001
  inner = late[:, 1:-1]
  assert inner.std() == pytest.approx(float(one.jitter[0]), rel=0.1)
  assert (late[:, 0] >= 0).all() and (late[:, -1] <= 0).all()


def world(layout=None, **levels):
  task = tiny.task()
  population = tiny.population(task)
  drawn = draw(5, len(task.modalities), **levels)
  fleet = population.fleet.replace(shift=drawn)
  setting = tiny.setting(population)
  if layout is not None:
    setting = setting._replace(layout=placement.Layout(layout))
  return task, population.replace(fleet=fleet), setting


def close(a, b):
  def one(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

  jax.tree.map(one, a, b)


@pytest.mark.slow
def test_a_round_equals_one_over_windows_shifted_beforehand():
  task, population, setting = world(gain=0.3, bias=0.4, noise=0.2, jitter=0.2)
  got, _ = tiny.step('fedavg', task, population, setting)
  fleet, bank = population.fleet, population.bank
  x = {k: np.array(v) for k, v in bank.x.items()}
  for n, count in enumerate(np.asarray(fleet.samples)):
    own = population.rows[n, :count]  # disjoint between clients
    for i, name in enumerate(task.modalities):
      x[name][own] = sensor_faults.apply(
        client(fleet.shift, n), i, bank.x[name][own], own
      )
  beforehand = population.replace(
    bank=bank.replace(x=jax.tree.map(jnp.asarray, x)),
    fleet=fleet.replace(shift=None),
  )
  expected, _ = tiny.step('fedavg', task, beforehand, setting)
  close(got.params, expected.params)
  # And not what an unshifted world gives.
  plain, _ = tiny.step(
    'fedavg', task, population.replace(fleet=beforehand.fleet), setting
  )
  moved = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), got.params, plain.params
  )
  assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow
def test_all_at_once_agrees():
  one = tiny.step('fedavg', *world(1, gain=0.3, noise=0.2))[0]
  every = tiny.step('fedavg', *world(0, gain=0.3, noise=0.2))[0]
  close(one.params, every.params)


def test_config():
  c = default()
  c.sensor_faults.noise = -1.0
  with pytest.raises(InputError, match='sensor_faults.noise'):
    validate(c)


def test_frozen_features_are_not_cached_under_a_shift():
  c = tiny.config(backbone='lora', **{'sensor_faults.gain': 0.2})
  found = simulate.Simulation(c)
  assert found._world.population.fleet.shift.gain.shape == (6, 3)
  assert not found._world.spec.cached
