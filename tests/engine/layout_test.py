"""Layouts, padding, order and calls: none of them may change results."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.engine import placement
from relief_jax.simulate import Simulation
from tests.support import tiny

# Seven clients: no block or device count below divides them.
OWNED = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [1, 0], [1, 1], [1, 0]], bool)
SAMPLES = [5, 6, 0, 7, 8, 9, 3]  # the third is padding


@functools.cache
def world():
  """RELIEF at a deadline at which not all train all, one client is padding."""
  task = tiny.task('cnn', modalities=('acc', 'gyro'), filters=(4,))
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  share = [1, 0.5, 0, 0.6, 1, 0.3, -1]  # the last one sits out
  return task, tiny.with_share(task, population, share)


def setting(layout, **overrides):
  _, population = world()
  return tiny.setting(population, deadline=1.0, layout=layout, **overrides)


@functools.cache
def one_round(name, devices=1, seed=0):
  task, population = world()
  layout = placement.parse_layout(name, devices)
  return jax.tree.map(
    np.asarray,
    tiny.step('relief', task, population, setting(layout), seed=seed),
  )


@pytest.mark.invariant(3)
@pytest.mark.parametrize(
  'name, devices',
  [
    pytest.param('block:3', 1, marks=pytest.mark.slow),
    ('all', 1),
    ('one', 8),
    pytest.param('block:2', 2, marks=pytest.mark.slow),
  ],
)
def test_layouts_agree(name, devices):
  state, info = one_round('one')
  other, record = one_round(name, devices)
  chex.assert_trees_all_close(state, other, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(info, record, rtol=1e-5, atol=1e-6)
  # The plan is made before the clients are laid out.
  np.testing.assert_array_equal(info.trained, record.trained)
  share = info.trained[:, :4].mean(1)
  assert share[2] == share[6] == 0 and len(set(share)) > 3


def test_a_round_moves_the_model_and_follows_its_seed():
  task, population = world()
  before = tiny.init(task)
  state, info = one_round('one')
  for old, new in zip(
    jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True
  ):
    assert (np.asarray(old) != new).any()
  layout = placement.Layout()
  again, same = tiny.step('relief', task, population, setting(layout))
  chex.assert_trees_all_equal(again, state)
  chex.assert_trees_all_equal(same, info)
  _, other = one_round('one', seed=1)
  assert (other.loss != info.loss).any()


@pytest.mark.parametrize('name, devices', [('one', 1), ('all', 1), ('one', 8)])
def test_padding_full_of_nan_changes_nothing(name, devices):
  """The padding client's windows, speed, links, watts and budget."""
  task, population = world()
  state, info = one_round(name, devices)
  # Its rows are padded with the bank's first row; lead them to a bad one.
  bad = int(population.rows[6, 0])  # of the client that sits out
  rows = population.rows.at[2].set(bad)
  x = {m: v.at[bad].set(jnp.nan) for m, v in population.bank.x.items()}
  fleet = population.fleet
  broken = {
    field: getattr(fleet, field).at[2].set(jnp.nan)
    for field in ('speed', 'uplink', 'downlink', 'watts', 'budget')
  }
  poisoned = population.replace(
    bank=population.bank.replace(x=x),
    rows=rows,
    fleet=fleet.replace(**broken),
  )
  layout = placement.parse_layout(name, devices)
  other, record = tiny.step('relief', task, poisoned, setting(layout))
  chex.assert_trees_all_equal(other, state)
  chex.assert_trees_all_equal(record, info)


def test_client_order_changes_nothing():
  """Random numbers belong to a client's id, not to its place."""
  task, population = world()
  layout = placement.Layout()
  order = jnp.array([5, 2, 0, 6, 1, 3, 4])
  moved = population.replace(
    fleet=jax.tree.map(lambda v: v[order], population.fleet),
    rows=population.rows[order],
  )
  for (state, info), (other, record) in zip(
    tiny.run('relief', task, population, setting(layout), 2),
    tiny.run('relief', task, moved, setting(layout), 2),
    strict=True,
  ):
    chex.assert_trees_all_close(
      state.params, other.params, rtol=1e-5, atol=1e-6
    )
    there = info._replace(divergence=record.divergence)
    there = jax.tree.map(lambda v: v[order], there)._replace(
      divergence=info.divergence
    )
    np.testing.assert_array_equal(record.client, order)
    np.testing.assert_array_equal(record.trained, there.trained)
    chex.assert_trees_all_close(record, there, rtol=1e-5, atol=1e-6)


def test_deal_by_work_gives_records_back_in_order():
  """map_reduce alone: sums, and records at their clients' places."""
  rows = {'v': jnp.arange(1.0, 12.0), 'on': jnp.ones(11, bool)}
  work = jnp.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])

  def client(shared, row):
    value = jnp.where(row['on'], shared * row['v'], 0.0)
    return {'sum': value, 'count': row['on'].astype(jnp.int32)}, value

  for name, devices in (('one', 8), ('block:3', 2), ('all', 8), ('all', 1)):
    layout = placement.parse_layout(name, devices)
    sums, records = jax.jit(
      lambda rows, layout=layout: placement.map_reduce(
        client, jnp.float32(2), rows, layout, work
      )
    )(rows)
    assert (sums['sum'], sums['count']) == (132, 11)
    np.testing.assert_array_equal(records, 2 * np.arange(1.0, 12.0))


def simulate(**overrides):
  # Seven rounds: the second call of five has three to skip.
  simulation = Simulation(
    tiny.config(
      backbone='lora',
      rounds=7,
      eval_every=5,
      **{'model.base': 'random', 'synthetic.modalities': 2},
      **overrides,
    )
  )
  while not simulation.done:
    simulation.advance()
  return simulation


def without_clock(history):
  return [
    {k: v for k, v in record.items() if k != 'wall_seconds'}
    for record in history
  ]


@pytest.mark.slow
@pytest.mark.invariant(3)
def test_rounds_per_call_change_nothing():
  one, five = simulate(rounds_per_call=1), simulate(rounds_per_call=5)
  assert [r['round'] for r in five.history] == [0, 5, 7]
  # Two programs: to rounding, like layouts; the draws are the same.
  chex.assert_trees_all_close(one.snapshot(), five.snapshot(), rtol=1e-5)
  first, second = map(without_clock, (one.history, five.history))
  for left, right in zip(first, second, strict=True):
    chex.assert_trees_all_close(
      *({k: v for k, v in r.items() if v is not None} for r in (left, right)),
      rtol=1e-5,
    )


def test_a_reduction_may_stand_inside_a_loop():
  """Clients that step towards their common mean, as a split round does."""
  values = jnp.arange(6.0)

  def client(mean, row):
    value, real = row  # a row of zeros pads, and stays one
    moved = real * (value + 0.5 * (mean - value))
    return moved, (moved, real)

  def body(shared, rows, each):
    def step(carry, _):
      total, rows = carry
      return each(client, total / 6, rows), None

    (total, rows), _ = jax.lax.scan(step, (shared, rows), length=3)
    return total, rows

  want = np.arange(6.0)
  for _ in range(3):
    want = want + 0.5 * (2.5 - want)
  for name in ('one', 'block:2', 'all', 'one@2', 'debug'):
    layout = placement.parse_layout(name)
    total, (rows, _) = jax.jit(
      lambda v, layout=layout: placement.over_devices(
        body, v.sum(), (v, jnp.ones(6)), layout
      )
    )(values)
    np.testing.assert_allclose(rows, want, rtol=1e-6)
    np.testing.assert_allclose(total, 15.0, rtol=1e-6)
