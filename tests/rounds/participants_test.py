"""Rules of selection inside a round: state, costs, layouts and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms, selection
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.online import presence
from relief_jax.online.conditions import Online
from relief_jax.rounds import cohort
from relief_jax.runs import cost_rounds
from relief_jax.runs.simulation import Simulation
from relief_jax.selection import rows
from tests.support import tiny
from tests.twins import selection_twin

CLIENTS, SIZE, ROUNDS = 9, 3, 7
RULES = tuple(selection.SELECTION)


def world(rule, method='fedavg', **fields):
  """A task, a population and a setting with the rule's defaults."""
  task = tiny.task()
  population = tiny.population(task, CLIENTS)
  setting = tiny.setting(
    population, method, cohort=SIZE, selection=rule, **fields
  )
  values = {
    selection.key(k): jnp.float32(rows.ROWS[k].default)
    for k in selection.READS[rule].keys
  }
  return task, population, setting._replace(hparams=setting.hparams | values)


def ids(info):
  return set(np.asarray(info.client)[np.asarray(info.seconds) > 0].tolist())


@functools.cache
def infos(rule, rounds=ROUNDS):
  task, population, setting = world(rule)
  return list(tiny.run('fedavg', task, population, setting, rounds))


@pytest.mark.slow
def test_a_random_draw_is_what_it_was_and_keeps_nothing():
  task, population, setting = world('random')
  for number, (state, info) in enumerate(infos('random', 3)):
    draw = jax.random.split(tiny.round_key(0, number), 4)[0]
    place = cohort.draw(draw, population.fleet, SIZE)
    np.testing.assert_array_equal(info.client, place)
    assert jax.tree.leaves(state.seen) == []


@pytest.mark.parametrize(
  'rule',
  [
    pytest.param(r, marks=() if r == 'round_robin' else pytest.mark.slow)
    for r in RULES
  ],
)
def test_picks_follow_from_what_rounds_told(rule):
  """Losses, seconds and joules of real rounds, through a plain loop."""
  task, population, setting = world(rule)
  fleet, count = population.fleet, setting.steps * setting.batch
  twin = {
    'round_robin': selection_twin.RoundRobin,
    'oort_style': selection_twin.Oort,
    'fedjoule_style': selection_twin.FedJoule,
  }[rule](
    **{
      k.removeprefix('selection.'): float(v) for k, v in setting.hparams.items()
    }
  )
  expected = tiny_expected(task, setting, fleet)
  windows = np.minimum(np.asarray(fleet.samples), count)
  for number, (state, info) in enumerate(infos(rule)):
    draw = jax.random.split(tiny.round_key(0, number), 4)[0]
    noise = [
      jax.random.gumbel(jax.random.fold_in(draw, n)).item()
      for n in range(CLIENTS)
    ]
    devices = {
      n: (float(windows[n]), *(float(v[n]) for v in expected), noise[n])
      for n in range(CLIENTS)
    }
    assert ids(info) == twin.pick(number, devices, SIZE)
    told = {
      n: (windows[n] * float(loss), float(seconds), float(joules))
      for n, loss, seconds, joules in zip(
        info.client.tolist(), info.loss, info.seconds, info.joules, strict=True
      )
    }
    twin.learn(number, told)
    picks = [twin.of(n, 'picks', 0) for n in range(CLIENTS)]
    np.testing.assert_array_equal(state.seen.picks, picks)


def tiny_expected(task, setting, fleet):
  """Seconds and joules of training all, in plain numbers."""
  count = setting.steps * setting.batch
  work, modality = task.work, np.asarray(task.blocks.modality)
  seconds, joules = [], []
  for n in range(CLIENTS):
    owned = np.asarray(fleet.owned[n])
    train = (modality < 0) | owned[modality]
    passes = (np.asarray(work.path) & train).any(-1)
    flops = float(work.shared) + sum(
      float((np.asarray(v) * on).sum())
      for v, on in (
        (work.fwd, owned),
        (work.wgrad, train),
        (work.agrad, passes),
      )
    )
    size = 4 * float((np.asarray(work.size) * train).sum())
    parts = (
      count * flops / float(fleet.speed[n]),
      8 * size / float(fleet.uplink[n]),
      8 * size / float(fleet.downlink[n]),
    )
    seconds.append(sum(parts))
    joules.append(
      sum(p * float(w) for p, w in zip(parts, fleet.watts[n], strict=False))
    )
  return seconds, joules


