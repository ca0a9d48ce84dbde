"""The online world: pure functions of the round, against plain loops."""

import collections
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import costs, simulate
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.online import (
  chain,
  conditions,
  draw,
  keys,
  missing,
  presence,
  recovery,
  streams,
)
from relief_jax.optimizers import Optimizer
from relief_jax.runs import run_summary
from tests.support import tiny

WORDS = jnp.array([3, 7], jnp.uint32)
IDS = jnp.arange(6, dtype=jnp.int32)


def processes(**changes):
  """Of six devices with three sensors, `config.online` with dotted changes."""
  c = config_lib.default().online
  c.update_from_flattened_dict(changes)
  owned = np.ones((6, 3), bool)
  return draw.draw(c, tiny.MODALITIES, owned, np.random.default_rng(0))


@functools.cache
def world():
  task = tiny.task()
  return task, tiny.population(
    task, owned=np.ones((6, 3), bool), samples=[5, 9, 7, 6, 8, 0]
  )


def taken(online, number, index=None):
  """Fleet and rows of a round."""
  _, population = world()
  population = population.replace(online=online)
  index = IDS if index is None else index
  return jax.jit(conditions.take)(population, index, jnp.int32(number))


def test_all_off_is_no_process():
  assert processes() is None


# Chains.


def test_a_chain_equals_a_loop_over_rounds():
  """From a state long before, round by round."""
  rate = np.array([[0.1, 0.5], [0.8, 0.3]] * 3)
  made = chain.make(rate, 4.0, 'x')
  key = keys.of(WORDS, 0)
  found = jax.jit(jax.vmap(lambda r: chain.down(made, key, IDS, IDS, r)))(
    jnp.arange(30)
  )
  fail, recover = np.asarray(made.fail), np.asarray(made.recover)
  state = np.zeros_like(rate, bool)  # forgotten long before round 0
  draws = jax.jit(jax.vmap(lambda r: keys.uniform(keys.at(key, r), IDS, (2,))))(
    jnp.arange(-400, 30)
  )
  for number, value in enumerate(np.asarray(draws), -400):
    for n, m in np.ndindex(*rate.shape):
      if state[n, m]:
        state[n, m] = value[n, m] < 1 - recover[n, m]
      else:
        state[n, m] = value[n, m] < fail[n, m]
    if number >= 0:
      np.testing.assert_array_equal(found[number], state)


def test_a_chain_has_its_rate_and_its_length():
  rate, length, rounds = 0.3, 6.0, 400
  made = chain.make(np.full((200,), rate), length, 'x')
  ids = jnp.arange(200)
  found = np.asarray(
    jax.jit(
      jax.vmap(lambda r: chain.down(made, keys.of(WORDS, 1), ids, ids, r))
    )(jnp.arange(rounds))
  )
  assert found.mean() == pytest.approx(rate, abs=0.02)
  begins = (found[1:] & ~found[:-1]).sum()
  assert found[1:].sum() / begins == pytest.approx(length, rel=0.08)


@pytest.mark.parametrize(('rate', 'down'), [(0.0, False), (1.0, True)])
def test_chains_that_never_change(rate, down):
  made = chain.make(np.full(6, rate), 1e9 if rate else 5.0, 'x')
  found = chain.down(made, keys.of(WORDS, 1), IDS, IDS, jnp.int32(5))
  assert np.asarray(found).tolist() == [down] * 6


def test_outages_of_no_length():
  with pytest.raises(InputError, match=r'a\.b is 1.5.*at least 2 rounds'):
    chain.make(np.full(3, 0.5), 1.5, 'a.b')
  with pytest.raises(InputError, match='look back'):
    chain.make(np.full(3, 0.5), 1e6, 'a.b')


# Streams.


@functools.cache
def stream_views():
  online = processes(
    **{
      'stream.buffer': 6,
      'stream.arrive': 2,
      'stream.spread': 0.5,
      'stream.delay': 1,
    }
  )
  return online, [taken(online, number) for number in range(8)]


