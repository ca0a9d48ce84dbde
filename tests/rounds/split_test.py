"""Devices and a server that train one model in lockstep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import fedavg, psl
from relief_jax.algorithms.parts import split_bill
from relief_jax.budgets import cuts
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.rounds import split, split_steps
from relief_jax.rounds.facts import Facts
from tests.support import tiny
from tests.twins import lockstep_twin, twin

TASK = tiny.task(groups='layer', modalities=('acc', 'gyro'))
POINTS = cuts.required(TASK, 'psl')
# Of five devices: inputs go up, one layer, both, everything, one layer.
MIXED = (0, 1, 2, 3, 1)


class ByLayer:
  """The names of the groups where every layer is one."""

  @staticmethod
  def group(name):
    part, *rest = name.split('/')
    if part == 'encoder':
      return f'encoder{rest[1]}/{rest[0]}'
    return twin.group_of(name)


class Pooled(ByLayer, lockstep_twin.PooledTwin):
  pass


class InTurn(ByLayer, lockstep_twin.InTurnTwin):
  pass


def mixed(step, in_turn, merged):
  """A method whose devices split at MIXED."""

  @Facts(options=psl.Options, splits=True)
  def method(task, setting):
    found = split_bill.bill(task, setting, 'psl')
    held = np.array(POINTS.held)[list(MIXED)]
    found = found._replace(device=held.any(0), server=~held.all(0))

    def plan(server, round):
      whole = fedavg.everybody(setting, round)
      at = jnp.array(MIXED)[round.place]
      fits = jnp.ones(len(at), bool)
      return found.plan(round, whole, found.prices(round, whole), at, fits)

    made = psl.together(task, setting, found, step, in_turn)
    made = made._replace(plan=plan)
    return made if merged else split.apart(task, made)

  return method


POOLED = mixed(split_steps.pooled, False, True)


def world(**overrides):
  return tiny.population(TASK, **overrides)


def setting(**overrides):
  population = world()
  values = {'rule': 'random', **overrides}
  return tiny.setting(population, POOLED, **values)


def close(found, want, atol=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    want,
  )


def test_with_all_on_the_devices_it_is_fedavg():
  own = tiny.setting(world(), 'psl', layers=-1, merge=True)
  found, info = tiny.step('psl', TASK, world(), own, 2)
  plain = tiny.setting(world(), 'fedavg')
  want, expected = tiny.step('fedavg', TASK, world(), plain, 2)
  close(found.params, want.params)
  for name in ('upload', 'download', 'joules', 'seconds'):
    np.testing.assert_allclose(
      getattr(info, name), getattr(expected, name), rtol=1e-5
    )


@pytest.mark.slow
def test_one_step_a_round_is_sgd_on_all_batches_wherever_it_is_split():
  """As FedAvg of one step is."""
  found, _ = tiny.step(POOLED, TASK, world(), setting(steps=1), 2)
  plain = tiny.setting(world(), 'fedavg', steps=1)
  want, _ = tiny.step('fedavg', TASK, world(), plain, 2)
  close(found.params, want.params)


@pytest.mark.slow
def test_with_all_on_the_server_it_is_sgd_on_all_batches():
  """Three steps and no average: by hand, momentum and all."""
  own = tiny.setting(world(), 'psl', layers=0, merge=True, steps=3)
  found, _ = tiny.step('psl', TASK, world(), own)
  slow = Pooled(TASK, world(), own)
  slow.given = [set()] * 5
  slow.round(0)
  for k, v in twin.named(found.params).items():
    np.testing.assert_allclose(v, slow.params[k], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  'kind, merged',
  [
    ('pooled', True),
    pytest.param('in_turn', True, marks=pytest.mark.slow),
    pytest.param('pooled', False, marks=pytest.mark.slow),
  ],
)
def test_unequal_splits_are_a_loop(kind, merged):
  """Copies of one block on some devices and on the server, two rounds."""
  step = getattr(split_steps, kind)
  method = mixed(step, kind == 'in_turn', merged)
  population, own = world(), setting(steps=3)
  slow = (InTurn if kind == 'in_turn' else Pooled)(TASK, population, own)
  slow.merged = merged
  names = np.array(TASK.blocks.name)
  slow.given = [set(names[np.array(POINTS.held[s])]) for s in MIXED]
  for number, (state, info) in enumerate(
    tiny.run(method, TASK, population, own, 2)
  ):
    want = slow.round(number)
    np.testing.assert_allclose(info.loss, want.loss, rtol=0, atol=1e-5)
    for k, v in twin.named(state.server.params).items():
      np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
  if not merged:
    made = tiny.algorithm(method, TASK, own)
    for n, own_model in enumerate(lockstep_twin.named_all(made.params(state))):
      for k, v in own_model.items():
        held = slow.group(k) in slow.given[n]
        expected = slow.kept[n][k] if held else slow.params[k]
        np.testing.assert_allclose(v, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  'layout', [('all', 1), ('block:2', 2), ('one', 3), ('debug', 1)], ids=str
)
@pytest.mark.parametrize('kind', ['pooled', 'in_turn'])
def test_layouts_agree(kind, layout):
  method = mixed(getattr(split_steps, kind), kind == 'in_turn', False)
  found = [
    tiny.step(method, TASK, world(), setting(layout=placement.parse_layout(*v)))
    for v in (('one', 1), layout)
  ]
  (state, info), (other, record) = found
  close(other.server.params, state.server.params, 1e-5)
  close(other.clients.method.params, state.clients.method.params, 1e-5)
  np.testing.assert_array_equal(record.upload, info.upload)


@pytest.mark.slow
def test_twice_as_many_equal_devices_change_nothing():
  """A server that sent gradients of the weighted loss would halve the step."""
  every = {}
  for count in (2, 4):
    one = world(clients=1, owned=np.ones((1, 2), bool), samples=[4])
    fleet = jax.tree.map(
      lambda v, n=count: jnp.repeat(v, n, 0), one.fleet
    ).replace(id=jnp.arange(count, dtype=jnp.int32))
    population = one.replace(
      fleet=fleet, rows=jnp.repeat(one.rows, count, axis=0)
    )
    # Whole batches, so that the devices' own draws do not matter.
    own = tiny.setting(
      population, 'psl', layers=1, merge=True, epochs=3, batch=4
    )
    state, _ = tiny.step('psl', TASK, population, own)
    every[count] = state.params
  close(every[4], every[2])
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), every[2], tiny.init(TASK)
  )
  assert min(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.slow
def test_who_is_not_there_leaves_no_trace():
  """Of a device without windows, the server hears nothing."""
  short = tiny.only(world(), 0, 3)
  own = setting(steps=2)
  state, info = tiny.step(POOLED, TASK, short, own)
  slow = Pooled(TASK, short, own)
  names = np.array(TASK.blocks.name)
  slow.given = [set(names[np.array(POINTS.held[s])]) for s in MIXED]
  slow.round(0)
  for k, v in twin.named(state.params).items():
    np.testing.assert_allclose(v, slow.params[k], rtol=0, atol=1e-5)
  np.testing.assert_array_equal(np.asarray(info.upload)[[1, 2, 4]], 0)


@pytest.mark.parametrize(
  'changed, expected',
  [
    ({'keep_client_state': True}, 'keep_client_state'),
    ({'late': 'lost'}, 'online.pace.wait'),
    ({'layers': 7, 'rule': 'fixed'}, 'a split behind 7 layers'),
  ],
)
def test_what_means_nothing_is_refused(changed, expected):
  own = tiny.setting(world(), 'psl', **changed)
  with pytest.raises(InputError, match=expected):
    tiny.algorithm('psl', TASK, own)


@functools.cache
def info_of(**options):
  own = tiny.setting(world(), 'psl', layers=1, **options)
  return tiny.step('psl', TASK, world(), own)[1]


@pytest.mark.slow
def test_labels_that_stay_cost_activations():
  """And do not change what is learnt but for where the head is."""
  go, stay = info_of(), info_of(labels='stay')
  spec = tiny.spec_of(TASK)
  owned = np.asarray(world().fleet.owned).sum(-1)
  last = 4 * spec.filters[-1] * owned  # what leaves an encoder, a sample
  samples, labels = 2 * 4, 4
  np.testing.assert_array_equal(
    stay.upload - go.upload, samples * (last - labels)
  )
  np.testing.assert_array_equal(stay.download - go.download, samples * last)
  assert float(stay.extra['server_joules']) < float(go.extra['server_joules'])
