"""RELIEF's theory (arXiv 2604.04243) in numbers, and the claims around it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import costs, tree
from relief_jax.aggregation import mean as mean_lib
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms.parts import norms, shrinkage
from relief_jax.budgets.greedy import SLACK, greedy
from relief_jax.budgets.knapsack import knapsack
from relief_jax.task import Blocks
from tests.support import tiny

# A model of two groups: a block of three numbers and a shared one of two.
BLOCK, SHARED = np.arange(3), np.arange(3, 5)
STUB = tiny.task()._replace(
  groups={'block': 0, 'shared': 1},
  blocks=Blocks(('block', 'shared'), (0, -1), ('fusion', 'head')),
)


def mean_of(updates, weight, trained):
  """`mean.of_sums` fed as a round feeds it.

  Args:
    updates: {'block': [K, 3], 'shared': [K, 2]}, zero where not trained.
    weight: [K, 2] in the mean.
    trained: [K, 2] bool.
  """

  def client(delta, weight):
    return (
      tree.scale(tree.broadcast_groups(STUB.groups, weight), delta),
      tree.scale(weight, tree.group_sq_norms(STUB.groups, delta, 2)),
    )

  sums = jax.vmap(client)(updates, weight)
  total, sq = jax.tree.map(lambda v: v.sum(0), sums)
  return mean_lib.of_sums(STUB, weight, trained, total, sq)


# -- Lemma 1 ---------------------------------------------------------------


@pytest.mark.parametrize(
  'outside', [0.0, 1.0], ids=['dilution', 'interference']
)
def test_errors_of_the_two_means(outside):
  """Expected squared errors by Monte Carlo against the algebra."""
  clients, cohort, sigma, draws = 10, 3, 0.6, 20_000
  rng = np.random.default_rng(0)
  truth = np.array([1.0, -0.5, 0.3])
  # What the others do to the block: nothing when they skip it.
  others = outside * rng.normal(size=(clients - cohort, 3))
  # In pairs of opposite noise: what is linear in it cancels.
  noise = rng.normal(size=(draws // 2, cohort, 3)) * sigma / np.sqrt(3)
  noise = np.concatenate([noise, -noise])
  block = np.concatenate(
    [truth + noise, np.broadcast_to(others, (draws,) + others.shape)], 1
  )
  updates = {
    'block': jnp.asarray(block, jnp.float32),
    'shared': jnp.zeros((draws, clients, 2)),
  }
  owner = jnp.arange(clients) < cohort
  trained = jnp.stack([owner | (outside > 0), owner | True], 1)
  everybody = jnp.ones((clients, 2))
  owners = everybody.at[:, 0].set(owner)

  def error(weight):
    mean = jax.vmap(lambda u: mean_of(u, weight, trained).delta['block'])
    found = np.asarray(jax.jit(mean)(updates), np.float64)
    each = np.square(found - truth).sum(1).reshape(2, -1).mean(0)
    return each.mean(), 4 * each.std() / np.sqrt(len(each))

  bias = ((clients - cohort) / clients) ** 2 * np.square(
    others.mean(0) - truth
  ).sum()
  fedavg, slack = error(everybody)
  want = bias + cohort * sigma**2 / clients**2
  assert abs(fedavg - want) < slack
  # The slack is small enough to tell the terms of the formula apart.
  assert slack < 0.2 * cohort * sigma**2 / clients**2
  cohort_mean, slack = error(owners)
  assert abs(cohort_mean - sigma**2 / cohort) < slack
  assert slack < 0.05 * sigma**2 / cohort


def test_a_cohort_of_one_can_lose():
  """Variance against bias: with noise enough, dilution is a good thing."""
  clients, sigma = 10, 3.0
  truth_sq = 1.0
  fedavg = (9 / 10) ** 2 * truth_sq + sigma**2 / clients**2
  assert sigma**2 > fedavg
  # And shrinkage knows: it never does worse than either end (below).


# -- Prop. 4: greedy and the knapsack --------------------------------------

GROUPS = 6
ALL_SETS = np.array(list(itertools.product([0, 1], repeat=GROUPS)), bool)
WORK = tiny.task().work


def cost_function(work, run):
  def step_cost(chosen):
    return costs.step_flops(work, run, chosen)

  return step_cost


@jax.jit
def choose(score, tie, access, budget, work):
  """Both rules on one device, and what their sets cost."""
  step_cost = cost_function(work, jnp.ones(2, bool))
  sets = [
    rule(score, tie, step_cost, access, budget) for rule in (greedy, knapsack)
  ]
  return sets, [step_cost(s) for s in sets], jax.vmap(step_cost)(ALL_SETS)


def make_work(seed, equal=False):
  """Random costs with shared gradient paths; equal ones have none."""
  rng = np.random.default_rng(seed)
  wgrad = np.full(GROUPS, 100.0) if equal else rng.uniform(10, 500, GROUPS)
  path = rng.random((4, GROUPS)) < 0.4
  return WORK.replace(
    shared=jnp.float32(50),
    fwd=jnp.array([200.0, 300.0]),
    wgrad=jnp.asarray(wgrad, jnp.float32),
    agrad=jnp.asarray(rng.uniform(10, 300, 4) * (not equal), jnp.float32),
    path=jnp.asarray(path),
    size=jnp.ones(GROUPS),
  )


class Case:
  """A device before a choice."""

  def __init__(self, seed, equal, optimists):
    rng = np.random.default_rng(seed)
    self.work = make_work(seed, equal)
    # As divergences are: small, alike or spread over magnitudes.
    score = 10 ** rng.uniform(-8, -8 + rng.choice([0.3, 5]), GROUPS)
    score[rng.permutation(GROUPS)[:optimists]] = np.inf
    self.score = jnp.asarray(score, jnp.float32)
    self.tie = jnp.asarray(rng.integers(-1, 9, GROUPS), jnp.float32)
    self.access = jnp.asarray(rng.random(GROUPS) < 0.8)
    self.budget = jnp.float32(rng.uniform(500, 2500))

  def choose(self, budget=None):
    """Sets of both rules, their costs, the costs of all sets."""
    found = choose(
      self.score,
      self.tie,
      self.access,
      self.budget if budget is None else jnp.float32(budget),
      self.work,
    )
    (greedy, knapsack), cost, every = jax.tree.map(np.asarray, found)
    return greedy, knapsack, cost, every

  def value(self, chosen):
    """Optimists first, then the sum of what is known."""
    score = np.asarray(self.score, np.float64)
    known = np.where(np.isinf(score), 0, score)
    return int(np.isinf(score)[chosen].sum()), float(known[chosen].sum())


def at_least(one, other):
  """one >= other up to float32 sums."""
  if one[0] != other[0]:
    return one[0] > other[0]
  return one[1] >= other[1] * (1 - 1e-5)


seeds = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_greedy_is_optimal_at_equal_costs(seed):
  case = Case(seed, equal=True, optimists=0)
  one, other, _, _ = case.choose()
  np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 3))
def test_knapsack_is_exact(seed, optimists):
  """No affordable set covers more; greedy's is one of those."""
  case = Case(seed, False, optimists)
  one, best, cost, every = case.choose()
  access, limit = np.asarray(case.access), float(case.budget) * (1 + SLACK)
  for chosen, flops in zip((one, best), cost, strict=True):
    assert not (chosen & ~access).any()
    # Where not even the empty set fits, it is what is left.
    assert flops <= limit or not chosen.any()
  affordable = ALL_SETS[(every <= limit) & ~(ALL_SETS & ~access).any(1)]
  for other in affordable:
    assert at_least(case.value(best), case.value(other))
  assert at_least(case.value(best), case.value(one))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1, 3), st.integers(0, 3))
