"""A model that is sent once for all, and may be lost on its way."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import tree
from relief_jax.config.validation import validate
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.settings import Broadcast
from relief_jax.simulate import Simulation
from relief_jax.updates import rateless
from tests.support import tiny
from tests.support.handmade import TASK, drawn

AIR = Broadcast('rateless', symbol=4)
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], bool)
INF = float('inf')


def test_needed_symbols_by_hand():
  k = jnp.array([0.0, 1, 100])
  np.testing.assert_array_equal(rateless.needed(AIR, k), [0, 2, 110])
  # Twenty iterations bear a load of a half.
  lazy = rateless.needed(AIR._replace(effort=20), k)
  np.testing.assert_array_equal(lazy, [0, 2, 200])
  less = rateless.needed(AIR._replace(effort=1000), k)
  np.testing.assert_array_equal(less, [0, 2, 110])


def test_blocks_by_divergence_and_what_repair_they_get():
  score = jnp.array([1.0, 5, 3, 5])
  at = rateless.places(AIR, score)
  np.testing.assert_array_equal(at, [3, 0, 2, 1])
  flat = AIR._replace(protect='none', repair=0.5)
  np.testing.assert_array_equal(rateless.places(flat, score), range(4))
  need = jnp.full(4, 100.0)
  assert np.isinf(rateless.most(AIR, need, at)).all()
  np.testing.assert_array_equal(rateless.most(flat, need, at), [150] * 4)
  unequal = rateless.most(flat._replace(protect='symbols'), need, at)
  np.testing.assert_allclose(unequal, [100, 200, 134, 167], atol=1)


def test_a_device_listens_until_its_budget_is_used_up():
  long = jnp.array([[4.0, 6, 5], [8, 12, 10], [4, 6, 5]])
  asked = jnp.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
  most, place = jnp.array([INF, 11.0, INF]), jnp.array([1, 0, 2])
  decoded, heard = rateless.listened(
    long, most, place, asked, jnp.array([12.0, INF, 9.0])
  )
  # The first: 6 of block 1, 4 of block 0, then 2 are left. The second: block 1
  # ends before it has it. The third never asks for block 1.
  np.testing.assert_array_equal(decoded, [[1, 1, 0], [1, 0, 1], [1, 0, 1]])
  np.testing.assert_array_equal(heard, [[4, 6, 2], [8, 11, 10], [4, 0, 5]])


def sent(air=AIR, clients=40, erasure=0.2, budget=INF, wire=(400.0, 800)):
  count = len(wire)
  world = tiny.population(tiny.task(), clients=clients)
  values = {
    'listen': jnp.full(clients, budget),
    'erasure': jnp.full(clients, erasure),
  }
  return world.fleet, rateless.send(
    air,
    jax.random.key(1),
    values,
    world.fleet,
    jnp.arange(clients),
    jnp.zeros(count),
    jnp.array(wire),
    jnp.ones((clients, count), bool),
  )


@pytest.mark.slow
def test_more_arrives_with_patience_and_less_with_losses():
  shares = [
    float(sent(budget=budget)[1].decoded.mean())
    for budget in (0.2, 0.6, 1.3, 1.45, INF)
  ]
  assert shares[0] == 0 and shares[-1] == 1
  assert (np.diff(shares) >= 0).all() and 0 < shares[2] < 1
  lossy = [
    float(sent(budget=1.3, erasure=e)[1].decoded.mean())
    for e in (0.0, 0.2, 0.5)
  ]
  assert lossy[0] == 1 and (np.diff(lossy) < 0).all()
  efforts = [
    float(sent(AIR._replace(effort=e), budget=1.4)[1].decoded.mean())
    for e in (12, 30, 0)
  ]
  assert (np.diff(efforts) > 0).all()


@pytest.mark.slow
def test_one_transmission_whatever_the_number_of_devices():
  """Against one after another: airtime as that of the last to leave."""
  few, many = (sent(erasure=0.0, clients=n) for n in (2, 40))
  for fleet, found in (few, many):
    symbols = rateless.needed(AIR, jnp.array([100.0, 200])).sum()
    np.testing.assert_array_equal(found.size, 4 * symbols)
    slowest = fleet.downlink.min()
    np.testing.assert_allclose(found.airtime, 32 * symbols / slowest, rtol=1e-5)
    np.testing.assert_array_equal(found.rate, slowest)
  fleet, alone = sent(AIR._replace(kind='unicast'), erasure=0.0)
  np.testing.assert_array_equal(alone.size, many[1].size)
  seconds = 8 * alone.size / fleet.downlink
  np.testing.assert_allclose(alone.airtime, seconds.sum(), rtol=1e-5)
  np.testing.assert_array_equal(alone.rate, fleet.downlink)
  assert alone.airtime > 10 * many[1].airtime


def test_what_was_not_decoded_is_what_was_there():
  old, new = drawn(0), drawn(1)
  before = jax.tree.map(lambda v: jnp.stack([v, v]), old)
  decoded = jnp.array([[True, False], [False, False]])
  found = rateless.held(TASK, decoded, new, before)
  first, second = (jax.tree.map(lambda v, n=n: v[n], found) for n in (0, 1))
  chex.assert_trees_all_equal(first['encoder'], new['encoder'])
  chex.assert_trees_all_equal(first['head'], old['head'])
  chex.assert_trees_all_equal(second, old)


@functools.cache
def world():
  """The last client is padding."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(4,))
  return task, tiny.population(task, owned=OWNED, samples=[5, 6, 8, 0])


