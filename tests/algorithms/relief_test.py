"""Every rule, norm and option of RELIEF: what it chooses and remembers.

Plans and memories are made by the method's own functions, without training.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms import relief
from relief_jax.algorithms.parts import norms
from relief_jax.algorithms.parts.scores import Known
from relief_jax.clients.device import Update
from relief_jax.errors import InputError
from relief_jax.rounds import frame
from relief_jax.rounds.method import Server
from relief_jax.task import Plan
from tests.support import tiny

ACC, GYRO, MAG, SHARED = range(4)

# The three columns of LoRA cost the same; with half the budget one fits.
TASK = tiny.task('lora', cached=True)
NUM = 4


def everywhere(share=0.6, clients=5):
  """Devices that own all and can afford a share of it."""
  world = tiny.population(TASK, owned=np.ones((clients, 3)))
  return tiny.with_share(TASK, world, share)


def planner_of(task, rule, **options):
  """(what is known, fleet, round, key, hparams) -> Plan, compiled."""
  setting = make_setting(rule, **options)
  method = relief.relief(task, setting)

  @jax.jit
  def plan(known, fleet, number, key, hparams):
    server = Server(
      (), (), relief.ServerState(known.divergence, known.magnitude)
    )
    place = jnp.arange(fleet.id.shape[0])
    round = frame.seen(key, task, setting, hparams, fleet, place, number)
    return method.plan(server, round._replace(clients=known.last))

  return plan


@functools.cache
def planner(rule, options):
  return planner_of(TASK, rule, **dict(options))


WORLD = tiny.population(TASK)


def make_setting(rule='greedy', **options):
  return tiny.setting(WORLD, rule=rule, **{'deadline': 1.0, **options})


def fresh():
  """What is known before the first round."""
  method, params = relief.relief(TASK, make_setting()), tiny.init(TASK)
  last = frame.everyone(method.client_init(params), 5)
  return Known(*method.init(params), last)


def choose(rule, population, memory=None, number=0, seed=0, **options):
  """The plan of one round, with numpy arrays."""
  setting = make_setting(rule, **options)
  static = {k: v for k, v in options.items() if k not in tiny.HPARAMS}
  found = planner(rule, tuple(static.items()))(
    fresh() if memory is None else memory,
    population.fleet,
    jnp.int32(number),
    jax.random.key(seed),
    setting.hparams,
  )
  return jax.tree.map(np.asarray, found)


def remembered(divergence=(3, 2, 1, 1), magnitude=(1, 2, 3, 1), last=-1):
  """What is known where everything has been seen."""
  return Known(
    jnp.asarray(divergence, jnp.float32),
    jnp.asarray(magnitude, jnp.float32),
    jnp.broadcast_to(jnp.asarray(last, jnp.int32), (5, NUM)),
  )


def columns(plan, n=0):
  """The columns that device n trains."""
  return set(np.flatnonzero(plan.trained[n, :SHARED]).tolist())


@pytest.mark.parametrize('rule', relief.RULES)
def test_every_rule_stays_within_budget_and_reach(rule):
  """Any memory, any budget: affordable, owned, with the shared groups."""
  rng = np.random.default_rng(0)
  for seed in range(6):
    share = rng.uniform(0, 1.2, 5)
    share[seed % 5] = -0.1  # not even its own forward pass fits
    population = tiny.with_share(
      TASK, tiny.population(TASK, owned=tiny.owned_by_default(5, 3)), share
    )
    divergence = 10 ** rng.uniform(-9, -2, NUM)
    divergence[rng.integers(NUM)] = np.inf
    memory = remembered(
      divergence, rng.random(NUM), rng.integers(-1, 5, (5, 4))
    )
    plan = choose(rule, population, memory, number=6, seed=seed)
    fleet = jax.tree.map(np.asarray, population.fleet)
    able = share >= 0
    np.testing.assert_array_equal(plan.trained[:, SHARED], able)
    np.testing.assert_array_equal(plan.run, fleet.owned & able[:, None])
    assert not (plan.trained[:, :3] & ~fleet.owned).any()
    np.testing.assert_array_equal(plan.counted, plan.trained)
    flops = costs.step_flops(TASK.work, plan.run, jnp.asarray(plan.trained))
    assert (flops <= fleet.budget * (1 + 2e-5))[able].all()
    # Nothing that still fits is left out.
    for n in np.flatnonzero(able):
      for g in np.flatnonzero(fleet.owned[n] & ~plan.trained[n, :3]):
        more = plan.trained[n].copy()
        more[g] = True
        cost = costs.step_flops(TASK.work, plan.run[n], jnp.asarray(more))
        assert cost > fleet.budget[n]


def test_divergence_first():
  plan = choose('greedy', everywhere(), remembered((1, 3, 2, 9)))
  assert all(columns(plan, n) == {GYRO} for n in range(5))
  plan = choose('greedy', everywhere(0.8), remembered((1, 3, 2, 9)))
  assert all(columns(plan, n) == {GYRO, MAG} for n in range(5))


def test_optimistic_start():
  """What was never seen comes first; at the very start, by number."""
  assert columns(choose('greedy', everywhere())) == {ACC}
  memory = remembered((5, np.inf, np.inf, 1))
  assert columns(choose('greedy', everywhere(), memory)) == {GYRO}
  last = np.full((5, NUM), 3)
  last[1] = [3, 3, 2, 3]  # device 1 has waited longer for mag
  memory = memory._replace(last=jnp.asarray(last, jnp.int32))
  plan = choose('greedy', everywhere(), memory, number=4)
  assert [columns(plan, n) for n in range(3)] == [{GYRO}, {MAG}, {GYRO}]


def test_ratio_divides_by_the_cost_of_a_group():
  """An encoder outweighs its column in divergence, not per FLOP."""
  task = tiny.task('cnn')
  memory = Known(
    jnp.asarray([3, 0, 0, 2, 0, 0, 1], jnp.float32),
    jnp.ones(7),
    jnp.full((5, 7), -1),
  )
  encoder, column = 0, 3
  # Room for the encoder and nothing beside it.
  budget = costs.step_flops(
    task.work, jnp.ones(3, bool), jnp.arange(7) % 6 == encoder
  )
  population = tiny.population(task, owned=np.ones((5, 3)))
  fleet = population.fleet
  population = population.replace(
    fleet=fleet.replace(budget=jnp.full(5, budget))
  )
  found = {}
  for rule in ('greedy', 'greedy_ratio'):
    setting = tiny.setting(population, rule=rule, deadline=1.0)
    plan = planner_of(task, rule)(
      memory, population.fleet, 0, jax.random.key(0), setting.hparams
    )
    found[rule] = np.asarray(plan.trained)[0]
  assert found['greedy'][encoder] and not found['greedy'][column]
  assert found['greedy_ratio'][column] and not found['greedy_ratio'][encoder]


def test_static_never_looks():
  for number, memory in enumerate((fresh(), remembered((1, 2, 3, 4)))):
    plan = choose('static', everywhere(0.8), memory, number, seed=number)
    assert all(columns(plan, n) == {ACC, GYRO} for n in range(5))


def test_round_robin_is_offset_per_device():
  """Device n does in a round what device n + 1 did in the round before."""
  plans = [choose('round_robin', everywhere(), number=t) for t in range(5)]
  for before, now in zip(plans, plans[1:], strict=False):
    np.testing.assert_array_equal(now.trained[:-1], before.trained[1:])
  turns = [columns(p) for p in plans]
  # Group 3 is shared and always trained; its turn goes to the next.
  assert turns == [{ACC}, {GYRO}, {MAG}, {ACC}, {ACC}]


def test_random_depends_on_device_and_round_but_not_on_place():
  population = everywhere()
  plans = [choose('random', population, seed=s).trained for s in range(12)]
  assert len({p[0].tobytes() for p in plans}) == 3
  assert any(len({row.tobytes() for row in p}) > 1 for p in plans)
  turned = population.replace(
    fleet=jax.tree.map(lambda v: v[::-1], population.fleet)
  )
  for seed in range(4):
    found = choose('random', turned, seed=seed).trained
    np.testing.assert_array_equal(found[::-1], plans[seed])


def test_magnitude_follows_the_updates_norm():
  memory = remembered((3, 2, 1, 1), (1, 2, 5, 9))
  assert columns(choose('magnitude', everywhere(), memory)) == {MAG}
  assert columns(choose('greedy', everywhere(), memory)) == {ACC}


def turns(rule, count=12, divergence=(3, 2, 1, 1), **options):
  """What device 0 trains round after round while divergences stay."""
  memory, found = remembered(divergence), []
  for number in range(count):
    plan = choose(rule, everywhere(), memory, number, **options)
    memory = memory._replace(
      last=jnp.where(plan.trained, number, memory.last).astype(jnp.int32)
    )
    found.append(columns(plan))
  return found


def test_greedy_starves_and_aged_rotates():
  assert turns('greedy') == [{ACC}] * 12
  count = [turns('aged').count({g}) for g in range(3)]
  # More divergent, more often; nobody never.
  assert count[ACC] >= count[GYRO] > count[MAG] > 0
  assert sum(count) == 12


def test_max_stale_forces():
  """No column waits for longer than 3 rounds and its place in the queue."""
  found = turns('greedy', 16, max_stale=3)
  for g in range(3):
    when = [t for t, chosen in enumerate(found) if g in chosen]
    gaps = np.diff([-1, *when, 16])
    assert gaps.max() <= 3 + 2
  assert found.count({ACC}) > found.count({GYRO})
  # Only where it must: the guard is not reached, nothing changes.
  assert turns('greedy', 16, max_stale=100) == [{ACC}] * 16


def test_knapsack_takes_two_small_for_one_large():
  """Costs are equal here, so it agrees with greedy."""
  memory = remembered((1, 3, 2, 9))
  for share in (0.6, 0.8):
    np.testing.assert_array_equal(
      choose('knapsack', everywhere(share), memory).trained,
      choose('greedy', everywhere(share), memory).trained,
    )


def test_unknown_rule_is_refused():
  with pytest.raises(InputError, match="selection rule 'gredy'.*greedy"):
    relief.relief(TASK, make_setting('gredy'))


# -- What is remembered ----------------------------------------------------


def random_updates(seed, clients, noise_only=False):
  rng = np.random.default_rng(seed)
  common = tiny.init(TASK)

  def leaf(p):
    centre = 0.0 if noise_only else rng.normal(size=p.shape)
    return jnp.asarray(
      centre + rng.normal(size=(clients,) + p.shape), jnp.float32
    )

  return jax.tree.map(leaf, common)


def by_group(updates):
  """[G] of [K, size] float64."""
  parts = [[] for _ in range(NUM)]
  numbers, structure = jax.tree.flatten(TASK.groups)
  for g, part in zip(numbers, structure.flatten_up_to(updates), strict=True):
    for leaf in jax.tree.leaves(part):
      parts[g].append(np.asarray(leaf, np.float64).reshape(len(leaf), -1))
  return [np.concatenate(p, 1) for p in parts]


def observe(updates, weight, trained, known=None, number=0, **options):
  """What is known after a round in which these updates arrived."""
  setting = make_setting(**options)
  method, params = relief.relief(TASK, setting), tiny.init(TASK)
  known = fresh() if known is None else known
  clients, total = len(weight), None
  weight = weight[:, None] * trained
  for n in range(clients):
    update = Update(
      jax.tree.map(lambda u, n=n: u[n], updates), weight[n], mask=(), loss=0.0
    )
    device = SimpleNamespace(weight=weight[n])
    summed, stacked = method.aggregate.client(update, device)
    # As the client map does it, one by one.
    total = summed if n == 0 else jax.tree.map(jnp.add, total, summed)
  mean = method.aggregate.server(total, stacked, weight, trained)
  place = jnp.arange(clients)
  round = frame.seen(
    jax.random.key(0),
    TASK,
    setting,
    setting.hparams,
    frame.take(WORLD.fleet, place % 5),
    place,
    jnp.int32(number),
  )
  server = Server(
    params,
    setting.server_tx().init(params),
    relief.ServerState(known.divergence, known.magnitude),
  )
  server, last = method.server(
    server,
    mean,
    round._replace(
      plan=Plan(run=None, trained=trained, counted=None),
      clients=frame.take(known.last, place),
    ),
  )
  return Known(*server.method_state, frame.put(known.last, place, last))


def observed_by_hand(norm, u, w):
  """d_g of stacked updates, from its definition."""
  mean = (w[:, None] * u).sum(0) / w.sum()
  spread = (w * np.square(u - mean).sum(1)).sum() / w.sum()
  if norm == 'raw':
    return spread
  if norm == 'per_param':
    return spread / u.shape[1]
  if norm == 'relative':
    return spread / np.square(mean).sum() / len(u)
  unit = u / np.sqrt(np.square(u).sum(1, keepdims=True))
  mean = (w[:, None] * unit).sum(0) / w.sum()
  return (w * np.square(unit - mean).sum(1)).sum() / w.sum()


@pytest.mark.parametrize('norm', ['raw', 'per_param', 'relative', 'cosine'])
def test_norms_from_stacked_updates(norm):
  clients = 4
  updates = random_updates(0, clients)
  trained = np.ones((clients, NUM), bool)
  trained[0, MAG] = trained[3, GYRO] = False
  weight = np.array([1.0, 2, 3, 4])
  memory = observe(
    updates,
    jnp.asarray(weight, jnp.float32),
    jnp.asarray(trained),
    norm=norm,
  )
  want = [
    observed_by_hand(norm, u[trained[:, g]], weight[trained[:, g]])
    for g, u in enumerate(by_group(updates))
  ]
  np.testing.assert_allclose(memory.divergence, want, rtol=1e-5)
  means = [
    np.average(u[trained[:, g]], 0, weight[trained[:, g]])
    for g, u in enumerate(by_group(updates))
  ]
  np.testing.assert_allclose(
    memory.magnitude, [np.square(m).mean() for m in means], rtol=1e-5
  )


def test_relative_is_about_one_for_pure_noise_whatever_the_cohort():
  size = sum(np.asarray(TASK.work.size))
  for clients in (4, 16):
    updates = random_updates(1, clients, noise_only=True)
    every = jnp.ones((clients, NUM), bool)
    # Only [G] and P matter here: any number of clients will do.
    memory = observe_any(updates, every)
    mean = np.average(memory, weights=np.asarray(TASK.work.size) / size)
    assert 0.6 < mean < 1.6


def observe_any(updates, trained):
  """The norm `relative` for a cohort of any size."""
  stack = by_group(updates)
  found = []
  for u in stack:
    mean = u.mean(0)
    found.append((np.square(u - mean).sum() / len(u), np.square(mean).sum()))
  spread, mean_sq = np.array(found).T
  count = jnp.asarray(trained).sum(0).astype(jnp.float32)
  mean = Mean((), (), count, count, spread, jnp.asarray(mean_sq), count)
  return norms.relative(TASK, mean)


def test_average_over_rounds():
  """The first observation replaces infinity; then (1 - ema) D + ema d."""
  every = jnp.ones((4, NUM), bool)
  ones = jnp.ones(4)
  memory, seen = None, []
  for number in range(3):
    updates = random_updates(number, 4)
    trained = every
    if number == 1:  # a round in which only one device trains mag
      trained = every.at[1:, MAG].set(False)
    memory = observe(updates, ones, trained, memory, number, ema=0.3)
    seen.append(
      [observed_by_hand('per_param', u, np.ones(4)) for u in by_group(updates)]
    )
  want = np.array(seen[0])
  for number in (1, 2):
    new = 0.7 * want + 0.3 * np.array(seen[number])
    if number == 1:
      new[MAG] = want[MAG]
    want = new
  np.testing.assert_allclose(memory.divergence, want, rtol=1e-5)
  last = np.full((5, NUM), 2)
  last[4] = -1  # not in this cohort of four
  np.testing.assert_array_equal(memory.last, last)


def test_denominators():
  """Contributors: who trained. Cohort: its other members count too."""
  population = tiny.with_share(TASK, WORLD, [0.6, 1.0, 0.0, -0.1, 1.0])
  memory = remembered((1, 2, 3, 9))
  plan = choose('greedy', population, memory, denominator='contributors')
  np.testing.assert_array_equal(plan.counted, plan.trained)
  wider = choose('greedy', population, memory, denominator='cohort')
  np.testing.assert_array_equal(wider.trained, plan.trained)
  owned = np.asarray(population.fleet.owned)
  access = np.concatenate([owned, np.ones((5, 1), bool)], 1)
  access[3] = False  # sits out: takes no part, so does not count either
  np.testing.assert_array_equal(wider.counted, access)


def test_deadline_schedule():
  """Linear in the round; the budgets follow."""
  setting = tiny.setting(
    WORLD, schedule=True, rounds=5, deadline=1, deadline_end=3
  )

  def at(setting, number):
    return frame.deadline(setting, setting.hparams, jnp.int32(number))

  found = [at(setting, t) for t in range(5)]
  np.testing.assert_allclose(found, [1, 1.5, 2, 2.5, 3])
  assert at(setting._replace(schedule=False), 3) == 1
  single = setting._replace(hparams={**setting.hparams, 'rounds': 1})
  assert at(single, 0) == 1
  options = dict(schedule=True, rounds=5, deadline=1.0, deadline_end=1.4)
  plans = [
    choose('greedy', everywhere(0.0), number=t, **options) for t in range(5)
  ]
  sizes = [len(columns(p)) for p in plans]
  assert sizes[0] == 0 and sizes[-1] == 3 and sizes == sorted(sizes)


# -- Whole rounds ----------------------------------------------------------


@pytest.mark.parametrize(
  'overrides',
  [
    pytest.param(
      {'rule': 'knapsack', 'norm': 'relative', 'denominator': 'cohort'},
      marks=pytest.mark.slow,
    ),
    {
      'rule': 'aged',
      'norm': 'cosine',
      'max_stale': 2,
      'shrinkage': True,
      'weight': 'samples',
    },
  ],
  ids=lambda o: o['rule'],
)
def test_rounds_run(overrides):
  population = tiny.with_share(TASK, WORLD, 0.6)
  setting = tiny.setting(
    population, deadline=1.0, client_lr=0.3, client_momentum=0.5, **overrides
  )
  start, infos = tiny.init(TASK), []
  for state, info in tiny.run('relief', TASK, population, setting, 6):
    infos.append(jax.tree.map(np.asarray, info))
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(state.params))
  trained = np.stack([i.trained for i in infos])
  assert trained[:, :, SHARED].all()
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), start, state.params)
  for g, name in enumerate(TASK.modalities):
    assert moved['lora_a'][name] == trained[:, :, g].any()
  assert infos[-1].loss.mean() < infos[0].loss.mean()
  if overrides['rule'] == 'aged':
    assert trained[:, 0, :3].any(0).all()


def test_a_cohort_of_one_stays_optimistic_and_trained():
  owned = np.ones((5, 3), bool)
  owned[1:, MAG] = False
  # One column each, for who owns two or three.
  share = [0.6, 0.8, 0.8, 0.8, 0.8]
  population = tiny.with_share(TASK, tiny.population(TASK, owned=owned), share)
  setting = tiny.setting(population, deadline=1.0, client_lr=0.3)
  start = tiny.init(TASK)
  every = list(tiny.run('relief', TASK, population, setting, 5))
  for number, (_, info) in enumerate(every):
    divergence = np.asarray(info.divergence)
    assert np.isposinf(divergence[MAG])
    assert np.isfinite(divergence[SHARED])
    if number >= 2:  # all others have been seen by then
      assert np.isfinite(divergence[:MAG]).all()
      assert info.trained[0, MAG]
  params = every[-1][0].params
  assert (params['lora_a']['mag'] != start['lora_a']['mag']).any()


def test_devices_that_sit_out():
  """Too slow for their own forward pass: as if they were not there."""
  share = np.array([1.0, -0.1, 1.0, 1.0, -0.1])
  population = tiny.with_share(TASK, WORLD, share)
  setting = tiny.setting(population, deadline=1.0)
  state, info = tiny.step('relief', TASK, population, setting, 2)
  for field in ('loss', 'upload', 'download', 'seconds', 'joules'):
    value = np.asarray(getattr(info, field))
    np.testing.assert_array_equal(value[share < 0], 0)
    assert (value[share > 0] > 0).all()
  assert not np.asarray(info.trained)[share < 0].any()
  absent = tiny.only(population, 0, 2, 3)
  alone, _ = tiny.step('relief', TASK, absent, setting, 2)
  jax.tree.map(np.testing.assert_array_equal, state.params, alone.params)
  np.testing.assert_array_equal(state.clients.method[1], -1)
  np.testing.assert_array_equal(
    state.server.method_state.divergence, alone.server.method_state.divergence
  )


def test_a_cohort_drawn_from_the_fleet():
  """Who was not drawn is not remembered to have trained."""
  population = tiny.with_share(TASK, WORLD, 0.6)
  setting = tiny.setting(population, deadline=1.0, cohort=3)
  last = np.full((5, NUM), -1)
  drawn = set()
  for number, (state, info) in enumerate(
    tiny.run('relief', TASK, population, setting, 4)
  ):
    client = np.asarray(info.client)
    assert (np.diff(client) > 0).all()
    drawn.add(client.tobytes())
    for n, row in zip(client, np.asarray(info.trained), strict=True):
      last[n][row] = number
    np.testing.assert_array_equal(state.clients.method, last)
  assert len(drawn) > 1