def test_a_larger_budget_never_covers_less(seed, factor, optimists):
  """Holds for the knapsack; greedy may pick one big group and lose two."""
  case = Case(seed, False, optimists)
  small = case.choose()[1]
  large = case.choose(float(case.budget) * factor)[1]
  assert at_least(case.value(large), case.value(small))


def test_greedy_covers_less_than_the_knapsack_somewhere():
  """The inequality is strict: else the test above would prove nothing."""
  gaps = []
  for seed in range(30):
    case = Case(seed, False, 0)
    one, best, _, _ = case.choose()
    gaps.append(case.value(best)[1] / max(case.value(one)[1], 1e-30) - 1)
  assert max(gaps) > 0.01


def test_nothing_fits():
  """Below the forward pass (550) nothing is chosen; at it, the empty set."""
  case = Case(0, False, 1)
  for budget in (0.0, 549.0, 550.0):
    one, best, _, _ = case.choose(budget)
    assert not one.any() and not best.any()


def test_a_group_that_does_not_fit_is_passed_over():
  case = Case(0, equal=True, optimists=0)
  case.work = case.work.replace(wgrad=case.work.wgrad.at[2].set(1e6))
  case.access = jnp.ones(GROUPS, bool)
  case.score = jnp.asarray([1, 2, 9, 3, 4, 5], jnp.float32)
  one, best, _, _ = case.choose(550 + 300)
  np.testing.assert_array_equal(np.flatnonzero(one), [3, 4, 5])
  np.testing.assert_array_equal(best, one)


