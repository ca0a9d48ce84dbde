"""The layout debug: the same sums in a loop, and errors that say whose."""

import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms, simulate
from relief_jax.engine import debug, placement
from relief_jax.errors import InputError
from tests.support import tiny

DEBUG = placement.parse_layout('debug')


class Client(NamedTuple):
  """As much of a client as an error names."""

  id: Any
  tier: Any


class Row(NamedTuple):
  """One client's row."""

  fleet: Client
  value: Any


class Known(NamedTuple):
  """What all clients see."""

  round_index: Any


def rows(count=3):
  place = jnp.arange(count)
  return Row(Client(10 + place, place % 2), jnp.arange(1.0, 1.0 + count))


def test_the_layout_by_name():
  assert DEBUG.debug and DEBUG.branch and str(DEBUG) == 'debug'
  assert 'debug' in placement.NAMES and placement.is_layout('debug')
  with pytest.raises(InputError, match='debug on one device'):
    placement.parse_layout('debug@2')


def test_sums_and_records_as_in_a_scan():
  def client(shared, row):
    return {'sum': shared * row.value}, row.value**2

  for layout in (DEBUG, placement.Layout(1), placement.Layout(0)):
    sums, records = placement.map_reduce(
      client, jnp.float32(2.0), rows(), layout
    )
    np.testing.assert_array_equal(sums['sum'], 12.0)
    np.testing.assert_array_equal(records, [1.0, 4.0, 9.0])


def test_values_are_numbers_and_an_error_says_whose_it_is():
  def client(shared, row):
    if float(row.value) == 2.0:  # no tracer
      raise KeyError('mine')
    return row.value, row.value

  with pytest.raises(debug.ClientError, match='mine') as caught:
    debug.eager(placement.map_reduce)(
      client, Known(jnp.int32(4)), rows(), DEBUG
    )
  found = caught.value
  assert (found.round, found.client, found.tier) == (5, 11, 1)
  assert isinstance(found.__cause__, KeyError)
  named = found.named(('low', 'high'))
  assert str(named).startswith('round 5, client 11 of tier high: KeyError')
  again = pickle.loads(pickle.dumps(named))
  assert str(again) == str(named) and again.client == 11


def test_an_error_outside_of_a_client_stays_as_it_is():
  with pytest.raises(KeyError), debug.located(Known(0), object()):
    raise KeyError('no row')


def test_the_first_block_that_is_not_finite():
  task = tiny.task()
  good = tiny.init(task)
  debug.check_finite(task, jnp.float32(1.0), good)
  broken = {**good, 'head': jax.tree.map(lambda v: v * jnp.nan, good['head'])}
  with pytest.raises(FloatingPointError) as caught:
    debug.check_finite(task, jnp.float32(1.0), broken)
  assert caught.value.block == 'shared'
  with pytest.raises(FloatingPointError, match='loss is nan'):
    debug.check_finite(task, jnp.float32(jnp.nan), good)
  # Nothing is known of a tracer.
  jax.eval_shape(lambda p: debug.check_finite(task, 0.0, p) or p, broken)


def small(method, **overrides):
  return tiny.config(
    method=method,
    layout='debug',
    clients=3,
    rounds=1,
    rounds_per_call=1,
    local_steps=1,
    **{'synthetic.modalities': 2},
    **overrides,
  )


@pytest.mark.slow
def test_a_run_is_the_same_round():
  found = simulate.run(small('relief'))
  config = small('relief')
  config.layout = 'one'
  want = simulate.run(config)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
    found.params,
    want.params,
  )


@pytest.mark.slow
def test_a_run_names_round_client_tier_and_block(monkeypatch):
  base = algorithms.ALGORITHMS['fedavg']

  def broken(task, setting):
    method = base(task, setting)

    def client(received, device):
      update = method.client(received, device)
      if isinstance(device.fleet.id, jax.core.Tracer):
        return update  # asked for its shapes only
      if int(device.fleet.id) == 1:
        nan = jax.tree.map(lambda u: u * jnp.nan, update.delta['fusion'])
        return update._replace(delta={**update.delta, 'fusion': nan})
      return update

    return method._replace(client=client)

  monkeypatch.setitem(algorithms.ALGORITHMS, 'broken', broken)
  with pytest.raises(debug.ClientError) as caught:
    simulate.run(small('broken'))
  assert caught.value.round == 1 and caught.value.client == 1
  assert isinstance(caught.value.tier, str)
  assert caught.value.block == 'fusion/acc'
