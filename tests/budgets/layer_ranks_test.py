"""The choice of ranks by layer, beside the same as a plain loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.budgets import layer_ranks
from relief_jax.budgets.greedy import SLACK
from relief_jax.budgets.layer_ranks import Price
from relief_jax.budgets.memory import Limit

LEVELS = (0, 2, 4, 8)
LAYERS, DEVICES = 3, 40
EACH = np.array([3.0, 5.0, 2.0])
# The way down to the lowest layer that trains.
WAY = np.array([40.0, 10.0, 0.0])
KEEPS = 30.0  # bytes of a layer that trains
EQUAL = {'each': np.full(3, 3.0), 'way': np.zeros(3), 'keeps': 0.0}


def flops(rank, each=EACH, way=WAY):
  """FLOPs of ranks [L]."""
  return 100 + rank @ each + (way * (rank > 0)).max()


def memory(rank):
  """Bytes of ranks [L]."""
  return 50 + 4 * rank.sum() + KEEPS * (rank > 0).sum()


def price(each=EACH, way=WAY, keeps=KEEPS):
  """The same of ranks [K, L], as arrays that are traced."""

  def found(rank):
    rank = rank.astype(jnp.float32)
    trains = (rank > 0).astype(jnp.float32)
    return Price(
      100
      + (rank * jnp.asarray(each)[None]).sum(-1)
      + (trains * jnp.asarray(way)[None]).max(-1),
      50 + 4 * rank.sum(-1) + keeps * trains.sum(-1),
    )

  return found


def loop(score, budget, most, may):
  """The choice of one device."""
  at = [0] * LAYERS

  def ranks(places):
    return np.array([LEVELS[i] for i in places])

  while True:
    best, worth = None, -1.0
    for number in range(LAYERS):
      if not may[number] or at[number] == len(LEVELS) - 1:
        continue
      tried = list(at)
      tried[number] += 1
      cost = flops(ranks(tried))
      if cost > budget * (1 + SLACK) or memory(ranks(tried)) > most:
        continue
      value = score[number] / max(cost - flops(ranks(at)), 1.0)
      if value > worth:
        best, worth = number, value
    if best is None:
      return ranks(at)
    at[best] += 1


def solved(score, budget, most, may=None, **known):
  may = np.ones((len(budget), len(score)), bool) if may is None else may
  found = layer_ranks.solve(
    LEVELS,
    jnp.asarray(score, jnp.float32),
    price(**known),
    Limit(
      jnp.asarray(budget, jnp.float32),
      None if most is None else jnp.asarray(most, jnp.float32),
    ),
    jnp.asarray(may),
  )
  return np.asarray(found)


def test_equals_a_loop():
  rng = np.random.default_rng(0)
  score = np.array([0.7, 1.3, 0.2])
  budget = rng.integers(90, 230, DEVICES).astype(float)
  most = rng.integers(60, 260, DEVICES).astype(float)
  may = rng.random((DEVICES, LAYERS)) < 0.8
  found = solved(score, budget, most, may)
  for n in range(DEVICES):
    np.testing.assert_array_equal(
      found[n], loop(score, budget[n], most[n], may[n]), str(n)
    )
  assert len({tuple(row) for row in found}) > 6
  fits = budget >= flops(np.zeros(LAYERS))
  cost, used = (np.array([f(r) for r in found]) for f in (flops, memory))
  assert (cost <= budget * (1 + SLACK))[fits].all()
  assert (used <= most).all() and not found[~fits].any()


def test_equal_devices_have_equal_ranks():
  found = solved([1.0, 2.0, 3.0], [150.0] * 4, [200.0] * 4)
  assert (found == found[:1]).all() and found.any()


@pytest.mark.parametrize('short', ['time', 'memory'])
def test_more_means_more_ranks_of_equal_layers(short):
  """Of unequal ones it need not: a dear layer may come in for two cheap."""
  grid = np.arange(50.0, 220.0, 2.0)
  plenty = np.full_like(grid, 1e9)
  budget, most = (grid, plenty) if short == 'time' else (plenty, grid)
  score = np.array([0.7, 1.3, 0.2])
  found = solved(score, budget, most, **EQUAL)
  total = found.sum(-1)
  assert (np.diff(total) >= 0).all() and total[-1] > total[0] == 0
  if short == 'time':
    assert (np.diff(found @ score) >= -1e-6).all()


def test_the_most_important_comes_first():
  """Of equal layers in a budget for two ranks more of one."""
  ample = solved([0.0, 1.0, 0.5], [106.0], None, **EQUAL)
  np.testing.assert_array_equal(ample, [[0, 2, 0]])


def test_levels():
  assert layer_ranks.levels(16, 0) == (0, 2, 4, 8, 16)
  assert layer_ranks.levels(6, 3) == (3, 4, 6)
  assert layer_ranks.levels(6, 6) == (6,)