def test_a_budget_set_to_the_cost_of_a_set_admits_it():
  """In float32, whatever the order of summation."""
  for seed in range(20):
    case = Case(seed, False, GROUPS)
    case.access = jnp.ones(GROUPS, bool)
    every = case.choose()[3]
    one, best, _, _ = case.choose(every[-1])
    assert one.all() and best.all()


def test_ties_go_to_who_waited_longest_then_to_the_first():
  case = Case(0, equal=True, optimists=GROUPS)
  case.access = jnp.ones(GROUPS, bool)
  case.tie = jnp.asarray([3, 1, 3, 1, 2, 1], jnp.float32)
  for rule in case.choose(550 + 200)[:2]:
    np.testing.assert_array_equal(np.flatnonzero(rule), [1, 3])


def test_worthless_groups_are_still_trained_where_there_is_room():
  """LoRA's first step: every A diverges by exactly 0; none may starve."""
  case = Case(0, equal=True, optimists=0)
  case.access = jnp.ones(GROUPS, bool)
  case.score = jnp.zeros(GROUPS)
  for last in (0.0, 4.0):
    case.tie = jnp.full(GROUPS, last).at[4].set(last - 1)
    for rule in case.choose(550 + 300)[:2]:
      np.testing.assert_array_equal(np.flatnonzero(rule), [0, 1, 4])


# -- Divergence ------------------------------------------------------------


def two_pass(updates, weight, trained):
  """Weighted variance of the trainers around their mean, in float64."""
  found = []
  for g, name in enumerate(('block', 'shared')):
    on = np.asarray(trained)[:, g]
    u = np.asarray(updates[name], np.float64)[on]
    w = np.asarray(weight, np.float64)[on, g]
    mean = (w[:, None] * u).sum(0) / w.sum()
    found.append((w * np.square(u - mean).sum(1)).sum() / w.sum())
  return np.array(found)


def random_updates(seed, clients, offset):
  rng = np.random.default_rng(seed)
  trained = rng.random((clients, 2)) < 0.7
  trained[:2] = True
  weight = rng.integers(1, 50, clients)[:, None] * np.ones(2)
  updates = {
    name: trained[:, [g]] * (offset + rng.normal(size=(clients, size)))
    for g, (name, size) in enumerate({'block': 3, 'shared': 2}.items())
  }
  updates = {k: jnp.asarray(v, jnp.float32) for k, v in updates.items()}
  return updates, jnp.asarray(weight, jnp.float32), jnp.asarray(trained)


merged = jax.jit(mean_of)


@pytest.mark.parametrize('clients', [2, 7, 10_000])
def test_divergence_in_one_pass(clients):
  """Sums and sums of squares against two passes in float64."""
  updates, weight, trained = random_updates(1, clients, 0.5)
  mean = merged(updates, weight, trained)
  np.testing.assert_allclose(
    mean.variance, two_pass(updates, weight, trained), rtol=2e-5
  )
  np.testing.assert_array_equal(mean.trainers, np.asarray(trained).sum(0))


@pytest.mark.parametrize('ratio', [3, 30, 300, 3000])
def test_divergence_beside_a_large_mean(ratio):
  """The price of one pass: an error of (mean / spread)^2 rounding errors.

  At a mean of 30 spreads four digits are left, at 300 two, at 3000 none; it
  is never negative. Updates of a real round have ratios below 3.
  """
  loss = 0.0
  for seed in range(5):
    updates, weight, trained = random_updates(seed, 40, float(ratio))
    mean = merged(updates, weight, trained)
    want = two_pass(updates, weight, trained)
    assert (np.asarray(mean.variance) >= 0).all()
    loss = max(loss, np.abs(np.asarray(mean.variance) / want - 1).max())
  assert loss < 16 * 2.0**-24 * (1 + ratio**2)


def test_agreement_is_no_divergence():
  updates = {'block': jnp.full((4, 3), 0.7), 'shared': jnp.full((4, 2), -2.0)}
  every = jnp.ones((4, 2))
  mean = merged(updates, every, every > 0)
  np.testing.assert_allclose(mean.variance, 0, atol=1e-5)
  np.testing.assert_allclose(mean.sq_norm, [3 * 0.49, 8], rtol=1e-6)


