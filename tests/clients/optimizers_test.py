"""Local optimisers: optax's own steps on what trains, nothing on the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relief_jax import config as config_lib
from relief_jax import optimizers, tree
from relief_jax.clients import training
from relief_jax.clients.records import Steps
from relief_jax.config import validation
from relief_jax.errors import InputError
from relief_jax.optimizers import OPTIMIZERS, Optimizer, reading
from relief_jax.runs import program
from relief_jax.runs.simulation import Simulation
from relief_jax.settings import Setting
from tests.support import tiny

HPARAMS = {**tiny.HPARAMS, 'lr_decay': 0.5, 'lr_floor': 0.01, 'rounds': 10.0}
PARAMS = {'a': {'w': jnp.array([[1.0, -2.0], [3.0, 0.5]])}, 'b': jnp.ones(3)}
GROUPS = {'a': 0, 'b': 1}


def configured(**values):
  c = config_lib.default()
  c.update_from_flattened_dict(values)
  return c


def read(**values) -> tuple[Optimizer, dict]:
  c = configured(**values)
  return reading.read(c), reading.values(c)


def steps(count=3) -> Steps:
  ones = jnp.ones((count, 1))
  return Steps(jnp.arange(count)[:, None], ones, ones > 0, None, None)


def loss(params, step):
  """A quartic, another one in every step."""
  goal = 1.0 + 0.1 * step.row[0]
  return sum(((v - goal) ** 4).sum() for v in jax.tree.leaves(params))


def trained(name, mask, arguments='', state=None):
  own, more = read(client_optimizer=name, client_optimizer_args=arguments)
  tx = Setting(client_optimizer=own).client_tx({**HPARAMS, **more})
  mask = tree.broadcast_groups(GROUPS, jnp.asarray(mask))
  return training.local_update(loss, tx, PARAMS, mask, steps(), state)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_steps_are_optaxs_and_what_is_frozen_keeps_its_bits(name):
  whole = trained(name, [True, True])
  momentum = {'momentum': 0.9} if name == 'momentum' else {}
  tx = OPTIMIZERS[name](0.1, **momentum)
  params, state = PARAMS, tx.init(PARAMS)
  for t in range(3):
    grads = jax.grad(loss)(params, jax.tree.map(lambda v, t=t: v[t], steps()))
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  for a, b, old in zip(
    *map(jax.tree.leaves, (whole.delta, params, PARAMS)), strict=True
  ):
    np.testing.assert_allclose(a, b - old, rtol=1e-5, atol=1e-6)
    assert (a != 0).all()
  part = trained(name, [True, False])
  assert not part.delta['b'].any()  # of weight decay either
  np.testing.assert_allclose(part.delta['a']['w'], whole.delta['a']['w'])


def test_momentum_is_what_it_was_to_the_bit():
  was = optax.chain(
    optax.trace(decay=HPARAMS['client_momentum']),
    optax.scale_by_learning_rate(HPARAMS['client_lr']),
  )
  mask = tree.broadcast_groups(GROUPS, jnp.array([True, True]))
  old = training.local_update(loss, was, PARAMS, mask, steps())
  new = trained('momentum', [True, True])
  for a, b in zip(
    *(jax.tree.leaves((v.delta, v.opt_state)) for v in (old, new)), strict=True
  ):
    np.testing.assert_array_equal(a, b)


@functools.cache
def kept_rounds():
  """Two rounds of Adam; client 1 has no gyroscope."""
  task = tiny.task('cnn', modalities=('acc', 'gyro'))
  owned = [[True, True], [True, False], [True, True]]
  population = tiny.population(task, owned=owned)
  setting = tiny.setting(
    population,
    'fedavg',
    client_optimizer=Optimizer('adam'),
    keep_client_state=True,
  )
  return task, [
    state for state, _ in tiny.run('fedavg', task, population, setting, 2)
  ]


@pytest.mark.slow
def test_kept_state_moves_where_something_trains_alone():
  task, rounds = kept_rounds()
  for number, state in enumerate(rounds):
    (adam, _) = state.clients.optimizer['encoder']['gyro'][0]['w']
    # Client 1 has no gyroscope: no moments, and no count of steps.
    np.testing.assert_array_equal(
      adam.count, [2 + 2 * number, 0, 2 + 2 * number]
    )
    assert not adam.mu[1].any() and not adam.nu[1].any()
    assert adam.mu[0].any() and adam.mu[2].any()
    (adam, _) = state.clients.optimizer['encoder']['acc'][0]['w']
    np.testing.assert_array_equal(adam.count, [2 + 2 * number] * 3)


@pytest.mark.parametrize(
  ('name', 'numbers'),
  [
    ('sgd', 0),
    ('momentum', 1),
    ('adam', 2),
    ('adamw', 2),
    ('amsgrad', 3),
    ('lion', 1),
    ('rmsprop', 1),
    ('adagrad', 1),
    ('sign_sgd', 0),
  ],
)
def test_memory_of_the_state(name, numbers):
  found = Setting(client_optimizer=Optimizer(name)).memory_step
  assert found.slots == numbers


def test_arguments_are_traced_but_for_switches_and_first_states():
  own, values = read(
    client_optimizer='adamw',
    client_optimizer_args='weight_decay=0.5;nesterov=True;b1=0.8',
  )
  assert own.traced == ('b1', 'weight_decay')
  assert own.fixed == (('nesterov', True),)
  assert values == {'optimizer.b1': 0.8, 'optimizer.weight_decay': 0.5}
  own, _ = read(
    client_optimizer='adagrad',
    client_optimizer_args='initial_accumulator_value=0.2;eps=1e-6',
  )
  assert own.fixed == (('initial_accumulator_value', 0.2),)
  assert own.traced == ('eps',)
  decays = 'weight_decay=0.5'
  more, less = (
    trained('adamw', [True, True], v).delta['b'] for v in (decays, '')
  )
  np.testing.assert_allclose(more - less, -0.1 * 0.5 * 3, atol=0.02)


def test_a_sweep_over_its_numbers_compiles_once():
  def identity(**values):
    c = tiny.config(**{'client_optimizer': 'adamw', **values})
    one = Simulation(c)
    return program.identity(
      one.setting, one.call, one.arguments(), one.test_arguments()
    )

  key = 'client_optimizer_args'
  first = identity(**{key: 'weight_decay=0.1'})
  other = {key: 'weight_decay=0.2', 'hparams.client_lr': 0.2}
  assert identity(**other) == first
  assert identity(**{key: 'b1=0.1'}) != first


@pytest.mark.parametrize(
  ('values', 'rates'),
  [
    ({}, [0.1] * 5),
    ({'hparams.lr_decay': 0.5}, [0.1, 0.05, 0.025, 0.02, 0.02]),
    (
      {
        'lr_schedule': 'step',
        'hparams.lr_decay': 0.5,
        'hparams.lr_every': 2.0,
      },
      [0.1, 0.1, 0.05, 0.05, 0.025],
    ),
    ({'lr_schedule': 'linear'}, [0.1, 0.084, 0.068, 0.052, 0.036]),
    (
      {'lr_schedule': 'cosine'},
      0.02 + 0.04 * (1 + np.cos(np.pi * np.arange(5) / 5)),
    ),
    (
      {'lr_schedule': 'linear', 'hparams.lr_warmup': 2.0},
      [0.05, 0.1, 0.1, 0.02 + 0.08 * 2 / 3, 0.02 + 0.08 / 3],
    ),
  ],
)
def test_rates_of_the_rounds(values, rates):
  floor = {'hparams.lr_floor': 0.02} if values else {}
  c = configured(rounds=5, **{'hparams.client_lr': 0.1}, **floor, **values)
  own = reading.read(c)
  hparams = {**c.hparams, 'rounds': 5.0}
  found = [float(optimizers.rate(own, hparams, jnp.int32(r))) for r in range(5)]
  np.testing.assert_allclose(found, rates, rtol=1e-6)


def test_optimisers_from_outside(tmp_path):
  assert trained('optax:lamb', [True, False]).delta['a']['w'].all()
  file = tmp_path / 'mine.py'
  file.write_text(
    'import optax\n'
    'def slow(learning_rate, share=0.5):\n'
    '  return optax.sgd(learning_rate * share)\n'
    'def clipped(learning_rate):\n'
    '  one = optax.clip_by_global_norm(1.0)\n'
    '  return optax.chain(one, optax.sgd(learning_rate))\n'
    'def broken(learning_rate):\n'
    '  return 3\n'
  )
  half, whole = (
    trained(name, [True, True], more).delta['b']
    for name, more in ((f'{file}:slow', 'share=1.0'), ('sgd', ''))
  )
  np.testing.assert_array_equal(half, whole)
  with pytest.raises(InputError, match='depends on the other parameters'):
    read(client_optimizer=f'{file}:clipped')
  with pytest.raises(InputError, match='which raises AttributeError'):
    read(client_optimizer=f'{file}:broken')


@pytest.mark.parametrize(
  ('values', 'match'),
  [
    ({'client_optimizer': 'adan_'}, 'adan_'),
    ({'client_optimizer_args': 'nesterov'}, 'NAME=NUMBER'),
    ({'client_optimizer_args': 'nesterov=maybe'}, 'NAME=NUMBER'),
    ({'client_optimizer_args': 'nesterov=nan'}, 'NAME=NUMBER'),
    ({'client_optimizer_args': 'nesterov=0.5'}, 'True or False'),
    ({'client_optimizer_args': 'momentum=0.5'}, 'client_momentum=0.5'),
    ({'client_optimizer_args': 'learning_rate=0.5'}, 'client_lr=0.5'),
    ({'client_optimizer_args': 'b1=0.5'}, "'b1'"),
    (
      {'client_optimizer': 'adam', 'client_optimizer_args': 'b1=1'},
      'from 0 and below 1',
    ),
    (
      {'client_optimizer': 'adamw', 'client_optimizer_args': 'mask=1'},
      "'mask'",
    ),
    (
      {'client_optimizer': 'adam', 'hparams.client_momentum': 0.5},
      'does not use it',
    ),
    ({'lr_schedule': 'cosine', 'hparams.lr_decay': 0.5}, 'lr_decay=0.5'),
    ({'lr_schedule': 'step', 'hparams.lr_decay': 0.5}, 'lr_every=0'),
    ({'hparams.lr_every': 3.0}, 'lr_every=3 with'),
    ({'hparams.lr_floor': 0.01}, 'lr_floor=0.01 with'),
    ({'hparams.lr_warmup': 60.0}, 'lr_warmup=60 with'),
    (
      {
        'lr_schedule': 'step',
        'hparams.lr_decay': 0.5,
        'hparams.lr_every': 61.0,
      },
      'lr_every=61 with',
    ),
    ({'lr_schedule': 'sawtooth'}, 'sawtooth'),
  ],
)
def test_what_is_refused(values, match):
  with pytest.raises(InputError, match=match):
    validation.validate(configured(**values))


@pytest.mark.parametrize(
  ('method', 'values', 'match'),
  [
    ('fedel', {'client_optimizer': 'adam'}, 'for gradients'),
    ('harmony', {'client_optimizer': 'sgd'}, 'two rates'),
    ('centralized', {'hparams.lr_decay': 0.5}, 'falls along a cosine'),
    ('centralized', {'hparams.lr_warmup': 1.0}, 'falls along a cosine'),
  ],
)
def test_methods_whose_rules_suppose_another(method, values, match):
  with pytest.raises(InputError, match=match):
    Simulation(tiny.config(method=method, **values))
