"""Rules of selection against loops over devices, on made-up fleets."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import selection
from relief_jax.selection import oort_style, picking, record, rows
from relief_jax.selection.record import View
from tests.twins import selection_twin

CLIENTS, SIZE, ROUNDS = 30, 7, 25
TWINS = {
  'round_robin': selection_twin.RoundRobin,
  'oort_style': selection_twin.Oort,
  'fedjoule_style': selection_twin.FedJoule,
}


def values(rule, **changes):
  """The defaults of a rule's keys, by name."""
  found = {k: rows.ROWS[k].default for k in selection.READS[rule].keys}
  return {**found, 'rounds': ROUNDS, **changes}


def hparams(found):
  named = {
    k if k == 'rounds' else selection.key(k): v for k, v in found.items()
  }
  return {k: jnp.float32(v) for k, v in named.items()}


@functools.cache
def compiled(rule):
  return jax.jit(lambda *args: selection.SELECTION[rule](view(*args), SIZE))


AFTER = jax.jit(record.after)


def fleet(seed, clients=CLIENTS):
  """[N] windows, seconds and joules, all positive and unequal."""
  rng = np.random.default_rng(seed)
  return (
    rng.integers(1, 40, clients).astype(np.float32),
    rng.gamma(2.0, 1.0, clients).astype(np.float32) + 0.01,
    rng.gamma(1.0, 3.0, clients).astype(np.float32) + 0.01,
  )


def view(found, seen, number, named, here, noise, ids):
  windows, seconds, joules = found
  met = seen.picks > 0
  return View(
    id=jnp.asarray(ids, jnp.int32),
    here=jnp.asarray(here),
    windows=jnp.asarray(windows),
    seconds=jnp.where(met, seen.seconds, seconds),
    joules=jnp.where(met, seen.joules, joules),
    noise=jnp.asarray(noise),
    round_index=jnp.int32(number),
    seen=seen,
    hparams=named,
  )


def play(rule, given, seed=0, order=None, away=0.25, rounds=ROUNDS):
  """Picks over the rounds, with losses that fall and updates that fail.

  Yields (ids picked, those that the twin picks, ids present) of each round.
  """
  order = np.arange(CLIENTS) if order is None else order
  rng, every = np.random.default_rng(seed), fleet(seed)
  twin = TWINS[rule](**given)
  seen, named = record.nobody(CLIENTS), hparams(given)
  for number in range(rounds):
    here = rng.random(CLIENTS) >= away
    noise = rng.gumbel(size=CLIENTS).astype(np.float32)
    loss = rng.gamma(2.0, 1.0 / (number + 1), CLIENTS).astype(np.float32)
    loss *= rng.random(CLIENTS) > 0.1  # else no update came
    took = np.stack([v * rng.uniform(0.8, 1.3, CLIENTS) for v in every[1:]], 1)
    took = took.astype(np.float32)
    utility = every[0] * loss
    picked = compiled(rule)(
      [v[order] for v in every],
      seen,
      np.int32(number),
      named,
      here[order],
      noise[order],
      order,
    )
    place, asked = np.asarray(picked.place), np.asarray(picked.asked)
    assert (np.diff(place) > 0).all() and len(place) == SIZE
    seen = AFTER(
      seen, picked, number, utility[order][place], took[order][place]
    )
    ids = set(order[place][asked].tolist())
    devices = {
      n: (*(float(v[n]) for v in every), float(noise[n]))
      for n in np.flatnonzero(here).tolist()
    }
    wanted = twin.pick(number, devices, SIZE)
    twin.learn(
      number, {n: (float(utility[n]), *map(float, took[n])) for n in ids}
    )
    yield ids, wanted, set(devices)


SETTINGS = [
  ('round_robin', {}),
  ('oort_style', {}),
  ('oort_style', {'most_picks': 3, 'cutoff': 0.95, 'clip': 0.5}),
  ('oort_style', {'exploration': 0.0, 'exploration_least': 0.0, 'pace': 0.0}),
  ('fedjoule_style', {}),
  ('fedjoule_style', {'joules': 150.0}),
  ('fedjoule_style', {'battery': 4.0}),
]


@pytest.mark.parametrize('rule, changes', SETTINGS)
@pytest.mark.parametrize('seed', [0, 1])
def test_a_rule_equals_a_loop_over_devices(rule, changes, seed):
  """And never asks a device that is away."""
  sizes = set()
  for ids, wanted, there in play(rule, values(rule, **changes), seed):
    assert ids == wanted
    assert ids <= there
    sizes.add(len(ids))
  limited = 'joules' in changes or 'battery' in changes
  assert (sizes == {SIZE}) != limited


@pytest.mark.parametrize('rule', TWINS)
def test_the_order_of_devices_says_nothing(rule):
  given = values(rule)
  order = np.random.default_rng(5).permutation(CLIENTS)
  plain = [ids for ids, _, _ in play(rule, given)]
  assert plain == [ids for ids, _, _ in play(rule, given, order=order)]