def test_who_counts_without_training_dilutes_but_does_not_diverge():
  """Denominator `all`: the mean shrinks, the divergence stays."""
  updates, _, trained = random_updates(3, 8, 1.0)
  everybody = jnp.ones((8, 2))
  diluted = merged(updates, everybody, trained)
  pure = merged(updates, everybody * trained, trained)
  share = np.asarray(trained).mean(0)
  for g, name in enumerate(('block', 'shared')):
    np.testing.assert_allclose(
      diluted.delta[name], share[g] * pure.delta[name], rtol=1e-5
    )
  np.testing.assert_allclose(diluted.variance, pure.variance, rtol=1e-6)
  np.testing.assert_allclose(diluted.sq_norm, pure.sq_norm, rtol=1e-6)
  np.testing.assert_array_equal(diluted.weight, pure.weight)


# -- Shrinkage (ours) ------------------------------------------------------


@pytest.mark.parametrize('sigma', [0.1, 1.0, 3.0, 10.0])
@pytest.mark.parametrize('cohort', [2, 4, 9])
def test_shrinkage_minimises_the_error(sigma, cohort):
  """Against a search over lambda with the true noise and mean known."""
  clients, truth_sq = 10, 1.0
  noise = sigma**2 / cohort  # of the cohort mean

  def error(kept):
    return (1 - kept) ** 2 * truth_sq + kept**2 * noise

  lambdas = np.linspace(0, 1, 100_001)
  kept = (1 - lambdas) + lambdas * cohort / clients
  best = kept[error(kept).argmin()]
  mean = Mean(
    delta=(),
    touched=(),
    weight=jnp.float32(cohort),
    trainers=jnp.float32(cohort),
    # What is seen on average: the variance around the cohort's own mean, and
    # that mean's norm, noise included.
    variance=jnp.float32(sigma**2 * (cohort - 1) / cohort),
    sq_norm=jnp.float32(truth_sq + noise),
    active=jnp.float32(clients),
  )
  found = float(shrinkage.share(mean))
  assert abs(found - best) < 2e-5
  assert error(found) <= min(error(1.0), error(cohort / clients)) + 1e-6


def test_nothing_is_shrunk_that_cannot_be_judged():
  """A single trainer has no estimate of the noise."""
  one = jnp.ones(())
  mean = Mean((), (), one, one, 0 * one, one, 10 * one)
  assert shrinkage.share(mean) == 1


# -- Prop. 5: regret -------------------------------------------------------


def regret(everything_seen: bool) -> np.ndarray:
  """Loss against the clairvoyant choice so far, [rounds].

  Half of eight groups fit. Divergences drift and are seen through noise, both
  dying down as learning does.

  Args:
    everything_seen: other devices train, hence observe, all groups; else only
      what was chosen is observed.
  """
  groups, picked, horizon, ema = 8, 4, 1600, 0.5
  rng = np.random.default_rng(0)
  time = np.arange(horizon)[:, None]
  level = 10 ** rng.uniform(-2, 0, groups)
  drift = 1 + rng.normal(size=groups) * np.exp(-time / 100)
  truth = level * np.abs(drift)
  noise = 0.5 / np.sqrt(1 + time) * rng.normal(size=truth.shape)

  def one(carry, now):
    memory, last, number = carry
    truth, found = now
    chosen = greedy(
      memory,
      last,
      lambda s: 1.0 * s.sum(),
      jnp.ones(groups, bool),
      jnp.float32(picked),
    )
    memory = norms.blend(memory, found, ema, chosen | everything_seen)
    last = jnp.where(chosen, number, last)
    best = jnp.sort(truth)[-picked:].sum()
    return (memory, last, number + 1.0), best - (truth * chosen).sum()

  start = jnp.full(groups, jnp.inf), jnp.full(groups, -1.0), jnp.float32(0)
  rows = (truth, truth * np.exp(noise))
  _, loss = jax.lax.scan(one, start, jax.tree.map(jnp.float32, rows))
  assert (np.asarray(loss) > -1e-5).all()
  return np.cumsum(np.asarray(loss, np.float64))


def growth(total):
  """Exponent of the growth over the last doubling of time; 1 is linear."""
  return np.log2(total[-1] / total[len(total) // 2 - 1])


def test_regret_of_the_average_grows_sublinearly():
  total = regret(everything_seen=True)
  assert total[99] > 0.1  # it had something to learn
  assert growth(total) < 0.5


def test_regret_without_a_second_look_is_linear():
  """Who sees only what he chose never learns that the rest has grown.

  The known starvation of plain greedy: the guarantee
  needs the groups to be observed by somebody, or `max_stale` or `aged`.
  """
  assert growth(regret(everything_seen=False)) > 0.8