def setting(air=AIR, erasure=0.0, budget=INF, method='fedavg', **overrides):
  _, population = world()
  found = tiny.setting(population, method, **overrides)
  more = {
    'listen': jnp.full(4, budget, jnp.float32),
    'erasure': jnp.full(4, erasure, jnp.float32),
  }
  return found._replace(broadcast=air, hparams={**found.hparams, **more})


@pytest.mark.slow
def test_without_losses_and_end_it_is_the_usual_link():
  task, population = world()
  plain = tiny.setting(population, 'fedavg')
  wanted = list(tiny.run('fedavg', task, population, plain, 3))
  found = list(tiny.run('fedavg', task, population, setting(), 3))
  for (state, info), (usual, told) in zip(found, wanted, strict=True):
    chex.assert_trees_all_equal(state.params, usual.params)
    np.testing.assert_array_equal(info.loss, told.loss)
    assert not info.extra['stale'].any()
    # The code's own symbols are paid for, at the pace of the slowest.
    assert (info.download >= told.download).all()
    assert (info.seconds >= told.seconds).all()


LOSSY = dict(erasure=0.4, budget=1.2)


def test_stale_blocks_train_from_what_a_device_has():
  """A plain loop over devices agrees: own copies, deltas against them."""
  task, population = world()
  given = setting(**LOSSY)
  plain = tiny.setting(population, 'fedavg')
  alone = [tiny.only(population, n) for n in range(3)]
  state = tiny.start('fedavg', task, given)
  one = tiny.compiled('fedavg', task, given)
  train = tiny.compiled('fedavg', task, plain)
  copies = [state.params] * 3
  params, fewer = state.params, 0
  for number in range(4):
    key = tiny.round_key(0, number)
    before = state
    state, info = one(key, before, population, given.hparams)
    groups = tree.broadcast_groups
    moved = []
    for n in range(3):
      # What the program says it holds, from what it had and what was sent.
      mine = jax.tree.map(lambda v, n=n: v[n], state.clients.heard)
      for g in range(task.num_blocks):
        chosen = groups(task.groups, jnp.arange(task.num_blocks) == g)
        part = [
          tree.select(chosen, v, jax.tree.map(jnp.zeros_like, v))
          for v in (mine, params, copies[n])
        ]
        fresh, stale = (
          all(map(np.array_equal, *map(jax.tree.leaves, (part[0], other))))
          for other in part[1:]
        )
        assert fresh or stale
        fewer += stale and not fresh
      copies[n] = mine
      begun = tiny.start('fedavg', task, plain, params=mine)
      begun = begun._replace(round=jnp.int32(number))
      ended, _ = train(key, begun, alone[n], plain.hparams)
      moved.append(jax.tree.map(jnp.subtract, ended.params, mine))
    # FedAvg counts everybody, owners or not.
    sums = jax.tree.map(lambda *v: sum(v), *moved)
    params = jax.tree.map(lambda p, d: p + d / 3, params, sums)
    chex.assert_trees_all_close(state.params, params, rtol=1e-4, atol=1e-5)
    params = state.params
  assert fewer > 3
  np.testing.assert_array_equal(
    jax.tree.leaves(state.clients.heard)[0][3],
    jax.tree.leaves(tiny.init(task))[0],
  )


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['all', 'block'])
def test_layouts_agree(layout):
  task, population = world()
  given = setting(**LOSSY)
  other = given._replace(
    layout=placement.Layout(block={'all': 0, 'block': 2}[layout])
  )
  ends = [
    tiny.step('fedavg', task, population, one, 2) for one in (given, other)
  ]
  chex.assert_trees_all_close(
    ends[0][0].params, ends[1][0].params, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_array_equal(ends[0][1].download, ends[1][1].download)


def test_the_most_divergent_block_is_sent_first():
  task, population = world()
  given = setting(erasure=0.0, budget=0.5)
  states = [state for state, _ in tiny.run('fedavg', task, population, given)]
  score = np.asarray(states[0].replica.score)
  assert score[-1] > 0 and len(set(score.tolist())) == len(score)
  decoded = np.array(
    [
      [
        np.array_equal(a[0], b)
        for a, b in zip(
          jax.tree.leaves(states[1].clients.heard[name]),
          jax.tree.leaves(states[0].params[name]),
          strict=True,
        )
      ][0]
      for name in states[0].params
    ]
  )
  assert decoded.any() and not decoded.all()


def keys(**more):
  return {
    'method': 'relief',
    'fill': 'skip',
    'broadcast.kind': 'rateless',
    'broadcast.erasure': 0.3,
    'broadcast.budget': 1.2,
    **more,
  }


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_stopped():
  """Copies on the devices are part of a checkpoint; records tell the costs."""
  config = tiny.config(**keys(rounds_per_call=2, layout='one'))
  whole, resumed = Simulation(config), Simulation(config)
  whole.advance()
  middle = jax.tree.map(np.array, whole.snapshot())
  while not whole.done:
    whole.advance()
  resumed.restore(middle, whole.history[:1])
  while not resumed.done:
    resumed.advance()
  jax.tree.map(
    np.testing.assert_array_equal,
    resumed.snapshot()['state'],
    whole.snapshot()['state'],
  )
  for line in whole.history[1:]:
    assert line['airtime'] > 0
    assert 0 < max(v for v in line['stale_share'].values() if v is not None)


def test_what_does_not_go_together_is_refused():
  for overrides, match in (
    ({'method': 'heterofl'}, 'kind=off'),
    ({'method': 'psl'}, 'kind=off'),
    ({'method': 'fedbuff'}, 'kind=off'),
    ({'method': 'local_only'}, 'kind=off'),
    ({'downlink_codec.name': 'top_k'}, 'error_feedback=off'),
  ):
    with pytest.raises(InputError, match=match):
      Simulation(tiny.config(**keys(**overrides)))
  for overrides, match in (
    ({'broadcast.kind': 'off'}, 'kind=rateless'),
    ({'broadcast.protect': 'symbols'}, 'repair=0.5'),
    ({'broadcast.budget': 0.0, 'broadcast.budget_spread': 1.0}, 'budget=0.5'),
    ({'broadcast.effort': 10}, 'effort=50'),
    ({'online.pace.loss': 0.1}, 'pace.loss=0'),
  ):
    with pytest.raises(InputError, match=match):
      validate(tiny.config(**keys(**overrides)))