@pytest.mark.parametrize('rule', RULES)
def test_what_is_told_is_paid_for(rule):
  """4 bytes for a loss, 8 for a loss and joules; nothing in turn."""
  told = {'round_robin': 0, 'oort_style': 4, 'fedjoule_style': 8}[rule]
  whole = {}
  for _, info in infos('random'):
    whole |= dict(zip(info.client.tolist(), info.upload.tolist(), strict=True))
  seen = set()
  for _, info in infos(rule):
    for n, sent in zip(info.client.tolist(), info.upload.tolist(), strict=True):
      if n in whole:
        assert sent == whole[n] + told
        seen.add(n)
  assert len(seen) > 2


def test_the_order_of_devices_says_nothing():
  task, population, setting = world('oort_style')
  order = np.random.default_rng(1).permutation(CLIENTS)
  other = population.replace(
    fleet=jax.tree.map(lambda v: v[order], population.fleet),
    rows=population.rows[order],
  )
  moved = list(tiny.run('fedavg', task, other, setting, ROUNDS))
  for (state, info), (same, again) in zip(
    infos('oort_style'), moved, strict=True
  ):
    assert ids(info) == ids(again)
    np.testing.assert_array_equal(state.seen.picks[order], same.seen.picks)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    state.params,
    same.params,
  )


@pytest.mark.slow
@pytest.mark.parametrize('rule', ['oort_style', 'round_robin'])
def test_who_is_away_is_not_asked_and_padding_never(rule):
  task, population, setting = world(rule)
  rng = np.random.default_rng(0)
  here = rng.random((ROUNDS, CLIENTS)) < 0.5
  here[3], here[4, 2:] = False, False  # nobody; two at most
  words = jnp.arange(2, dtype=jnp.uint32)
  samples = population.fleet.samples.at[5].set(0)
  population = population.replace(
    online=Online(words, None, None, None, presence.Trace(here), None),
    fleet=population.fleet.replace(samples=samples),
  )
  found = list(tiny.run('fedavg', task, population, setting, ROUNDS))
  for number, (_, info) in enumerate(found):
    there = set(np.flatnonzero(here[number]).tolist()) - {5}
    assert ids(info) <= there
    assert len(ids(info)) == min(len(there), SIZE)
  picks = found[-1][0].seen.picks
  assert picks[5] == 0 and picks.sum() < ROUNDS * SIZE


@pytest.mark.slow
@pytest.mark.parametrize(
  'layout', ['all', pytest.param('block:2', marks=pytest.mark.slow)]
)
def test_layouts_pick_the_same(layout):
  task, population, setting = world(
    'oort_style', layout=placement.parse_layout(layout, 1)
  )
  for (_, one), (_, other) in zip(
    infos('oort_style'),
    tiny.run('fedavg', task, population, setting, ROUNDS),
    strict=True,
  ):
    assert ids(one) == ids(other)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.slow
def test_every_method_with_rounds_can_use_it_or_says_why(rule):
  refused = set()
  for method in algorithms.ALGORITHMS:
    facts = algorithms.facts(method)
    if facts.arrivals or not facts.rounds:
      continue
    task = tiny.task(tiny.backbone(method), **dict(tiny.needs(method)))
    population = tiny.population(task, CLIENTS)
    _, _, given = world(rule)
    setting = tiny.setting(population, method, cohort=SIZE, selection=rule)
    setting = setting._replace(hparams=setting.hparams | given.hparams)
    try:
      algorithm = tiny.algorithm(method, task, setting)
    except InputError as error:
      assert 'config.selection.rule' in str(error), (method, error)
      refused.add(method)
      continue
    state = jax.eval_shape(
      lambda key, t=task, a=algorithm: a.init(key, t.init(key)),
      tiny.round_key(0, 0),
    )
    after, info = jax.eval_shape(
      algorithm.step, tiny.round_key(0, 0), state, population, setting.hparams
    )
    assert after.seen.picks.shape == (CLIENTS,), method
    assert info.loss.shape == (SIZE,), method
  assert refused == {'harmony', 'local_only'}


