"""docs/contract.md over drawn worlds, for every method that is registered.

One compiled round per method; fleets, masks, budgets, data and seeds are
values. One method is always tried, the others with the slow tests.
`python -m pytest --contract` ends with what was tried of which promise.
"""

import collections
import functools
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import algorithms
from relief_jax import config as config_lib
from relief_jax.engine import placement
from relief_jax.simulate import Simulation
from tests.contract import table
from tests.support import strategies, tiny
from tests.support.strategies import CLIENTS, cases, tried, world
from tests.twins import twin

ALWAYS = config_lib.default().method


def pooled(method):
  """Draws windows from the pool in the fleet's order, reads every sensor."""
  return not algorithms.facts(method).rounds


def methods(but=lambda method: False):
  return pytest.mark.parametrize(
    'method',
    [
      pytest.param(m, marks=() if m == ALWAYS else pytest.mark.slow)
      for m in table.METHODS
      if not but(m)
    ],
  )


METHODS, FEDERATED = methods(), methods(but=pooled)
some = settings(max_examples=15, deadline=None)

PLAIN = 'one', 1
_traces: collections.Counter = collections.Counter()


@functools.cache
def made(method, layout=PLAIN, held=False):
  """The compiled round of a method, its initial state and its setting.

  Args:
    method: its name.
    layout: of the devices.
    held: with the options `held` of its row.
  """
  task = strategies.task(method)
  population = strategies.frame(method)
  setting = tiny.setting(
    population,
    method,
    deadline=1.0,
    fill='skip',
    layout=placement.parse_layout(*layout),
    **(table.row(method).held if held else {}),
    **table.row(method).waits,
  )
  algorithm = tiny.algorithm(method, task, setting)

  def step(key, state, population, hparams):
    _traces[method, layout, held] += 1
    return algorithm.step(key, state, population, hparams)

  def init(key):
    return algorithm.init(key, task.init(key))

  compiled = jax.jit(step)
  return compiled, jax.jit(init), setting


def host(tree):
  return jax.tree.map(np.asarray, jax.device_get(tree))


def rounds(case, method, population=None, count=2, layout=PLAIN, held=False):
  """States and infos of some rounds, as numpy arrays."""
  which = (method, layout, True) if held else (method, layout)
  step, init, setting = made(*which)
  population = world(case, method) if population is None else population
  hparams = {**setting.hparams, 'client_lr': jnp.float32(case.client_lr)}
  key = jax.random.key(case.seed)
  state, found = init(key), []
  for number in range(count):
    state, info = step(
      jax.random.fold_in(key, number), state, population, hparams
    )
    found.append((host(state), host(info)))
  return found


def same(found, want):
  """Equal to the last bit."""
  jax.tree.map(np.testing.assert_array_equal, found, want)


def close(found, want, rtol=1e-5, atol=1e-5):
  def leaf(a, b):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

  jax.tree.map(leaf, found, want)


def present(case):
  """[N] devices that have windows."""
  return np.flatnonzero(case.samples)


@pytest.mark.invariant(1)
@METHODS
@some
@given(case=cases())
@tried
def test_same_seed_same_bits(method, case):
  found = rounds(case, method)
  same(found, rounds(case, method))
  other = rounds(case._replace(seed=case.seed ^ 1), method)
  assert any(
    (a != b).any()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True)
  )


@pytest.mark.invariant(2)
@METHODS
@some
@given(case=cases(), stop=st.integers(0, 2))
@tried
def test_stored_and_read_again_goes_on_bit_for_bit(method, case, stop):
  """Everything that counts is in the state, and survives as plain arrays."""
  step, init, setting = made(method, PLAIN)
  whole = rounds(case, method, count=3)
  key = jax.random.key(case.seed)
  state = whole[stop - 1][0] if stop else host(init(key))
  leaves, structure = jax.tree.flatten(state)
  file = io.BytesIO()
  np.savez(file, *leaves)
  file.seek(0)
  with np.load(file, allow_pickle=False) as stored:
    leaves = [jnp.asarray(stored[name]) for name in stored.files]
  state = jax.tree.unflatten(structure, leaves)
  hparams = {**setting.hparams, 'client_lr': jnp.float32(case.client_lr)}
  population = world(case, method)
  for number in range(stop, 3):
    round_key = jax.random.fold_in(key, number)
    state, info = step(round_key, state, population, hparams)
    same((host(state), host(info)), whole[number])