@pytest.mark.slow
def test_the_ring_buffer_equals_a_deque():
  """Windows in the order of arrival, labels one round later."""
  online, views = stream_views()
  stream = online.stream
  _, population = world()
  for n in range(6):
    count = int(population.fleet.samples[n])
    own = np.asarray(population.rows[n])
    y = population.bank.y[own]
    key = keys.each(keys.of(online.words, keys.STREAM), IDS)[n]
    order = np.asarray(streams.order(key, y, count, stream.drift))
    assert sorted(order[:count].tolist()) == list(range(count))
    buffer = collections.deque(maxlen=6)
    labelled = set()
    arrived = 0
    rate, phase = float(stream.rate[n]), float(stream.phase[n])
    for number in range(-1, 8):
      # The buffer is full when the first round begins.
      until = 6 + int(np.floor(np.float32(rate) * number + np.float32(phase)))
      fresh = list(range(arrived, until))
      buffer.extend(fresh)
      if number >= 0:
        fleet, rows = views[number]
        if not count:
          assert int(fleet.samples[n]) == 0
          continue
        known = [p for p in buffer if p in labelled]
        assert int(fleet.samples[n]) == len(known)
        wanted = [own[order[p % count]] for p in buffer]
        assert np.asarray(rows[n]).tolist() == wanted
        assert wanted[: len(known)] == [own[order[p % count]] for p in known]
        assert int(fleet.conditions.arrived[n]) == len(fresh)
        assert np.asarray(fleet.conditions.fresh[n])[: len(fresh)].tolist() == [
          own[order[p % count]] for p in fresh
        ]
      labelled |= set(buffer)
      arrived = until


def test_a_full_drift_brings_class_after_class():
  y = jnp.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
  key = jax.random.key(0)
  mixed = y[streams.order(key, y, 10, jnp.float32(0.0))]
  sorted_ = y[streams.order(key, y, 10, jnp.float32(1.0))]
  changes = [int((np.diff(v) != 0).sum()) for v in (mixed, sorted_)]
  assert changes[1] == 2 < changes[0]


# Sensors.


@pytest.mark.parametrize('kind', ['each', 'one', 'fleet', 'bursts'])
def test_sensors_are_missing_as_often_as_asked(kind):
  online = processes(**{'missing.kind': kind, 'missing.rate': 0.6})
  found = jax.jit(
    jax.vmap(
      lambda r: missing.lost_sensors(
        online.missing, None, WORDS, IDS, IDS, r, 3
      )
    )
  )(jnp.arange(500))
  found = np.asarray(found)
  some = found.any(-1).mean() if kind in ('one', 'fleet') else found.mean()
  assert some == pytest.approx(0.6, abs=0.04)
  if kind in ('one', 'fleet'):
    assert found.sum(-1).max() == 1
    for m in range(3):
      assert found[..., m].mean() == pytest.approx(0.2, abs=0.04)
  same = (found == found[:, :1]).all(1).all(-1)
  assert same.all() == (kind == 'fleet')


def test_rates_spread_around_their_mean():
  found = missing.rates(0.4, 0.3, 20_000, np.random.default_rng(0))
  assert found.mean() == pytest.approx(0.4, abs=0.01)
  assert found.var() == pytest.approx(0.3 * 0.4 * 0.6, rel=0.05)


def test_a_planned_outage_strikes_some_owners_for_its_rounds():
  online = processes(**{'missing.outage': 'gyro:2-4', 'missing.share': 0.5})
  lost = [
    ~np.asarray(taken(online, number)[0].owned)[:, 1] for number in range(5)
  ]
  assert [int(v.sum()) for v in lost] == [0, 0, 3, 3, 0]
  np.testing.assert_array_equal(lost[2], lost[3])


@pytest.mark.parametrize('text', ['gyro', 'gyro:4-2', 'gyro:a-b'])
def test_an_outage_that_cannot_be_read(text):
  with pytest.raises(InputError, match='first round after'):
    processes(**{'missing.outage': text})


