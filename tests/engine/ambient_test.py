"""What is drawn, and in which type, follows no setting of the process."""

import re

import jax
import numpy as np
import pytest

from experiments.configs import relief
from relief_jax import simulate
from relief_jax.engine import ambient
from tests.support.paths import ROOT

ODD = {
  'enable_x64': True,
  'threefry_partitionable': False,
  'default_prng_impl': 'unsafe_rbg',
  'enable_custom_prng': True,
  'numpy_dtype_promotion': 'strict',
  'softmax_custom_jvp': False,
  'disable_jit': True,
  'debug_nans': True,
  'debug_infs': True,
}


@pytest.fixture
def odd():
  """Sets names of `jax.config` until the test is over."""
  before = {}

  def odd(**values):
    for name, value in values.items():
      before.setdefault(name, getattr(jax.config, f'jax_{name}'))
      jax.config.update(f'jax_{name}', value)

  yield odd
  odd(**before)


def test_every_pinned_setting_is_tried():
  assert ODD.keys() == ambient.PINNED.keys()
  assert all(ODD[name] != value for name, value in ambient.PINNED.items())


@pytest.mark.parametrize('name', ODD)
def test_draws_and_types_are_the_same(odd, name):
  @ambient.pinned()
  def drawn():
    key = jax.random.fold_in(ambient.key(5), 3)
    x = jax.random.normal(key, (5,)) * jax.numpy.arange(5)
    return np.asarray(jax.nn.softmax(x / 0.0 * 0.0 + x))

  before = drawn()
  odd(**{name: ODD[name]})
  np.testing.assert_array_equal(drawn(), before)
  assert drawn().dtype == np.float32
  assert getattr(jax.config, f'jax_{name}') == ODD[name]  # given back


def test_keys_of_seeds():
  def words(seed):
    return jax.random.key_data(ambient.key(seed)).tolist()

  for seed in (0, 7, 2**31, 2**32 - 1, np.int64(3)):
    plain = jax.random.key(int(seed), impl=ambient.GENERATOR)
    assert words(seed) == jax.random.key_data(plain).tolist()
  assert len({str(words(s + 2**32 * i)) for s in (0, 1) for i in range(3)}) == 6


def test_only_one_place_makes_keys():
  for part in ('relief_jax', 'experiments'):
    for path in ROOT.glob(f'{part}/**/*.py'):
      if path.name != 'ambient.py':
        found = re.findall(
          r'random\.key\(|PRNGKey|wrap_key_data', path.read_text()
        )
        assert not found, path


@pytest.mark.slow
def test_a_run_is_the_same_in_a_program_with_settings_of_its_own(odd):
  def history():
    config = relief.get_config('smoke')
    config.devices, config.sensor_faults.noise = 1, 0.5
    rows = simulate.run(config).history
    return [
      {k: v for k, v in row.items() if k != 'wall_seconds'} for row in rows
    ]

  before = history()
  simulate.clear()
  odd(**ODD)
  assert repr(history()) == repr(before)


def test_the_users_choice_is_told(odd):
  assert ambient.chosen()['jax_default_matmul_precision'] is None
  odd(default_matmul_precision='highest')
  assert ambient.chosen()['jax_default_matmul_precision'] == 'highest'