@pytest.mark.slow
@pytest.mark.invariant(2)
@pytest.mark.parametrize('method', table.METHODS)
def test_a_run_resumed_after_any_round(method):
  """Cohorts, clocks, totals and records too, from a fresh simulation."""
  config = tiny.config(
    method=method,
    **tiny.model(method),
    rounds_per_call=1,
    eval_every=1,
    clients_per_round=4,
    over_budget='sit_out',
    layout='one',
  )
  whole, stored = Simulation(config), []
  while not whole.done:
    whole.advance()
    stored.append(jax.tree.map(np.array, whole.snapshot()))
  assert len(stored) == 5
  for number, snapshot in enumerate(stored[:-1]):
    resumed = Simulation(config)
    resumed.restore(snapshot, whole.history[: number + 1])
    while not resumed.done:
      resumed.advance()
    same(resumed.snapshot(), stored[-1])
    for old, new in zip(whole.history, resumed.history, strict=True):
      clock = {'wall_seconds': 0}
      assert repr({**old, **clock}) == repr({**new, **clock})


LAYOUTS = (('all', 1), ('block:4', 1), ('one', 3), ('block:2', 2))


@pytest.mark.slow
@pytest.mark.invariant(3)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('method', table.METHODS)
@settings(max_examples=5, deadline=None)
@given(case=cases())
@tried
def test_layouts_and_devices_agree(method, layout, case):
  """To rounding, and to the bit what is planned and charged."""
  ((state, info),) = rounds(case, method, count=1)
  ((other, record),) = rounds(case, method, count=1, layout=layout)
  close(other, state, 1e-4, 1e-5)
  for field in ('client', 'trained', 'upload', 'download'):
    same(getattr(record, field), getattr(info, field))
  close(record.seconds, info.seconds)
  close(record.joules, info.joules)


def spoiled(case, method):
  """NaN wherever nobody may look: padding, and sensors that are absent."""
  population = world(case, method)
  rows = np.asarray(population.rows)
  x = {m: np.array(v) for m, v in population.bank.x.items()}
  for n in range(CLIENTS):
    for i, values in enumerate(x.values()):
      values[rows[n, case.samples[n] :]] = np.nan
      if not pooled(method) and not case.owned[n, i]:
        values[rows[n]] = np.nan
  fleet = population.fleet
  bad = {
    field: jnp.where(
      (case.samples == 0).reshape((-1,) + (1,) * (v.ndim - 1)), jnp.nan, v
    )
    for field in ('speed', 'uplink', 'downlink', 'watts', 'budget')
    for v in [getattr(fleet, field)]
  }
  bank = population.bank.replace(x={m: jnp.asarray(v) for m, v in x.items()})
  return population.replace(bank=bank, fleet=fleet.replace(**bad))


@pytest.mark.invariant(4, 7)
@METHODS
@some
@given(case=cases())
@tried
def test_what_is_not_there_may_be_nan(method, case):
  """Padded devices and windows, absent sensors: not a bit changes."""
  clean = rounds(case, method)
  same(rounds(case, method, spoiled(case, method)), clean)
  away = np.setdiff1d(np.arange(CLIENTS), present(case))
  for _, info in clean:
    gone = np.isin(info.client, away)
    for cost in (info.upload, info.download, info.seconds, info.joules):
      same(cost[gone], np.zeros(gone.sum()))