def test_how_long_it_takes_to_recover():
  accuracy = [None, 0.8, 0.8, 0.5, 0.6, 0.77, 0.7, 0.75, 0.8]
  history = [
    {'round': i, **({} if v is None else {'prequential': v})}
    for i, v in enumerate(accuracy)
  ]
  found = recovery.recovery(history, 2, 6)
  assert found == {'before': 0.8, 'lowest': 0.5, 'failure': 3, 'return': 2}
  # Rounds 3 to 5 had none at 76 % and more if that one is left out.
  history[5]['prequential'] = 0.7
  assert recovery.recovery(history, 2, 6)['failure'] is None
  with pytest.raises(InputError, match='eval_every=1'):
    recovery.recovery(history, 2, 8)


def test_a_run_that_tests_too_rarely_ends_without_a_recovery():
  """And not with an error after all its rounds."""
  c = tiny.config(**{'online.stream.buffer': 8, 'online.stream.arrive': 3})
  record = {'round': 4, 'prequential': 0.5}
  c.online.missing.outage = 'acc:2-6'
  assert run_summary.recovered(c, []) == {}
  assert run_summary.recovered(c, [record, {**record, 'round': 9}]) == {}
  every = [{**record, 'round': n} for n in (2, 4, 8)]
  assert run_summary.recovered(c, every)['recovery']['before'] == 0.5
  c.online.missing.outage = ''
  assert run_summary.recovered(c, every) == {}


def test_an_outage_of_no_sensor():
  with pytest.raises(InputError, match='acc, gyro, mag'):
    processes(**{'missing.outage': 'ecg:1-2'})


# Devices.


def test_devices_come_and_go():
  online = processes(
    **{'presence.kind': 'diurnal', 'presence.rate': 0.5, 'presence.period': 8}
  )
  ids = jnp.arange(300)
  rates = online.presence._replace(
    rate=jnp.full(300, 0.5), phase=jnp.zeros(300)
  )
  found = np.asarray(
    jax.jit(jax.vmap(lambda r: presence.here(rates, WORDS, ids, ids, r)))(
      jnp.arange(80)
    )
  ).mean(1)
  wave = 0.5 * (1 + np.sin(2 * np.pi * np.arange(80) / 8))
  np.testing.assert_allclose(found, wave, atol=0.12)


def test_stays_are_away_for_some_rounds():
  online = processes(**{'presence.kind': 'stays', 'presence.rate': 0.7})
  ids = jnp.zeros(6, jnp.int32)
  found = np.asarray(
    jax.jit(
      jax.vmap(lambda r: presence.here(online.presence, WORDS, ids, IDS, r))
    )(jnp.arange(3000))
  )[:, 0]
  assert found.mean() == pytest.approx(0.7, abs=0.06)
  ends = (~found[:-1] & found[1:]).sum()
  assert (~found).sum() / ends == pytest.approx(5, rel=0.2)


def test_a_trace_is_followed(tmp_path):
  path = tmp_path / 'trace.csv'
  path.write_text('1,0,1,1,0,1\n0,1,1,0,1,1\n')
  online = processes(**{'presence.kind': 'trace', 'presence.path': str(path)})
  for number, want in ((0, [5, 0, 7, 6, 0, 0]), (3, [0, 9, 7, 0, 8, 0])):
    assert taken(online, number)[0].samples.tolist() == want


@pytest.mark.parametrize(
  ('text', 'found'),
  [('', 'no line'), ('1,0\n1', 'line 2: 1 columns'), ('1,x', "line 1: 'x'")],
)
def test_a_broken_trace(tmp_path, text, found):
  path = tmp_path / 'trace.csv'
  path.write_text(text)
  with pytest.raises(InputError, match=found):
    presence.read(str(path))
  with pytest.raises(InputError, match='missing.csv'):
    presence.read(str(tmp_path / 'missing.csv'))


# Links.


