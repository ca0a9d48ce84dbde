"""The worked examples of examples/: each against what its paper says."""

import jax
import jax.numpy as jnp
import numpy as np

from examples import fednova, fedper, scaffold
from relief_jax import tree
from relief_jax.clients import batches, device
from relief_jax.engine import placement
from relief_jax.rounds import cohort
from tests.support import tiny

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
  x = tiny.init(task)
  c = jax.tree.map(jnp.zeros_like, x)
  own = [c for _ in range(6)]
  eta = setting.hparams['client_lr']
  count = np.append(np.asarray(population.fleet.owned).sum(0), 6.0)
  owners = jax.tree.map(
    lambda g, part: jax.tree.map(
      lambda _: jnp.float32(count[task.blocks.modality[g]]), part
    ),
    task.groups,
    x,
  )
  for number in range(ROUNDS):
    key = tiny.round_key(0, number)
    cohort_key, _, step_key, _ = jax.random.split(key, 4)
    fleet = population.fleet
    place = cohort.draw(cohort_key, fleet, setting.cohort)
    deltas, changes, masks = [], [], []
    for n in place.tolist():
      row = jax.tree.map(lambda v, n=n: v[n], fleet)
      access = np.append(np.asarray(row.owned), True)
      trained = jnp.asarray([access[m] for m in task.blocks.modality])
      steps = batches.local_steps(
        step_key,
        setting.static,
        setting.hparams,
        row,
        population.rows[n],
        row.owned,
      )
      loss = device.client_loss(task, population, trained)
      mask = jax.tree.map(
        lambda m, part: jax.tree.map(lambda v: m.astype(v.dtype), part),
        tree.spread(task.groups, trained),
        x,
      )

      @jax.jit
      def one(y, c, c_i, step, loss=loss, mask=mask):
        grads = jax.grad(loss)(y, step)
        right = jax.tree.map(
          lambda g, c, c_i, on: on * (g + (c - c_i)), grads, c, c_i, mask
        )
        return jax.tree.map(lambda y, g: y - eta * g, y, right), right

      y, total = x, jax.tree.map(jnp.zeros_like, x)
      for t in range(setting.steps):
        step = jax.tree.map(lambda v, t=t: v[t], steps)
        y, right = one(y, c, own[n], step)
        total = jax.tree.map(jnp.add, total, right)
      fresh = jax.tree.map(
        lambda c_i, c, s, m: jnp.where(m > 0, c_i - c + s / setting.steps, c_i),
        own[n],
        c,
        total,
        mask,
      )
      changes.append(jax.tree.map(jnp.subtract, fresh, own[n]))
      deltas.append(jax.tree.map(jnp.subtract, y, x))
      masks.append(mask)
      own[n] = fresh
    here = jax.tree.map(lambda *m: max(sum(m), 1.0), *masks)
    x = jax.tree.map(lambda x, k, *d: x + 1 / k * sum(d), x, here, *deltas)
    c = jax.tree.map(lambda c, k, *d: c + 1 / k * sum(d), c, owners, *changes)
  return x, c, own


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
  same(state.server.memory, c)
  same(state.clients.method, jax.tree.map(lambda *v: jnp.stack(v), *own))


def test_scaffold_equals_a_loop():
  task, population, setting = world(cohort=4)
  state, _ = tiny.step(scaffold.scaffold, task, population, setting, ROUNDS)
  x, c, own = scaffold_by_hand(task, population, setting)
  # The order in which XLA adds is all that differs.
  close(state.params, x, 2e-7)
  close(state.server.memory, c, 2e-7)
  stacked = jax.tree.map(lambda *v: jnp.stack(v), *own)
  close(state.clients.method, stacked, 2e-7)
  assert max(float(jnp.abs(v).max()) for v in jax.tree.leaves(c)) > 1e-3


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


def test_scaffold_sends_twice_as_much():
  task, population, setting = world()
  _, info = tiny.step(scaffold.scaffold, task, population, setting)
  _, plain = tiny.step('fedavg', task, population, setting)
  np.testing.assert_allclose(info.upload, 2 * plain.upload, rtol=1e-6)
  np.testing.assert_allclose(info.download, 2 * plain.download, rtol=1e-6)


def test_fednova_is_fedavg_where_all_take_as_many_steps():
  task, population, setting = world()
  found, info = tiny.step(fednova.fednova, task, population, setting, ROUNDS)
  want, plain = tiny.step('fedavg', task, population, setting, ROUNDS)
  skip = np.asarray(population.fleet.owned).all()
  assert not skip  # absent blocks are diluted in both
  close(found.params, want.params, 2e-7)
  np.testing.assert_allclose(info.upload, plain.upload + 4, rtol=1e-6)


def test_fednova_by_its_formula():
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task, samples=[4, 9, 16], owned=np.ones((3, 1)))
  setting = tiny.setting(
    population, 'fedavg', client_momentum=0.0, epochs=1, weight='samples'
  )
  tau = np.array([1, 3, 4.0])  # batches of 4
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


def test_fedper_tests_every_device_with_its_own_head():
  task, population, setting = world()
  algorithm = tiny.algorithm(fedper.fedper, task, setting)
  state, _ = tiny.step(fedper.fedper, task, population, setting)
  every = algorithm.params(state)
  assert algorithm.personal and every['head']['b'].shape[0] == 6
  one = every['fusion']['acc']
  same(one, jnp.broadcast_to(one[0], one.shape))


def test_layouts_agree():
  task, population, setting = world(cohort=4)
  want, _ = tiny.step(scaffold.scaffold, task, population, setting)
  block = setting._replace(layout=placement.parse_layout('block:2', 1))
  found, _ = tiny.step(scaffold.scaffold, task, population, block)
  close(found.params, want.params, 2e-6)
