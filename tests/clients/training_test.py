"""Local training: gates that hold, branches that skip, padding that is not."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import tree
from relief_jax.clients import batches, device, training
from relief_jax.clients.records import Batch, Gate, Steps
from relief_jax.online import conditions
from tests.support import tiny

dropout = jax.jit(training.modality_dropout, static_argnums=3)

OPTIMIZERS = {
  'momentum': optax.sgd(0.1, momentum=0.9),
  'decay': optax.adamw(0.1, weight_decay=0.5),
  'clipped': optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
  'noisy': optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1)),
}

PARAMS = {'a': np.array([1.0, -2.0], np.float32), 'b': np.ones(3, np.float32)}


def steps_of(rows, weight=None):
  rows = jnp.asarray(rows, jnp.int32)
  weight = jnp.ones(rows.shape) if weight is None else jnp.asarray(weight)
  run = jnp.ones((len(rows), 1), bool)
  return Steps(rows, weight, run, None)


TARGETS = jnp.arange(12.0).reshape(4, 3)


def squares(params, step):
  """Pulls `b` to the mean of its targets, and `a` to twice b's first number."""
  target = TARGETS[step.row]
  gap = tree.scale(step.weight[:, None], target - params['b'][None])
  total = jnp.maximum(step.weight.sum(), 1.0)
  far = params['a'] - 2 * params['b'][:1]
  return jnp.square(gap).sum() / total + jnp.square(far).sum()


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('free', ['a', 'b'])
def test_frozen_groups_keep_their_bits(name, free):
  """Whatever the optimiser adds of its own: decay, noise, old momentum."""
  tx = OPTIMIZERS[name]
  steps = steps_of([[0, 1], [2, 3], [1, 2]])

  @jax.jit
  def twice(params):
    mask = {k: jnp.array(True) for k in PARAMS}
    used = training.local_update(squares, tx, params, mask, steps).opt_state
    mask = {k: jnp.array(k == free) for k in PARAMS}
    return training.local_update(squares, tx, params, mask, steps, used)[0]

  for k, moved in twice(PARAMS).items():
    assert (k == free) == bool((moved != 0).all())
    assert (k == free) or not moved.any()


def test_a_frozen_gradient_does_not_clip_the_others():
  """The clipped norm is that of what trains: as if nothing else existed."""
  tx = OPTIMIZERS['clipped']
  steps = steps_of([[0, 1], [2, 3]])

  def alone(params, step):
    return squares({'a': jnp.asarray(PARAMS['a']), **params}, step)

  @jax.jit
  def both(params):
    mask = {'a': jnp.array(False), 'b': jnp.array(True)}
    among, *_ = training.local_update(squares, tx, params, mask, steps)
    mask, own = {'b': jnp.array(True)}, {'b': params['b']}
    return among['b'], training.local_update(alone, tx, own, mask, steps)[0]

  among, by_itself = both(PARAMS)
  np.testing.assert_allclose(among, by_itself['b'], rtol=1e-6)


def test_momentum_by_hand():
  steps = steps_of([[0], [1]])
  tx = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(0.1))
  mask = {'a': jnp.array(False), 'b': jnp.array(True)}

  def loss(params, step):  # gradient: the target itself
    return (params['b'] * TARGETS[step.row[0]]).sum() + params['a'].sum()

  delta, value, *_ = training.local_update(loss, tx, PARAMS, mask, steps)
  first, second = np.asarray(TARGETS[:2])
  np.testing.assert_allclose(
    delta['b'], -0.1 * (first + (0.9 * first + second)), rtol=1e-5
  )
  after = PARAMS['b'] - 0.1 * first
  mean = (PARAMS['b'] @ first + after @ second) / 2 + PARAMS['a'].sum()
  np.testing.assert_allclose(value, mean, rtol=1e-5)


