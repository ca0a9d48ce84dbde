"""Activations and gradients that cross a split in code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import compressors, tree
from relief_jax.algorithms import psl, splitfed
from relief_jax.budgets import cuts
from relief_jax.compressors import base
from relief_jax.errors import InputError
from relief_jax.rounds import activation_codes, split_steps
from tests.support import tiny

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))
TOKENS = tiny.task(
  'transformer',
  groups='layer',
  modalities=('acc', 'gyro'),
  blocks=1,
  d=8,
  attention_heads=2,
  patch=4,
)
POINTS = cuts.required(TASK, 'psl')
CODED = {'activation_codec': 'int8', 'gradient_codec': 'int8'}


@pytest.fixture
def exact(monkeypatch):
  """A codec that loses nothing and does not say so."""
  made = compressors.COMPRESSORS['none'](None)._replace(lossless=False)
  monkeypatch.setitem(compressors.COMPRESSORS, 'exact', lambda codec: made)
  return {'activation_codec': 'exact', 'gradient_codec': 'exact'}


def run(method, task=TASK, population=None, rounds=2, **values):
  population = tiny.population(task) if population is None else population
  values = {'layers': 1, **values}
  setting = tiny.setting(population, method, **values)
  return tiny.step(method, task, population, setting, rounds)


def close(found, want, atol=2e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    want,
  )


@pytest.mark.parametrize(
  ('method', 'task', 'values'),
  [
    ('psl', TASK, {}),
    pytest.param('psl', TOKENS, {'merge': True}, marks=pytest.mark.slow),
    pytest.param('splitfed', TASK, {'rule': 'random'}, marks=pytest.mark.slow),
    pytest.param('psl', TASK, {'rule': 'random'}, marks=pytest.mark.slow),
    pytest.param('splitfed_v2', TASK, {}, marks=pytest.mark.slow),
    pytest.param('gapsl_style', TASK, {}, marks=pytest.mark.slow),
    pytest.param('ho_sfl', TASK, {'probe': 'jvp'}, marks=pytest.mark.slow),
    pytest.param('hasfl_style', TASK, {}, marks=pytest.mark.slow),
  ],
)
def test_an_exact_code_changes_nothing(exact, method, task, values):
  if method == 'splitfed':
    values = {**values, 'layers': 0}
  plain, info = run(method, task, **values)
  coded, found = run(method, task, **values, **exact)
  close(coded.server.params, plain.server.params)
  close(coded.clients.method, plain.clients.method)
  for name in ('upload', 'download', 'seconds', 'joules'):
    np.testing.assert_allclose(
      getattr(found, name), getattr(info, name), rtol=1e-6
    )


def test_a_step_by_hand():
  """One device, one step, one sign a number both ways."""
  population = tiny.population(TASK, samples=[4], owned=[[True, True]])
  values = {'epochs': 1, 'client_momentum': 0.0, 'layers': 1}
  codes = {'activation_codec': 'sign', 'gradient_codec': 'sign'}
  setting = tiny.setting(population, 'psl', **values, **codes)
  state = tiny.start('psl', TASK, setting)
  before = state.server.params
  after, _ = tiny.step('psl', TASK, population, setting)
  bank, every = population.bank, jnp.ones(2, bool)
  x = [bank.x[name] for name in TASK.modalities]

  def sign(z):
    axes = tuple(range(1, z.ndim))
    return jnp.abs(z).mean(axes, keepdims=True) * jnp.where(z >= 0, 1.0, -1.0)

  def front(params):
    return POINTS.front(1, params, {}, x, every)

  def loss(params, z):
    scores = POINTS.back(1, params, {}, z, every)
    return -jax.nn.log_softmax(scores)[jnp.arange(4), bank.y].mean()

  z, pull = jax.vjp(front, before)
  grads, cut = jax.grad(loss, (0, 1))(before, [sign(v) for v in z])
  (mine,) = pull([sign(v) for v in cut])
  rate = tiny.HPARAMS['client_lr']
  held = tree.broadcast_groups(TASK.groups, jnp.array(POINTS.held[1]))
  want = jax.tree.map(
    lambda a, g: a - rate * g, before, tree.select(held, mine, grads)
  )
  kept = jax.tree.map(lambda v: v[0], after.clients.method.params)
  here = split_steps.parts(TASK, POINTS.held[1])
  close(tree.join(here, kept, after.server.params), want)
  plain, _ = run('psl', population=population, rounds=1, **values)
  gap = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    after.server.params,
    plain.server.params,
  )
  assert max(jax.tree.leaves(gap)) > 1e-4


@pytest.mark.parametrize(
  'task', [pytest.param(TASK, marks=pytest.mark.slow), TOKENS]
)
def test_bytes_are_those_of_packed_arrays(task):
  population = tiny.population(task)
  found = run('psl', task, population, 1, **CODED)[1]
  half = run('psl', task, population, 1, activation_codec='int8')[1]
  plain = run('psl', task, population, 1)[1]
  points = cuts.required(task, 'psl')
  code = compressors.make(compressors.Codec('int8'))
  size = [
    sum(
      len(base.pack(code, code.encode(jnp.ones(s), jax.random.key(0)), s))
      for s in own
    )
    for own in points.shapes[1]
  ]
  owned = np.asarray(population.fleet.owned)
  times = 2 * 4  # steps, samples
  np.testing.assert_array_equal(found.upload, times * (owned @ size + 4))
  np.testing.assert_array_equal(found.download, times * (owned @ size))
  np.testing.assert_array_equal(half.upload, found.upload)
  np.testing.assert_array_equal(half.download, plain.download)
  assert (np.asarray(found.upload) < 0.4 * np.asarray(plain.upload)).all()
  assert (np.asarray(found.seconds) < np.asarray(plain.seconds)).all()


@pytest.mark.parametrize(
  'task', [TASK, pytest.param(TOKENS, marks=pytest.mark.slow)]
)
def test_neither_padding_nor_an_absent_sensor_moves_a_number(task):
  """Of one sign a number: zeros arrive as something else."""
  population = tiny.population(task)
  codes = {'activation_codec': 'sign', 'gradient_codec': 'sign'}
  state, _ = run('psl', task, population, 1, **codes)
  bank, absent = population.bank, ~np.asarray(population.fleet.owned)[:, 1]
  rows = np.asarray(population.rows)
  loud = np.array(bank.x['gyro'])
  for n in np.flatnonzero(absent):
    loud[rows[n]] = 1e6
  other = population.replace(
    bank=bank.replace(x={**bank.x, 'gyro': jnp.asarray(loud)})
  )
  found, _ = run('psl', task, other, 1, **codes)
  jax.tree.map(np.testing.assert_array_equal, found.clients, state.clients)
  jax.tree.map(
    np.testing.assert_array_equal, found.server.params, state.server.params
  )
  # Of three samples in a batch of four the fourth is padding.
  few = tiny.population(task, samples=[3, 3], owned=[[1, 0], [1, 1]])
  padded, whole = (
    run('psl', task, few, 1, epochs=1, batch=batch, **codes)[0]
    for batch in (4, 3)
  )
  close(padded.clients.method, whole.clients.method)
  close(padded.server.params, whole.server.params)


@pytest.mark.slow
def test_it_learns_with_eight_bits():
  population = tiny.population(TASK)
  _, plain = run('psl', population=population, rounds=8)
  _, coded = run('psl', population=population, rounds=8, **CODED)
  _, first = run('psl', population=population, rounds=1)
  assert coded.loss.mean() < 0.9 * first.loss.mean()
  np.testing.assert_allclose(coded.loss, plain.loss, atol=0.05)


@pytest.mark.parametrize(
  ('changed', 'expected'),
  [
    ({'layers': 0}, 'activation_codec=int8 where no activations cross'),
    ({'layers': -1}, 'activation_codec=int8 where no activations cross'),
    ({'labels': 'stay'}, 'a codec of activations for psl with labels=stay'),
    ({'activation_codec': 'int7'}, 'int7'),
  ],
)
def test_what_means_nothing_is_refused(changed, expected):
  values = {'layers': 1, 'activation_codec': 'int8', **changed}
  setting = tiny.setting(tiny.population(TASK), 'psl', **values)
  with pytest.raises(InputError, match=expected):
    tiny.algorithm('psl', TASK, setting)


def test_a_model_without_shapes_is_refused():
  options = psl.Options(activation_codec='int8')
  bare = POINTS._replace(shapes=())
  with pytest.raises(InputError, match='does not say what crosses'):
    activation_codes.of(TASK, options, bare, (1,), 'psl')
  assert activation_codes.of(TASK, psl.Options(), bare, (1,), 'psl') is None


def test_inputs_are_not_coded():
  options = splitfed.Options(activation_codec='int8')
  codes = activation_codes.of(TASK, options, POINTS, (0, 1), 'splitfed')
  up, down = codes.sent(POINTS)
  np.testing.assert_array_equal(up[0], POINTS.sent[0])
  np.testing.assert_array_equal(down, np.array(POINTS.sent))
  assert (up[1] < np.array(POINTS.sent[1])).all()
  assert not up[-1].any()
