"""The worked examples of examples/: each against what its paper says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import fednova, fedper, scaffold
from relief_jax import simulate, tree
from relief_jax.algorithms import fedavg
from relief_jax.clients import batches, device
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.rounds import cohort
from relief_jax.rounds.personal import personal
from tests.support import tiny
from tests.support.paths import ROOT

ROUNDS = 3


def same(found, want):
  jax.tree.map(np.testing.assert_array_equal, found, want)


def close(found, want, atol):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    want,
  )


def world(**overrides):
  task = tiny.task()
  population = tiny.population(task, clients=6)
  setting = tiny.setting(population, 'fedavg', client_momentum=0.0, **overrides)
  return task, population, setting


def scaffold_by_hand(task, population, setting):
  """SCAFFOLD client by client and step by step.

  The mean of a block and its N are of those who have it; else as the paper
  prints it.
  """
  fleet, eta = population.fleet, setting.hparams['client_lr']

  def like(params, numbers):
    """A number for each array, by its block."""
    row = tree.broadcast_groups(task.groups, jnp.asarray(numbers, jnp.float32))
    return jax.tree.map(lambda v, p: jax.tree.map(lambda _: v, p), row, params)

  @jax.jit
  def local_step(y, c, c_i, step, trained):
    loss = device.client_loss(task, population, trained)
    right = jax.tree.map(
      lambda g, c, c_i, on: on * (g + (c - c_i)),
      jax.grad(loss)(y, step),
      c,
      c_i,
      like(y, trained),
    )
    return jax.tree.map(lambda y, g: y - eta * g, y, right), right

  x = tiny.init(task)
  c = jax.tree.map(jnp.zeros_like, x)
  own = [c for _ in range(6)]
  access = np.append(np.asarray(fleet.owned), np.ones((6, 1), bool), 1)
  access = access[:, np.array(task.blocks.modality)]  # the last one is shared
  for number in range(ROUNDS):
    key = tiny.round_key(0, number)
    cohort_key, _, step_key, _ = jax.random.split(key, 4)
    place = cohort.draw(cohort_key, fleet, setting.cohort).tolist()
    deltas, changes = [], []
    for n in place:
      steps = batches.local_steps(
        step_key,
        setting.static,
        setting.hparams,
        jax.tree.map(lambda v, n=n: v[n], fleet),
        population.rows[n],
        fleet.owned[n],
      )
      y, total = x, jax.tree.map(jnp.zeros_like, x)
      for t in range(setting.steps):
        step = jax.tree.map(lambda v, t=t: v[t], steps)
        y, right = local_step(y, c, own[n], step, jnp.asarray(access[n]))
        total = jax.tree.map(jnp.add, total, right)
      fresh = jax.tree.map(
        lambda c_i, c, s, on: jnp.where(on > 0, c_i - c + s / 2, c_i),
        own[n],
        c,
        total,
        like(x, access[n]),
      )
      deltas.append(jax.tree.map(jnp.subtract, y, x))
      changes.append(jax.tree.map(jnp.subtract, fresh, own[n]))
      own[n] = fresh
    here = like(x, 1 / np.maximum(access[place].sum(0), 1).astype(np.float32))
    owners = like(x, 1 / access.sum(0).astype(np.float32))
    x = jax.tree.map(lambda x, k, *d: x + k * sum(d), x, here, *deltas)
    c = jax.tree.map(lambda c, k, *d: c + k * sum(d), c, owners, *changes)
  return x, c, own


@pytest.mark.slow
def test_scaffold_equals_a_loop_to_the_bit():
  """Operation by operation, as in the layout `debug`."""
  task, population, setting = world(cohort=4)
  setting = setting._replace(layout=placement.parse_layout('debug', 1))
  algorithm = tiny.algorithm(scaffold.scaffold, task, setting)
  with jax.disable_jit():
    state = tiny.start(scaffold.scaffold, task, setting)
    for number in range(ROUNDS):
      key = tiny.round_key(0, number)
      state, _ = algorithm.step(key, state, population, setting.hparams)
    x, c, own = scaffold_by_hand(task, population, setting)
  same(state.params, x)
  same(state.server.method_state, c)
  same(state.clients.method, jax.tree.map(lambda *v: jnp.stack(v), *own))


@pytest.mark.slow
def test_scaffold_equals_a_loop():
  task, population, setting = world(cohort=4)
  state, _ = tiny.step(scaffold.scaffold, task, population, setting, ROUNDS)
  x, c, own = scaffold_by_hand(task, population, setting)
  # The order in which XLA adds is all that differs.
  close(state.params, x, 2e-7)
  close(state.server.method_state, c, 2e-7)
  stacked = jax.tree.map(lambda *v: jnp.stack(v), *own)
  close(state.clients.method, stacked, 2e-7)
  assert max(float(jnp.abs(v).max()) for v in jax.tree.leaves(c)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  'given',
  [
    {},
    pytest.param(
      {'fill': 'input', 'weight': 'samples'}, marks=pytest.mark.slow
    ),
  ],
  ids=str,
)
def test_the_server_s_variate_is_the_mean_of_the_devices(given):
  """Over those who can train a block, whoever took part, with weights."""
  task, population, setting = world(cohort=3, **given)
  state, _ = tiny.step(scaffold.scaffold, task, population, setting, ROUNDS)
  fleet = population.fleet
  owned = np.asarray(fleet.owned) | (setting.fill == 'input')
  by_samples = setting.weight == 'samples'
  weight = np.asarray(fleet.samples if by_samples else np.ones(6), float)
  own, c = state.clients.method, state.server.method_state
  for m, name in enumerate(task.modalities):
    here = weight * owned[:, m]
    want = np.tensordot(here / here.sum(), own['fusion'][name], 1)
    np.testing.assert_allclose(c['fusion'][name], want, rtol=0, atol=1e-7)
    assert np.abs(want).max() > 1e-3
  want = np.tensordot(weight / weight.sum(), own['head']['w'], 1)
  np.testing.assert_allclose(c['head']['w'], want, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_variates_of_absent_devices_and_blocks_keep_their_bits():
  task, population, setting = world(cohort=3)
  every = list(tiny.run(scaffold.scaffold, task, population, setting, ROUNDS))
  for (before, _), (after, info) in zip(every[:-1], every[1:], strict=True):
    away = np.setdiff1d(np.arange(6), info.client)
    same(
      jax.tree.map(lambda v, a=away: v[a], after.clients.method),
      jax.tree.map(lambda v, a=away: v[a], before.clients.method),
    )
  missing = ~np.asarray(population.fleet.owned)
  columns = every[-1][0].clients.method['fusion']
  for m, name in enumerate(task.modalities):
    assert not np.asarray(columns[name])[missing[:, m]].any()


@pytest.mark.slow
def test_scaffold_sends_twice_as_much():
  task, population, setting = world()
  _, info = tiny.step(scaffold.scaffold, task, population, setting)
  _, plain = tiny.step('fedavg', task, population, setting)
  np.testing.assert_allclose(info.upload, 2 * plain.upload, rtol=1e-6)
  np.testing.assert_allclose(info.download, 2 * plain.download, rtol=1e-6)


@pytest.mark.slow
def test_fednova_is_fedavg_where_all_take_as_many_steps():
  task, population, setting = world()
  found, info = tiny.step(fednova.fednova, task, population, setting, ROUNDS)
  want, plain = tiny.step('fedavg', task, population, setting, ROUNDS)
  skip = np.asarray(population.fleet.owned).all()
  assert not skip  # absent blocks are diluted in both
  close(found.params, want.params, 2e-7)
  np.testing.assert_allclose(info.upload, plain.upload + 4, rtol=1e-6)


def weights_of_gradients(steps, momentum):
  """Sum of the weights of gradients after some steps, step by step."""
  velocity = moved = 0.0
  for _ in range(steps):
    velocity = momentum * velocity + 1  # a gradient of one
    moved += velocity
  return moved


@pytest.mark.slow
@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_fednova_by_its_formula(momentum):
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task, samples=[4, 9, 16], owned=np.ones((3, 1)))
  setting = tiny.setting(
    population, 'fedavg', client_momentum=momentum, epochs=1, weight='samples'
  )
  # Batches of 4.
  tau = np.array([weights_of_gradients(s, momentum) for s in (1, 3, 4)])
  p = np.array([4, 9, 16]) / 29
  alone = []
  for n in range(3):
    state, _ = tiny.step('fedavg', task, tiny.only(population, n), setting)
    alone.append(jax.tree.map(jnp.subtract, state.params, tiny.init(task)))
  effective = (p * tau).sum()
  want = jax.tree.map(
    lambda x, *d: (
      x + effective * sum(q / t * u for q, t, u in zip(p, tau, d, strict=True))
    ),
    tiny.init(task),
    *alone,
  )
  found, _ = tiny.step(fednova.fednova, task, population, setting)
  close(found.params, want, 1e-6)
  plain, _ = tiny.step('fedavg', task, population, setting)
  gap = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), found.params, plain.params
  )
  assert max(jax.tree.leaves(gap)) > 1e-3


def test_fednova_refuses_momentum_that_goes_on():
  task, population, setting = world(keep_client_state=True)
  with pytest.raises(InputError, match='keep_client_state=True for FedNova'):
    tiny.algorithm(fednova.fednova, task, setting)


@pytest.mark.slow
def test_fedper_keeps_heads_on_their_devices():
  task, population, setting = world()
  state, info = tiny.step(fedper.fedper, task, population, setting, ROUNDS)
  (mine, _) = state.clients.method
  kept = jax.tree.leaves(mine)
  assert kept and all(
    len(np.unique(v.reshape(6, -1), axis=0)) == 6 for v in kept
  )
  # Heads of the server's model are as they were, all else is trained.
  start = tiny.init(task)
  same(state.params['head'], start['head'])
  assert (
    np.abs(np.asarray(state.params['fusion']['acc'])).sum()
    != np.abs(np.asarray(start['fusion']['acc'])).sum()
  )
  _, plain = tiny.step('fedavg', task, population, setting)
  head = 4 * float(task.work.size[task.blocks.of('head')].sum())
  np.testing.assert_allclose(info.upload, plain.upload - head, rtol=1e-6)
  np.testing.assert_allclose(info.download, plain.download - head, rtol=1e-6)


@pytest.mark.slow
def test_fedper_tests_every_device_with_its_own_head():
  task, population, setting = world()
  algorithm = tiny.algorithm(fedper.fedper, task, setting)
  state, _ = tiny.step(fedper.fedper, task, population, setting)
  every = algorithm.params(state)
  assert algorithm.personal and every['head']['b'].shape[0] == 6
  one = every['fusion']['acc']
  same(one, jnp.broadcast_to(one[0], one.shape))


def test_nothing_kept_is_the_method_itself():
  task, _, setting = world()
  method = fedavg.fedavg(task, setting.static)
  nothing = np.zeros(task.num_blocks, bool)
  assert personal(task, method, nothing) is method


@pytest.mark.slow
def test_steps_of_a_straggler_count_as_they_are_taken():
  """Over two epochs, where a small device has padding between its steps."""
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task, samples=[3, 9, 16], owned=np.ones((3, 1)))
  patient = tiny.setting(population, 'fedavg', epochs=2)
  want, _ = tiny.step(fednova.fednova, task, population, patient)
  setting = patient._replace(
    late='partial', hparams={**patient.hparams, 'wait': jnp.float32(1e6)}
  )
  found, _ = tiny.step(fednova.fednova, task, population, setting)
  close(found.params, want.params, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  ['fednova']
  + [pytest.param(n, marks=pytest.mark.slow) for n in ('scaffold', 'fedper')],
)
def test_a_run_finds_an_example_by_its_file(name):
  c = tiny.config(rounds=40, rounds_per_call=20, eval_every=20)
  c.method = f'{ROOT}/examples/{name}.py:{name}'
  _, half, last = simulate.run(c).history
  assert last['round'] == 40 and 0 < last['loss'] < half['loss']


@pytest.mark.slow
@pytest.mark.parametrize('layout', [('block:2', 1), ('one', 2)])
def test_layouts_agree(layout):
  task, population, setting = world(cohort=4)
  want, _ = tiny.step(scaffold.scaffold, task, population, setting)
  other = setting._replace(layout=placement.parse_layout(*layout))
  found, _ = tiny.step(scaffold.scaffold, task, population, other)
  close(found.params, want.params, 2e-6)
  close(found.server.method_state, want.server.method_state, 2e-6)