@pytest.mark.parametrize('rule', TWINS)
def test_who_is_away_is_never_asked_however_few_are_there(rule):
  sizes = []
  for ids, _, there in play(rule, values(rule), away=0.9):
    assert ids <= there
    sizes.append((len(ids), min(len(there), SIZE)))
  assert all(found == most for found, most in sizes)
  assert min(most for _, most in sizes) < SIZE


def test_in_turn_all_are_picked_equally_often():
  """With everybody there: a queue in the order of ids."""
  counts = np.zeros(CLIENTS, int)
  for number, (ids, _, _) in enumerate(play('round_robin', {}, away=0.0)):
    first = number * SIZE
    assert ids == {n % CLIENTS for n in range(first, first + SIZE)}
    counts[list(ids)] += 1
  assert counts.max() - counts.min() <= 1


def test_exploration_decays_to_its_least():
  given = {
    'exploration': jnp.float32(0.9),
    'exploration_decay': jnp.float32(0.8),
    'exploration_least': jnp.float32(0.3),
  }
  rounds = jnp.arange(20, dtype=jnp.int32)
  share = np.asarray(oort_style.explored(rounds, given))
  assert (np.diff(share[:5]) < 0).all()
  np.testing.assert_allclose(share[:4], 0.9 * 0.8 ** np.arange(1, 5), rtol=1e-5)
  np.testing.assert_array_equal(share[4:], np.float32(0.3))


@pytest.mark.parametrize('least', [0.0, 1.0])
def test_the_share_of_devices_never_picked(least):
  """None, but for the first round, which knows nobody; or all of it."""
  given = values('oort_style', exploration=least, exploration_least=least)
  met, fresh = set(), []
  for ids, _, _ in play('oort_style', given, away=0.0, rounds=4):
    fresh.append(len(ids - met))
    met |= ids
  assert fresh == [SIZE, 0, 0, 0] if least == 0 else [SIZE] * 4


def test_a_limit_of_picks_passes_turns_on():
  """With it more devices take part, and none more often than needed."""

  def counts(most):
    given = values('oort_style', most_picks=most, penalty=8.0)
    found = np.zeros(CLIENTS, int)
    for ids, _, _ in play('oort_style', given, away=0.0):
      found[list(ids)] += 1
    return found

  free, limited = counts(0), counts(6)
  assert free.max() > 7 >= limited.max()


def test_energy_ends_where_the_budget_does():
  """Per device what the battery holds; over all, about the joules."""
  given = values('fedjoule_style', battery=4.0)
  spent = np.zeros(CLIENTS)
  expected = fleet(0)[2]
  for ids, _, _ in play('fedjoule_style', given):
    spent[list(ids)] += expected[list(ids)]
  # What a round takes differs from what the last one took, by a third here.
  assert (spent[spent > 0] <= 4.0 * 1.3).all() and spent.max() > 2
  last = [ids for ids, _, _ in play('fedjoule_style', given)][-1]
  assert len(last) < SIZE


def test_a_quantile_is_an_element_of_the_sorted_ones():
  rng = np.random.default_rng(0)
  find = jax.jit(picking.quantile)
  for size in (1, 2, 9, 30):
    numbers = rng.gamma(1.0, 1.0, 30).astype(np.float32)
    numbers[3] = 0.0
    among = np.zeros(30, bool)
    among[rng.permutation(30)[:size]] = True
    for share in (0.0, 0.3, 0.5, 0.9, 1.0):
      found = find(jnp.asarray(numbers), jnp.asarray(among), jnp.float32(share))
      assert found == selection_twin.at_rank(numbers[among], share)
  nobody = jnp.zeros(30, bool)
  assert find(jnp.asarray(numbers), nobody, jnp.float32(0.5)) == 0


@pytest.mark.parametrize('rule', TWINS)
def test_nothing_of_a_large_fleet_is_sorted_or_squared(rule):
  """Of 100,000 devices: arrays of N numbers, and top_k."""
  clients = 100_000
  given = view(
    fleet(0, clients),
    record.nobody(clients),
    1,
    hparams(values(rule)),
    np.ones(clients, bool),
    np.zeros(clients, np.float32),
    np.arange(clients),
  )
  traced = jax.make_jaxpr(lambda v: selection.SELECTION[rule](v, 50))(given)

  def equations(jaxpr):
    for equation in jaxpr.eqns:
      yield equation
      for inner in jax.extend.core.jaxprs_in_params(equation.params):
        yield from equations(inner)

  names = set()
  for equation in equations(traced.jaxpr):
    names.add(equation.primitive.name)
    sizes = [v.aval.size for v in (*equation.invars, *equation.outvars)]
    assert max(sizes, default=0) <= clients, equation
    if equation.primitive.name == 'sort':
      assert max(sizes) <= 50
  assert 'top_k' in names