def config(**overrides):
  values = {'method': 'fedavg', 'clients_per_round': 2, 'rounds': 8}
  return tiny.config(**{**values, **overrides})


REFUSED = {
  'everybody': (
    {'selection.rule': 'oort_style', 'clients_per_round': 0},
    'there is no choice',
  ),
  'all of them': (
    {'selection.rule': 'round_robin', 'clients_per_round': 6},
    'there is no choice',
  ),
  'a key that no rule reads': (
    {'selection.exploration': 0.5},
    'which does not read it',
  ),
  "another rule's key": (
    {'selection.rule': 'oort_style', 'selection.battery': 3.0},
    'the rule fedjoule_style',
  ),
  'arrivals': (
    {'selection.rule': 'oort_style', 'method': 'fedbuff'},
    'as soon as another arrives',
  ),
  'one place': (
    {'selection.rule': 'round_robin', 'method': 'centralized'},
    'nothing is trained on devices',
  ),
  'alone': (
    {'selection.rule': 'round_robin', 'method': 'local_only'},
    'no server is there',
  ),
  'own rounds': (
    {'selection.rule': 'round_robin', 'method': 'harmony'},
    'rounds of its own',
  ),
  'noise': (
    {
      'selection.rule': 'oort_style',
      'privacy.noise': 'server',
      'hparams.clip_norm': 1.0,
      'hparams.noise_multiplier': 1.0,
    },
    'epsilon counts on devices being drawn at random',
  ),
  'no such rule': ({'selection.rule': 'oort'}, 'oort_style'),
  'no share': (
    {'selection.rule': 'oort_style', 'selection.clip': 1.5},
    'from 0 to 1',
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_means_nothing_is_refused_for_a_reason(case):
  keys, says = REFUSED[case]
  with pytest.raises(InputError, match=says) as error:
    Simulation(config(**keys))
  assert '\n\n' not in str(error.value)


@pytest.mark.slow
def test_costs_without_training_know_a_queue_but_no_losses():
  c = config(**{'selection.rule': 'round_robin'})
  found = cost_rounds.simulate(c)
  simulation = Simulation(c)
  while not simulation.done:
    last = simulation.advance()
  assert found.rounds['seconds'].sum() == last['sim_seconds']
  assert found.rounds['joules'].sum() == last['joules']
  with pytest.raises(InputError, match='looks at losses'):
    cost_rounds.simulate(config(**{'selection.rule': 'oort_style'}))


@pytest.mark.slow
@pytest.mark.invariant(2)
def test_a_run_that_was_resumed_equals_one_that_was_not():
  c = config(**{'selection.rule': 'oort_style'})
  whole = Simulation(c)
  while not whole.done:
    whole.advance()
  first = Simulation(c)
  while first.round < 4:
    first.advance()
  second = Simulation(c)
  second.restore(first.snapshot(), first.history)
  while not second.done:
    second.advance()
  timeless = [
    [{k: v for k, v in r.items() if k != 'wall_seconds'} for r in run.history]
    for run in (whole, second)
  ]
  assert timeless[0] == timeless[1]
  jax.tree.map(
    np.testing.assert_array_equal,
    whole.snapshot()['state'],
    second.snapshot()['state'],
  )
  last = whole.history[-1]
  picks = np.asarray(whole.snapshot()['state'].seen.picks, float)
  np.testing.assert_array_equal(whole.snapshot()['picks'], picks)
  assert last['picked_share'] == (picks > 0).mean()
  jain = picks.sum() ** 2 / (picks.size * (picks**2).sum())
  assert last['picks_fairness'] == pytest.approx(jain)
