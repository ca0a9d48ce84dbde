"""Servers that act on arrivals, against a heap of events in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import simulate
from relief_jax import world as world_lib
from relief_jax.algorithms import fedavg
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.rounds.method import Events
from relief_jax.task import Plan
from tests.support import tiny
from tests.twins import events_twin, twin

TASK = tiny.task(modalities=('acc', 'gyro'), filters=(4,))
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]], bool)
# The fourth device is padding.
SAMPLES = [9, 6, 8, 0, 7, 5]
FLEETS = 3


@functools.cache
def world(seed=0):
  """Devices of drawn speed and links."""
  population = tiny.population(TASK, owned=OWNED, samples=SAMPLES)
  population = tiny.with_share(TASK, population, 0.8)
  rng = np.random.default_rng(seed)

  def drawn(low, high):
    return jnp.asarray(np.exp(rng.uniform(low, high, 6)), jnp.float32)

  fleet = population.fleet.replace(
    speed=drawn(13, 17), uplink=drawn(10, 14), downlink=drawn(10, 14)
  )
  return population.replace(fleet=fleet)


def setting(method, **options):
  usual = dict(fill='skip', client_lr=0.05, deadline=1.0)
  return tiny.setting(world(), method, **{**usual, **options})


def compare(method, kind, steps=8, **options):
  """A run and its twin on every fleet; the largest staleness."""
  own, most = setting(method, **options), 0
  for seed in range(FLEETS):
    slow = kind(TASK, world(seed), own)
    for number, (state, info) in enumerate(
      tiny.run(method, TASK, world(seed), own, steps)
    ):
      want = slow.round(number)
      for k, v in twin.named(state.params).items():
        np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-6)
      here = np.asarray(info.seconds) > 0
      who = np.asarray(info.client)
      assert set(who[here]) == set(np.flatnonzero(want.upload))
      ages = np.asarray(info.extra['staleness'])
      found = dict(zip(who[ages >= 0], ages[ages >= 0], strict=True))
      assert found == slow.ages
      most = max([most, *slow.ages.values()])
      assert float(info.elapsed) == pytest.approx(slow.elapsed, 1e-5, 1e-6)
      for k, n in enumerate(who):
        assert info.upload[k] == pytest.approx(here[k] * want.upload[n])
        assert info.loss[k] == pytest.approx(want.loss[n], abs=1e-5)
  return most


def test_fedbuff_is_a_heap_of_events():
  found = compare('fedbuff', events_twin.EventTwin, buffer=2, cohort=4)
  assert found >= 2


@pytest.mark.slow
def test_fedasync_is_a_heap_of_events():
  own = dict(staleness='hinge', grace=1)
  assert compare('fedasync', events_twin.MixedTwin, **own) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    dict(buffer=3, staleness='constant'),
    dict(buffer=1, staleness='hinge', grace=1),
    dict(buffer=2, max_staleness=2),
    dict(buffer=3, cohort=3),
    dict(buffer=2, cohort=3, weight='samples'),
    dict(buffer=2, fill='input'),
    dict(buffer=2, power=2.0, client_momentum=0.0),
  ],
  ids=str,
)
def test_fedbuff_with_other_options(options):
  compare('fedbuff', events_twin.EventTwin, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    dict(staleness='polynomial', power=1.0),
    dict(staleness='constant', alpha=0.3, rho=0.0),
    dict(buffer=3, cohort=4),
    dict(cohort=2, max_staleness=1),
  ],
  ids=str,
)
def test_fedasync_with_other_options(options):
  compare('fedasync', events_twin.MixedTwin, **options)


@pytest.mark.slow
@pytest.mark.parametrize('tiers', [1, 2, 3, 5])
def test_tiers_are_a_loop_over_tiers(tiers):
  compare('fedat_style', events_twin.TierTwin, tiers=tiers)


@pytest.mark.slow
def test_tiers_of_which_a_part_is_drawn():
  compare('fedat_style', events_twin.TierTwin, tiers=2, cohort=3)


@pytest.mark.slow
@pytest.mark.parametrize(
  'options', [{}, dict(cohort=3, buffer=2, damped=False)], ids=str
)
def test_relief_of_arrivals(options):
  options = {'buffer': 3, **options}
  compare('relief_async', events_twin.CohortEvents, **options)


def same(found, want):
  jax.tree.map(np.testing.assert_array_equal, found, want)


def equal_runs(method, other, steps=3, **options):
  """To the last bit: model, plan, costs."""
  runs = zip(
    tiny.run(method, TASK, world(), setting(method, **options), steps),
    tiny.run(other, TASK, world(), setting(other), steps),
    strict=True,
  )
  for (state, info), (want, want_info) in runs:
    same(state.server.params, want.server.params)
    same(state.clients, want.clients)
    same(
      info._replace(extra={}, divergence=0),
      want_info._replace(extra={}, divergence=0),
    )
    same(info.divergence, want_info.divergence)
    same(info.extra['elapsed'], want_info.seconds.max())


@pytest.mark.slow
def test_a_buffer_of_all_is_fedavg():
  equal_runs('fedbuff', 'fedavg')


@pytest.mark.slow
def test_a_buffer_of_all_is_the_method_itself():
  equal_runs('relief_async', 'relief')
  equal_runs('fedasync', 'fedavg', buffer=0, alpha=1.0, rho=0.0)


@pytest.mark.slow
def test_idle_power_is_paid_in_the_buffer():
  """Of a buffer of all as FedAvg; of one at a time by nobody."""
  own = {'idle_power': True}
  _, idle = tiny.step('fedavg', TASK, world(), setting('fedavg', **own))
  _, found = tiny.step('fedbuff', TASK, world(), setting('fedbuff', **own))
  np.testing.assert_allclose(found.joules, idle.joules, rtol=1e-6)
  plain = tiny.run('fedasync', TASK, world(), setting('fedasync'), 3)
  paid = tiny.run('fedasync', TASK, world(), setting('fedasync', **own), 3)
  for (_, a), (_, b) in zip(plain, paid, strict=True):
    np.testing.assert_allclose(a.joules, b.joules)


OPTIONS = dict(buffer=2, cohort=4)  # of a program that is there already


def test_stored_and_read_again_it_goes_on_and_the_seed_decides():
  own = setting('fedbuff', **OPTIONS)
  runs = [
    [jax.device_get(one) for one in tiny.run('fedbuff', TASK, world(), own, 4)]
    for _ in range(2)
  ]
  same(*runs)
  other = tiny.run('fedbuff', TASK, world(), own, 4, seed=1)
  assert any(
    (a[1].loss != b[1].loss).any() for a, b in zip(runs[0], other, strict=True)
  )
  state = jax.tree.map(jnp.asarray, runs[0][1][0])
  step = tiny.compiled('fedbuff', TASK, own)
  for number in (2, 3):
    key = tiny.round_key(0, number)
    state, info = step(key, state, world(), own.hparams)
    same(jax.device_get((state, info)), runs[0][number])


def test_what_is_not_there_may_be_nan():
  own, population = setting('fedbuff', **OPTIONS), world()
  away = np.array(SAMPLES) == 0
  bad = {
    field: jnp.where(away.reshape((-1,) + (1,) * (v.ndim - 1)), jnp.nan, v)
    for field in ('speed', 'uplink', 'downlink', 'watts', 'budget')
    for v in [getattr(population.fleet, field)]
  }
  x = {m: np.array(v) for m, v in population.bank.x.items()}
  for n, count in enumerate(SAMPLES):
    rows = np.asarray(population.rows[n])[:count]
    for m, owns in zip(x, OWNED[n], strict=True):
      if not owns:
        x[m][rows] = np.nan
  spoiled = population.replace(
    fleet=population.fleet.replace(**bad),
    bank=population.bank.replace(x={m: jnp.asarray(v) for m, v in x.items()}),
  )
  for clean, found in zip(
    tiny.run('fedbuff', TASK, population, own, 4),
    tiny.run('fedbuff', TASK, spoiled, own, 4),
    strict=True,
  ):
    same(found, clean)


def test_the_order_of_devices():
  """Arrivals and draws belong to a device, wherever it stands."""
  own, population = setting('fedbuff', **OPTIONS), world()
  order = jnp.array([4, 2, 5, 0, 3, 1])
  moved = population.replace(
    fleet=jax.tree.map(lambda v: v[order], population.fleet),
    rows=population.rows[order],
  )
  for (state, info), (other, record) in zip(
    tiny.run('fedbuff', TASK, population, own, 4),
    tiny.run('fedbuff', TASK, moved, own, 4),
    strict=True,
  ):
    for a, b in zip(
      jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    here = [np.asarray(i.seconds) > 0 for i in (info, record)]
    who = [
      set(np.asarray(i.client)[h])
      for i, h in zip((info, record), here, strict=True)
    ]
    assert who[0] == who[1]
    np.testing.assert_allclose(info.elapsed, record.elapsed, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('layout', [('all', 1), ('block:2', 1), ('one', 2)])
def test_layouts_agree(layout):
  own = setting('fedbuff', **OPTIONS)
  other = own._replace(layout=placement.parse_layout(*layout))
  for (state, info), (found, record) in zip(
    tiny.run('fedbuff', TASK, world(), own, 4),
    tiny.run('fedbuff', TASK, world(), other, 4),
    strict=True,
  ):
    for a, b in zip(
      jax.tree.leaves(state.params), jax.tree.leaves(found.params), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for field in ('client', 'trained', 'upload', 'download'):
      same(getattr(record, field), getattr(info, field))
    same(record.extra['staleness'], info.extra['staleness'])


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fedbuff', 'fedasync', 'relief_async'])
def test_time_alone_is_that_of_the_training_run(method):
  c = tiny.config(method=method, clients_per_round=4)
  c.over_budget, c.rounds, c.rounds_per_call, c.eval_every = 'sit_out', 6, 3, 3
  if method == 'relief_async':  # which decides by what was trained
    with pytest.raises(InputError, match='fedavg'):
      simulate.costs(c)
    return
  c[method].buffer = 2
  costs, run = simulate.costs(c), simulate.Simulation(c)
  while not run.done:
    run.advance()
  last = run.history[-1]
  assert costs.rounds['seconds'].sum() == last['sim_seconds'] > 0
  assert costs.rounds['joules'].sum() == last['joules']
  assert last['staleness_max'] >= last['staleness'] >= 0 == last['stale']


def refused(method, match, **options):
  with pytest.raises(InputError, match=match):
    tiny.algorithm(method, TASK, setting(method, **options))


def test_bad_settings_are_refused():
  refused('fedbuff', 'buffer', buffer=7)
  refused('fedbuff', 'buffer', buffer=4, cohort=3)
  refused('fedat_style', 'tiers', tiers=7)
  refused('fedbuff', 'max_staleness=1', buffer=2, max_staleness=1)
  refused('fedasync', 'pace.wait', late='lost')
  refused('relief_async', 'confidence', confidence=True)
  guard = setting('fedbuff').guard._replace(mean='median')
  refused('relief_async', 'median', guard=guard, damped=False)
  guard = setting('fedbuff').guard._replace(noise='server', clip=True)
  refused('fedbuff', 'privacy.noise', guard=guard)
  down = setting('fedbuff').downlink_codec._replace(
    name='int8', error_feedback='on'
  )
  refused('fedbuff', 'error_feedback=off', downlink_codec=down)


def test_an_online_world_is_refused():
  c = tiny.config(
    method='fedbuff',
    **{'online.presence.kind': 'each', 'online.presence.rate': 0.5},
  )
  with pytest.raises(InputError, match='fedbuff.*online'):
    world_lib.build(c, None)


def test_a_plan_of_another_kind_is_refused():
  def method(task, setting):
    base = fedavg.fedavg(task, setting)

    def plan(server, round):
      found: Plan = base.plan(server, round)
      return found._replace(client_args=round.fleet.id)

    return base._replace(plan=plan, events=Events(2, jnp.ones_like))

  own = tiny.setting(world(), 'fedavg')
  made = tiny.algorithm(method, TASK, own)
  with pytest.raises(InputError, match='arguments'):
    jax.eval_shape(
      lambda key: made.step(
        key, made.init(key, TASK.init(key)), world(), own.hparams
      ),
      jax.random.key(0),
    )
