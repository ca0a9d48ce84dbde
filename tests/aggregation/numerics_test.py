"""Sums over very many clients against float64, without any training."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import tree
from relief_jax.aggregation import mean as mean_lib
from relief_jax.engine import placement
from relief_jax.rounds.records import RoundInfo
from relief_jax.runs.round_totals import TOTALS, RoundTotals

MANY = 100_000
TASK = SimpleNamespace(groups={'a': 0, 'b': 1}, num_blocks=2)
SHAPES = {'a': (3,), 'b': (2,)}


@functools.cache
def summed(block):
  """As a round adds updates up, [K, ...] -> sums."""

  def client(shared, row):
    del shared
    weight, delta = row
    sq = tree.group_sq_norms(TASK.groups, delta, 2)
    scaled = tree.scale(tree.broadcast_groups(TASK.groups, weight), delta)
    return (scaled, tree.scale(weight, sq)), ()

  def run(weight, delta):
    return placement.map_reduce(
      client, (), (weight, delta), placement.Layout(block)
    )[0]

  return jax.jit(run)


def merged(ratio, block):
  """The mean of `MANY` clients and the same in float64.

  Args:
    ratio: squared norm of the common mean over the variance.
    block: clients added up at a time.
  """
  rng = np.random.default_rng(0)
  delta = {
    k: (np.sqrt(ratio) + rng.normal(size=(MANY, *shape))).astype(np.float32)
    for k, shape in SHAPES.items()
  }
  weight = rng.uniform(1, 300, (MANY, 2)).astype(np.float32)
  trained = np.ones((MANY, 2), bool)
  sums = summed(block)(jnp.asarray(weight), jax.tree.map(jnp.asarray, delta))
  found = mean_lib.of_sums(TASK, jnp.asarray(weight), trained, *sums)
  means, variances = {}, []
  for g, k in enumerate(SHAPES):
    w, u = weight[:, g].astype(float), delta[k].astype(float)
    means[k] = np.average(u, 0, w)
    variances.append(np.average(np.square(u - means[k]).sum(-1), weights=w))
  return found, means, np.array(variances)


@pytest.mark.parametrize('block', [1, 500])
@pytest.mark.parametrize('ratio', [0.0, 1.0, 100.0])
def test_means_and_divergences_of_many(ratio, block):
  """The bounds that `of_sums` states."""
  found, means, variances = merged(ratio, block)
  scale = 1 + np.sqrt(ratio)
  for k, mean in means.items():
    np.testing.assert_allclose(found.delta[k], mean, rtol=0, atol=1e-4 * scale)
  error = np.abs(found.variance / variances - 1).max()
  assert error < 5e-5 * (1 + ratio)


def infos(rng, count=5, clients=40):
  """Rounds of bytes beyond 2**24 and costs of many orders."""
  trained = rng.random((count, clients, 2)) < 0.7
  works = trained.any(-1)

  def some(low, high):
    return (works * 10 ** rng.uniform(low, high, works.shape)).astype('f4')

  return RoundInfo(
    client=np.tile(np.arange(clients), (count, 1)),
    loss=np.ones((count, clients), np.float32),
    trained=trained,
    upload=np.round(some(0, 9)),
    download=np.round(some(0, 9)),
    seconds=some(-4, 4),
    joules=some(-6, 6),
    divergence=np.ones((count, 2), np.float32),
  )


def test_totals_are_exact_and_the_clock_never_goes_back():
  """Bytes are whole numbers: their float64 sums have no rounding at all."""
  rng, tally = np.random.default_rng(0), RoundTotals()
  parts = [infos(rng) for _ in range(200)]
  clock = [0.0]
  for part in parts:
    assert tally.add(part) is None
    clock.append(tally.totals['sim_seconds'])
  assert (np.diff(clock) >= 0).all() and set(tally.totals) == set(TOTALS)

  def exact(values):
    return math.fsum(float(v) for part in values for v in part.ravel())

  for key, field in (('up_bytes', 'upload'), ('down_bytes', 'download')):
    want = sum(int(v) for part in parts for v in getattr(part, field).ravel())
    assert tally.totals[key] == want > 2**40
  joules = exact(part.joules for part in parts)
  seconds = exact(part.seconds.max(1) for part in parts)
  assert tally.totals['joules'] == pytest.approx(joules, rel=1e-14)
  assert tally.totals['sim_seconds'] == pytest.approx(seconds, rel=1e-14)


def test_a_tally_names_the_first_broken_round_and_counts_the_dropped():
  rng, tally = np.random.default_rng(0), RoundTotals()
  part = infos(rng)
  broken = part._replace(loss=part.loss.copy())
  broken.loss[3, 7], broken.loss[4, 2] = np.inf, np.nan
  assert tally.add(broken) == (3, 7)
  assert tally.totals == dict.fromkeys(TOTALS, 0.0)
  dropped = part.trained.any(-1) & (rng.random(part.loss.shape) < 0.2)
  loss = np.where(dropped, 0, 2.0)
  tally.begin()
  assert tally.add(part._replace(loss=loss, extra={'dropped': dropped})) is None
  window = tally.window(('a', 'b'))
  assert window['dropped'] == dropped.sum() > 0 and window['loss'] == 2
  assert tally.totals['up_bytes'] == part.upload.astype(float).sum()
  tally.begin()
  tally.add(part)
  assert 'dropped' not in tally.window(('a', 'b'))