def test_packets_are_sent_until_they_arrive():
  luck = jax.random.normal(jax.random.key(0), (4000,))
  size = jnp.full(4000, 150_000.0)  # a hundred packets
  found = np.asarray(costs.on_air(size, jnp.float32(0.2), luck)) / 1500
  draws = np.random.default_rng(0).negative_binomial(100, 0.8, 4000) + 100
  assert found.mean() == pytest.approx(draws.mean(), rel=0.01)
  assert found.std() == pytest.approx(draws.std(), rel=0.1)
  assert found.min() >= 100
  np.testing.assert_array_equal(costs.on_air(size, 0.0, luck), size)
  assert float(costs.on_air(jnp.float32(0), 0.2, jnp.float32(1))) == 0


# The conditions of a round.


EVERYTHING = {
  'stream.buffer': 4,
  'stream.arrive': 2,
  'missing.kind': 'bursts',
  'missing.rate': 0.4,
  'presence.kind': 'each',
  'presence.rate': 0.7,
  'pace.slowdown': 1.0,
  'pace.fading': 0.5,
  'pace.loss': 0.1,
}


@pytest.mark.slow
def test_a_cohort_finds_what_the_fleet_does():
  """Whoever else is drawn, and in whatever order."""
  online = processes(**EVERYTHING)
  index = jnp.array([4, 1, 2])
  for number in (0, 3):
    every = taken(online, number)
    some = taken(online, number, index)
    chex.assert_trees_all_equal(some, jax.tree.map(lambda v: v[index], every))


def test_rounds_differ():
  online = processes(**EVERYTHING)
  first, second = taken(online, 0)[0], taken(online, 1)[0]
  for field in ('owned', 'samples', 'speed', 'uplink', 'downlink'):
    assert (getattr(first, field) != getattr(second, field)).any(), field


def test_who_senses_nothing_sits_out():
  online = processes(**{'missing.kind': 'each', 'missing.rate': 1.0})
  fleet, _ = taken(online, 0)
  assert not fleet.samples.any() and not fleet.owned.any()
  assert fleet.conditions.installed.all()


# Whole rounds.


def with_outage(online, lost):
  """An outage of the sensors `lost` [N, M] in all rounds."""
  struck = missing.Outage(jnp.asarray(lost), jnp.int32(0), jnp.int32(99))
  return online._replace(outage=struck)


@pytest.mark.parametrize(
  'method', [pytest.param('fedavg', marks=pytest.mark.slow), 'relief']
)
def test_an_absent_sensor_leaves_no_trace(method):
  """As if it had never been on board: no gradient, no byte, no joule."""
  task, population = world()
  lost = np.zeros((6, 3), bool)
  lost[0, 2] = lost[2, 0] = lost[3, 1] = lost[3, 2] = True
  setting = tiny.setting(population, method, deadline=float('inf'))
  fleet = population.fleet
  never = population.replace(
    fleet=fleet.replace(owned=fleet.owned & ~jnp.asarray(lost))
  )
  nothing = processes(**{'missing.outage': 'acc:0-1'})._replace(outage=None)
  online = population.replace(online=with_outage(nothing, lost))
  found, info = tiny.step(method, task, online, setting, 2)
  want, want_info = tiny.step(method, task, never, setting, 2)
  chex.assert_trees_all_close(found.params, want.params, atol=1e-7, rtol=0)
  for field in ('trained', 'upload', 'download', 'seconds', 'joules', 'loss'):
    np.testing.assert_array_equal(
      getattr(info, field), getattr(want_info, field)
    )


@pytest.mark.slow
def test_an_outage_that_never_comes_changes_no_bit():
  """All that is switched on and neutral runs through the online code."""
  task, population = world()
  setting = tiny.setting(population, 'relief')
  online = processes(
    **{
      'missing.outage': 'acc:50-60',
      'presence.kind': 'each',
      'pace.slowdown': 1.0,
    }
  )
  online = online._replace(pace=online.pace._replace(slowdown=jnp.float32(0.0)))
  found, info = tiny.step(
    'relief', task, population.replace(online=online), setting, 3
  )
  want, want_info = tiny.step('relief', task, population, setting, 3)
  chex.assert_trees_all_equal(found.params, want.params)
  for field in ('upload', 'seconds', 'joules', 'divergence'):
    np.testing.assert_array_equal(
      getattr(info, field), getattr(want_info, field)
    )


