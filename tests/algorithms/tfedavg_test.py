"""What makes T-FedAvg different: ternary weights on devices and links."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import tfedavg
from relief_jax.compressors import Codec, base, ternary
from relief_jax.errors import InputError
from tests.support import tiny
from tests.twins import tfedavg_twin, twin


def test_the_gradient_of_fttq():
  """V gets s g above D and g below; s the sum of g over V > D."""
  value = jnp.array([[3.0, -1.0], [0.1, -2.0]])
  g = jnp.array([[0.5, 2.0], [4.0, 8.0]])
  kept = jnp.abs(value) > 0.7 * 6.1 / 4

  def loss(value, scale):
    return (g * tfedavg.straight_through(value, kept, scale)).sum()

  to_value, to_scale = jax.grad(loss, (0, 1))(value, jnp.float32(2.0))
  np.testing.assert_allclose(to_value, [[1.0, 2.0], [4.0, 16.0]])
  assert to_scale == 0.5
  # s = (3 + 2) / 2 hands its own gradient on to the weights that it is made of.
  found = jax.grad(lambda v: (g * tfedavg.quantise(v, 'twn')).sum())(value)
  own = 0.5 / 2
  np.testing.assert_allclose(found, [[1.25 + own, 2], [4, 20 - own]], rtol=1e-6)


def rounds(lost, client_lr, mode='twn'):
  """Task, population, and (state, info) of three rounds."""
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task, owned=np.ones((3, 2), bool))
  setting = tiny.setting(
    population,
    'tfedavg',
    fill='input',
    lost=lost,
    mode=mode,
    client_lr=client_lr,
  )
  return task, list(tiny.run('tfedavg', task, population, setting, 3))


def packed(task, params, short):
  """[G] bytes; `short` tells which arrays are sent in two bits a number."""
  code = ternary.ternary(Codec('ternary'))
  found = np.zeros(task.num_blocks)
  for k, v in twin.named(params).items():
    value, size = jnp.asarray(v, jnp.float32), 4 * v.size
    if short(k, v):
      sent = code.encode(value, jax.random.key(0))
      size = len(base.pack(code, sent, v.shape))
      arrived = code.decode(sent, jax.random.key(0), v.shape)
      # A model that is broadcast short arrives as it is.
      np.testing.assert_allclose(arrived, value, rtol=1e-5, atol=1e-7)
    found[task.blocks.name.index(twin.group_of(k))] += size
  return found.sum()


@pytest.mark.slow
@pytest.mark.parametrize('lost', [9.0, 0.0])
def test_bytes_are_those_of_packed_arrays(lost):
  """Up always ternary; down where the server's weights are, else whole.

  Devices that learn fast disagree, so that their mean is not ternary.
  """
  task, seen = rounds(lost, client_lr=1.0)
  params, counts = tiny.init(task), []
  for state, info in seen:

    def short(k, v):
      levels = np.unique(np.abs(v))
      levels = levels[np.append(True, np.diff(levels) > 1e-6)]
      return tfedavg_twin.coded(k, v) and len(levels) == 2

    named = twin.named(params)
    counts.append(sum(short(k, v) for k, v in named.items()))
    np.testing.assert_array_equal(info.download, packed(task, params, short))
    up = sum(tfedavg_twin.wire(k, v) for k, v in named.items())
    np.testing.assert_array_equal(info.upload, up)
    params = state.params
  assert counts[0] == 0
  coded = sum(tfedavg_twin.coded(k, v) for k, v in named.items())
  assert counts[1:] == [coded] * 2 if lost else max(counts) < coded


def test_a_code_of_a_code_is_refused():
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task)
  for overrides, match in (
    ({'uplink_codec': Codec('int8')}, 'codes both links itself'),
    ({'server_optimizer': 'adam'}, 'server_optimizer=sgd'),
    ({'mode': 'best'}, "unknown mode of ternary 'best'"),
  ):
    setting = tiny.setting(population, 'tfedavg', **overrides)
    with pytest.raises(InputError, match=match):
      tiny.algorithm('tfedavg', task, setting)