@pytest.mark.parametrize('name', ['momentum', 'decay'])
def test_steps_of_padding_leave_no_trace(name):
  """Model, momentum and mean loss to the bit, wherever the padding is."""
  tx = OPTIMIZERS[name]
  mask = {k: jnp.array(True) for k in PARAMS}

  @jax.jit
  def train(steps):
    return training.local_update(squares, tx, PARAMS, mask, steps, ragged=True)

  rows = jnp.array([[0, 1], [0, 0], [2, 3], [3, 1]])
  some = jnp.array([[1.0, 1], [0, 0], [1, 1], [0, 0]])
  padded = train(steps_of(rows, some))
  # Elsewhere, and of other windows.
  order = jnp.array([1, 0, 3, 2])
  rows = rows.at[3].set(1)
  other = train(steps_of(rows[order], some[order]))
  chex.assert_trees_all_equal(padded, other)
  plain = jax.jit(
    lambda steps: training.local_update(squares, tx, PARAMS, mask, steps)
  )(steps_of([[0, 1], [2, 3]]))
  chex.assert_trees_all_close(padded, plain, rtol=1e-6)
  nothing = train(steps_of(rows, jnp.zeros((4, 2))))
  chex.assert_trees_all_equal(
    nothing[:2], jax.tree.map(jnp.zeros_like, nothing[:2])
  )


def test_a_padded_batch_is_a_smaller_batch():
  scores = jnp.array([[2.0, 1.0], [0.0, 3.0], [jnp.nan, 5.0]])
  y = jnp.array([0, 0, 1])
  some = training.cross_entropy(scores, y, jnp.array([1.0, 1, 0]))
  few = training.cross_entropy(scores[:2], y[:2], jnp.ones(2))
  np.testing.assert_allclose(some, few, rtol=1e-6)
  value, slope = jax.value_and_grad(training.cross_entropy)(
    scores[:2], y[:2], jnp.zeros(2)
  )
  assert value == 0 and not slope.any()


def test_epochs_show_every_window_once():
  """Clients of 5, 0, 8 and 1 windows, batches of 3, two epochs."""
  task = tiny.task('cnn')
  owned = np.ones((4, 3), bool)
  population = tiny.population(task, owned=owned, samples=[5, 0, 8, 1])
  row, weight = map(
    np.asarray,
    jax.jit(
      lambda key: jax.vmap(batches.draw_epochs, (0, 0, 0, None, None))(
        batches.client_keys(key, population.fleet),
        population.rows,
        population.fleet.samples,
        2,
        3,
      )
    )(jax.random.key(0)),
  )
  assert row.shape == weight.shape == (4, 6, 3)
  for n, count in enumerate([5, 0, 8, 1]):
    own = np.asarray(population.rows[n, :count])
    orders = []
    for half in (slice(0, 3), slice(3, 6)):
      seen = row[n, half][weight[n, half] > 0]
      np.testing.assert_array_equal(np.sort(seen), own)
      orders.append(seen.tolist())
      # Padding comes last: full batches first.
      real = (weight[n, half] > 0).ravel()
      np.testing.assert_array_equal(real, np.arange(9) < count)
    assert count < 5 or orders[0] != orders[1]
  assert set(np.unique(weight)) == {0, 1}


def test_a_client_of_few_windows_trains_few_steps():
  """In a round by epochs, next to a client with eight times its windows."""
  task = tiny.task('cnn', modalities=('acc',))
  owned = np.ones((2, 1), bool)
  population = tiny.population(task, owned=owned, samples=[16, 2])
  setting = tiny.setting(population, epochs=2, batch=2, client_momentum=0.5)
  key = jax.random.key(3)
  params = tiny.init(task)
  everything = jnp.ones(3, bool)
  mask = tree.broadcast_groups(task.groups, everything)
  steps = jax.jit(
    lambda key, fleet, own: batches.local_steps(
      key, setting, setting.hparams, fleet, own, jnp.ones(1, bool)
    )
  )
  mine = steps(key, *conditions.take(population, 1, 0))
  assert (np.asarray(mine.weight) > 0).any(1).nonzero()[0].tolist() == [0, 8]

  @jax.jit
  def train(steps):
    return training.local_update(
      device.client_loss(task, population, everything),
      setting.client_tx(setting.hparams),
      params,
      mask,
      steps,
      ragged=True,
    )

  short = jax.tree.map(lambda v: v[jnp.array([0, 8])], mine)
  chex.assert_trees_all_close(train(mine), train(short), rtol=1e-6)