@pytest.mark.slow
def test_what_arrives_is_tested_before_it_trains():
  task, population = world()
  online = processes(**{'stream.buffer': 4, 'stream.arrive': 2})
  population = population.replace(online=online)
  setting = tiny.setting(population, 'fedavg')
  start = tiny.init(task)
  _, info = tiny.step('fedavg', task, population, setting)
  fleet, _ = taken(online, 0)
  right = []
  for n in range(5):
    rows = fleet.conditions.fresh[n][: int(fleet.conditions.arrived[n])]
    features = {
      name: task.encode(start, {}, m, population.bank.x[name][rows], 0)
      for m, name in enumerate(tiny.MODALITIES)
    }
    scores = task.fuse(start, {}, features, jnp.ones(3, bool))
    right.append(int((scores.argmax(-1) == population.bank.y[rows]).sum()))
  assert info.online.correct.tolist() == [*right, 0]  # the last is padding
  assert (
    info.online.arrived_samples.tolist() == fleet.conditions.arrived.tolist()
  )
  assert sum(right) > 0


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['lost', 'partial'])
def test_a_server_that_does_not_wait(kind):
  """Against a loop over the devices; half of them are faster than that."""
  task, population = world()
  online = processes(**{'pace.slowdown': 1.0})
  population = population.replace(online=online)
  patient = tiny.setting(population, 'fedavg')
  _, plain = tiny.step('fedavg', task, population, patient)
  setting = patient._replace(
    late=kind, hparams={**patient.hparams, 'wait': jnp.float32(1.0)}
  )
  state, info = tiny.step('fedavg', task, population, setting)
  seconds = np.asarray(plain.seconds)
  limit = np.median(seconds[:5])  # the last one is padding
  transfer = np.asarray(plain.online.transfer).sum(-1)
  slower = 0
  for n in range(5):
    late = seconds[n] > limit * (1 + 1e-6)
    slower += late
    if kind == 'lost':
      assert bool(info.online.late[n]) == late
      np.testing.assert_allclose(info.joules[n], plain.joules[n])
      assert bool(info.trained[n].any()) != late
      continue
    share = (limit - transfer[n]) / (seconds[n] - transfer[n])
    steps = 2 if not late else max(int(np.floor(2 * share)), 0)
    assert bool(info.online.late[n]) == (steps == 0)
    spent = transfer[n] + steps / 2 * (seconds[n] - transfer[n])
    np.testing.assert_allclose(info.seconds[n], min(spent, limit), rtol=1e-5)
  assert slower == 2
  assert np.asarray(info.seconds).max() <= limit * (1 + 1e-6)
  chex.assert_tree_all_finite(state.params)


def test_patience_without_end_changes_nothing():
  task, population = world()
  online = processes(**{'pace.slowdown': 1.0})
  population = population.replace(online=online)
  patient = tiny.setting(population, 'fedavg')
  want, _ = tiny.step('fedavg', task, population, patient)
  setting = patient._replace(
    late='partial', hparams={**patient.hparams, 'wait': jnp.float32(1e6)}
  )
  found, _ = tiny.step('fedavg', task, population, setting)
  chex.assert_trees_all_close(found.params, want.params, atol=1e-7, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['pmm', 'qqr_style', 'relief'])
@pytest.mark.parametrize(('name', 'devices'), [('all', 1), ('block:2', 2)])
def test_layouts_agree_in_an_online_world(method, name, devices):
  task, population = world()
  online = processes(**EVERYTHING)
  population = population.replace(online=online)
  own = {
    'relief': {'confidence': True, 'start': 1, 'deadline': float('inf')},
    'qqr_style': {'start': 1},
  }.get(method, {})
  found = [
    tiny.step(
      method,
      task,
      population,
      tiny.setting(
        population,
        method,
        layout=placement.parse_layout(*layout),
        late='partial',
        wait=1.5,
        **own,
      ),
      3,
    )
    for layout in (('one', 1), (name, devices))
  ]
  chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)