@pytest.mark.invariant(5)
@FEDERATED
@some
@given(case=cases(), order=st.permutations(range(CLIENTS)))
@tried
def test_the_order_of_devices(method, case, order):
  """Draws and choices belong to a device, wherever it stands."""
  population = world(case, method)
  order = np.array(order)
  moved = population.replace(
    fleet=jax.tree.map(lambda v: v[order], population.fleet),
    rows=population.rows[order],
  )
  found = rounds(case, method, moved, count=1)
  for (state, info), (other, record) in zip(
    rounds(case, method, count=1), found, strict=True
  ):
    task = strategies.task(method)
    setting = made(method, PLAIN)[2]
    own = tiny.algorithm(method, task, setting)
    params = host(own.params(state))
    if own.personal:  # a model of each device, by place
      params = jax.tree.map(lambda v: v[order], params)
    close(host(own.params(other)), params)
    same(record.client, info.client[order])
    for field in ('trained', 'upload', 'download'):
      same(getattr(record, field), getattr(info, field)[order])
    close(record.seconds, info.seconds[order])
    close(record.joules, info.joules[order])


@pytest.mark.invariant(7)
@FEDERATED
@some
@given(case=cases(), m=st.integers(0, 1))
@tried
def test_a_sensor_that_nobody_has_is_never_trained(method, case, m):
  """No gradient, no bytes; with absent sensors skipped."""
  owned = case.owned.copy()
  owned[:, m], owned[:, 1 - m] = False, True
  case = case._replace(owned=owned)
  task = strategies.task(method)
  of_it = np.array(task.blocks.modality) == m
  step, init, setting = made(method, PLAIN)
  own = tiny.algorithm(method, task, setting)
  before = twin.named(host(own.params(init(jax.random.key(case.seed)))))
  still = [key for key in before if task.modalities[m] in key]
  assert len(still) >= (1 if tiny.backbone(method) == 'lora' else 3)
  for state, info in rounds(case, method):
    assert not info.trained[:, of_it].any()
    after = twin.named(host(own.params(state)))
    for key in () if table.row(method).turns else still:
      np.testing.assert_array_equal(after[key], before[key], key)


@pytest.mark.invariant(8)
@METHODS
@some
@given(case=cases())
@tried
def test_seconds_and_joules_add_up(method, case):
  """Computing alone plus sending alone is all; twice the watts, twice all.

  Of a plan that does not follow from speed and links.
  """
  population = world(case, method)
  fleet = population.fleet
  never = jnp.full(CLIENTS, jnp.inf, jnp.float32)
  no_link = fleet.replace(uplink=never, downlink=never)
  no_work = fleet.replace(speed=never)
  double = fleet.replace(watts=2 * fleet.watts)

  def costs(fleet):
    own = population.replace(fleet=fleet)
    ((_, info),) = rounds(
      case, method, own, count=1, held=bool(table.row(method).held)
    )
    return info

  whole, computing, sending, hot = map(costs, (fleet, no_link, no_work, double))
  for part in (computing, sending, hot):
    for field in ('trained', 'upload', 'download'):
      same(getattr(part, field), getattr(whole, field))
  for field in ('seconds', 'joules'):
    parts = getattr(computing, field) + getattr(sending, field)
    if field == 'seconds' and algorithms.facts(method).splits:
      # Inside a round devices wait for each other.
      assert (parts >= getattr(whole, field) * (1 - 1e-5)).all()
    else:
      np.testing.assert_allclose(parts, getattr(whole, field), rtol=1e-5)
  same(hot.joules, 2 * whole.joules)
  same(hot.seconds, whole.seconds)
  if not pooled(method):
    trained = whole.trained.any(-1)
    assert (whole.seconds[trained] > 0).all()


@pytest.mark.invariant(10)
@METHODS
def test_one_program_for_all_of_it(method):
  """Traced once however many worlds came through; nothing calls the host."""
  frame = strategies.frame(method)
  step, init, setting = made(method, PLAIN)
  key = jax.random.key(0)
  state = init(key)
  for _ in range(2):  # whatever ran before
    step(key, state, frame, setting.hparams)
  assert _traces[method, PLAIN, False] == 1
  text = step.lower(key, state, frame, setting.hparams).as_text()
  assert 'dot_general' in text
  for word in ('convolution', 'callback', 'infeed', 'outfeed'):
    assert word not in text
  assert not re.search(r'stablehlo\.(send|recv)\b', text)