@functools.cache
def gated():
  """(run, train, sensed) -> features, logits and gradients."""
  task = tiny.task('cnn', modalities=('acc', 'gyro'), groups='layer')
  population = tiny.population(task, clients=2, fill=0.7)
  batch = Batch(population.bank, jnp.arange(4), jnp.ones(4))
  num = task.num_blocks

  @jax.jit
  def both(params, run, train, sensed):
    gate = Gate(run, sensed, train)

    def loss(params):
      scores = training.logits(task, params, {}, batch, gate)
      y = population.bank.y[batch.row]
      return training.cross_entropy(scores, y, batch.weight), scores

    return jax.grad(loss, has_aux=True)(params)

  params = tiny.init(task)
  # No ReLU may be dead, or gradients vanish of themselves.
  params = jax.tree.map(lambda v: v + 5.0 * (v.ndim == 1), params)
  every, pair = np.ones(num, bool), np.ones(2, bool)

  def call(run=pair, train=every, sensed=pair):
    return both(params, *(np.asarray(v, bool) for v in (run, train, sensed)))

  return task, call


def groups_of(grads, task):
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  return dict(zip(task.blocks.name, np.asarray(sq), strict=True))


def test_an_absent_branch_has_no_gradient():
  task, call = gated()
  full, scores = call()
  grads, without = call(run=[True, False])
  assert (scores != without).any()
  for name, sq in groups_of(grads, task).items():
    assert (sq == 0) == ('gyro' in name), name
  assert all(sq > 0 for sq in groups_of(full, task).values())


@pytest.mark.parametrize(
  'frozen, silent',
  [
    # From the input side: what lies below the lowest trained layer.
    (['encoder0/acc'], ['encoder0/acc']),
    (['encoder0/acc', 'encoder1/acc'], ['encoder0/acc', 'encoder1/acc']),
    (['encoder1/acc'], []),
    (['encoder0/gyro', 'fusion/acc'], ['encoder0/gyro']),
  ],
)
def test_freezing_cuts_gradients_and_nothing_else(frozen, silent):
  """The same scores to the bit; gradients of what trains are the same."""
  task, call = gated()
  full, scores = call()
  train = [name not in frozen for name in task.blocks.name]
  grads, same = call(train=train)
  np.testing.assert_array_equal(scores, same)
  for name, sq in groups_of(grads, task).items():
    assert (sq == 0) == (name in silent), name
  kept = tree.broadcast_groups(
    task.groups, np.array([n not in silent for n in task.blocks.name])
  )
  chex.assert_trees_all_close(
    grads, tree.scale(jax.tree.map(float, kept), full), rtol=1e-5, atol=1e-7
  )


def test_a_filled_sensor_runs_on_its_filling():
  task, call = gated()
  grads, filled = call(sensed=[True, False])
  _, real = call()
  _, skipped = call(run=[True, False])
  assert (filled != real).any() and (filled != skipped).any()
  # All windows see the same filling: only acc tells them apart.
  _, blind = call(sensed=[False, False])
  np.testing.assert_allclose(blind, np.repeat(blind[:1], 4, 0), rtol=1e-6)
  # This is the waste: a filled branch has a gradient all the same.
  assert all(sq > 0 for sq in groups_of(grads, task).values())


@pytest.mark.parametrize('num', [2, 3])
def test_modality_dropout_drops_at_its_rate(num):
  """A sensor stays if it is not dropped, or if all are and it is drawn."""
  rate, owned, count = 0.4, np.arange(4) < num, 20000
  kept = np.asarray(dropout(jax.random.key(0), owned, np.float32(rate), count))
  assert kept.shape == (count, 4)
  assert kept.any(1).all() and not kept[:, num:].any()
  expected = 1 - rate + rate**num / num
  np.testing.assert_allclose(kept[:, :num].mean(0), expected, atol=0.015)
  # Independent draws: both first ones together.
  both = (1 - rate) ** 2
  together = kept[:, :2].all(1).mean()
  np.testing.assert_allclose(together, both, atol=0.015)


@settings(max_examples=30, deadline=None)
@given(
  st.lists(st.booleans(), min_size=3, max_size=3),
  st.floats(0, 0.99),
  st.integers(0, 2**31),
)
def test_modality_dropout_keeps_one_of_the_owned(owned, rate, seed):
  kept = np.asarray(
    dropout(jax.random.key(seed), np.array(owned), np.float32(rate), 8)
  )
  assert not kept[:, ~np.array(owned)].any()
  assert (kept.any(1) == any(owned)).all()
  if sum(owned) == 1 or rate == 0:
    assert (kept == np.array(owned)).all()