# Runs.


@pytest.mark.slow
def test_a_run_tells_of_its_world():
  c = tiny.config(
    **{
      'online.stream.buffer': 8,
      'online.stream.arrive': 3,
      'online.missing.kind': 'each',
      'online.missing.rate': 0.3,
      'online.missing.outage': 'acc:1-2',
      'eval_every': 1,
      'rounds_per_call': 1,
      'online.pace.wait': 1.5,
      'online.pace.slowdown': 1.0,
      'hparams.lr_decay': 0.5,
    }
  )
  simulation = simulate.Simulation(c)
  while not simulation.done:
    last = simulation.advance()
  assert 0 <= last['prequential'] <= 1 and last['late'] >= 0
  assert set(last['f1_without']) == set(simulation.task.modalities)
  found = simulation.summary()['recovery']
  assert found['lowest'] <= 1 and found['before'] > 0
  # Resumed half-way it is the same: nothing of the world is kept in a state.
  half = simulate.Simulation(c)
  half.advance()
  half.advance()
  kept, history = half.snapshot(), half.history
  again = simulate.Simulation(c)
  again.restore(kept, history)
  while not again.done:
    found = again.advance()
  drop = ('wall_seconds',)
  assert {k: v for k, v in found.items() if k not in drop} == {
    k: v for k, v in last.items() if k not in drop
  }


def test_the_rate_falls_to_its_floor():
  _, population = world()
  setting = tiny.setting(
    population, 'fedavg', client_optimizer=Optimizer(schedule='exponential')
  )
  setting = setting._replace(
    hparams={
      **setting.hparams,
      'client_lr': jnp.float32(0.8),
      'lr_decay': jnp.float32(0.5),
      'lr_floor': jnp.float32(0.3),
    }
  )
  for number, rate in ((0, 0.8), (1, 0.4), (2, 0.3), (9, 0.3)):
    tx = setting.client_tx(setting.hparams, jnp.int32(number))
    change, _ = tx.update({'w': jnp.ones(())}, tx.init({'w': jnp.ones(())}))
    assert float(change['w']) == pytest.approx(-rate)


@pytest.mark.parametrize(
  ('key', 'value', 'match'),
  [
    ('online.stream.delay', 2, 'without a buffer'),
    ('online.missing.rate', 0.5, 'of kind off'),
    ('online.pace.loss', 1.5, 'online.pace.loss'),
    ('online.pace.round_seconds', 60, 'without config.online.pace.path'),
    ('online.presence.kind', 'sometimes', 'diurnal'),
    ('online.presence.rate', 0.5, 'of kind off'),
    ('online.missing.kind', 'each', 'at a rate of 0'),
    ('sensor_faults.share', 0.5, 'without a fault'),
    ('sensor_faults.period', 8.0, 'without a fault'),
  ],
)
def test_a_world_that_cannot_be(key, value, match):
  with pytest.raises(InputError, match=match):
    simulate.Simulation(tiny.config(**{key: value}))


def test_more_arrives_than_a_buffer_holds():
  with pytest.raises(InputError, match='raise --config.online.stream.buffer'):
    processes(**{'stream.buffer': 5})


def test_pooled_data_know_no_rounds():
  c = tiny.config(method='centralized', **{'online.stream.buffer': 50})
  with pytest.raises(InputError, match='centralized'):
    simulate.Simulation(c)


@pytest.mark.parametrize('method', ['local_only', 'harmony'])
def test_nobody_waits(method):
  c = tiny.config(method=method, **{'online.pace.wait': 1.0})
  with pytest.raises(InputError, match='nobody waits'):
    simulate.Simulation(c)


def test_streams_of_a_fleet_are_dataclasses_still():
  """A round's fleet is of the same type as the population's."""
  fleet, _ = taken(processes(**EVERYTHING), 0)
  assert dataclasses.is_dataclass(fleet)
  chex.assert_equal_shape([fleet.owned, world()[1].fleet.owned])
