"""Unequal amounts of data, and windows that several devices hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax.config import default
from relief_jax.config.validation import validate
from relief_jax.errors import InputError
from relief_jax.world import partition, quantity
from tests.world.partition_test import (
  KINDS,
  everything,
  rng,
  runs_of_people,
  world,
)


def assign(kind, windows, clients, sigma, least=1, alpha=0.5, seed=0):
  return partition.assign(
    kind,
    windows,
    everything(windows),
    clients,
    np.random.default_rng(seed),
    alpha,
    least,
    sigma,
  )


@settings(deadline=None)
@given(
  st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(0, 200)
)
def test_sizes_are_whole_and_near_the_wish(wish, more):
  wish = np.array(wish)
  size = quantity.sizes(wish, len(wish) + more)
  assert size.sum() == len(wish) + more and size.min() >= 1
  assert (np.abs(size - 1 - more * wish / wish.sum()) < 1).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_any_stretch_of_an_interleaved_row_is_fair(size):
  size = np.array(size)
  row = quantity.interleave(size)
  np.testing.assert_array_equal(np.bincount(row), size)
  for j, n in enumerate(size):
    # After any number of windows j has had its share, to one window.
    had = np.cumsum(row == j)
    fair = n * np.arange(1, len(row) + 1) / len(row)
    assert np.abs(had - fair).max() <= 0.5 + n * len(size) / len(row)


def test_off_draws_nothing():
  generator = rng()
  before = generator.bit_generator.state
  assert quantity.draw(5, 0.0, generator) is None
  assert generator.bit_generator.state == before


@settings(deadline=None, max_examples=50)
@given(
  runs=runs_of_people,
  kind=st.sampled_from(KINDS[:2]),
  ask=st.floats(0, 1),
  seed=st.integers(0, 9),
)
def test_every_row_still_goes_to_one_client(runs, kind, ask, seed):
  windows = world(runs)
  size = len(windows.y)
  clients = 1 + int(ask * (size - 1))
  parts = assign(kind, windows, clients, 1.5, seed=seed)
  assert len(parts) == clients and all(len(p) for p in parts)
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), range(size))
  if clients >= len(runs):
    assert all(len(set(windows.subject[p])) == 1 for p in parts)
  if clients >= len(runs) and kind == 'contiguous':
    for part in parts:
      for run in np.unique(windows.run[part]):
        start = windows.start[part[windows.run[part] == run]]
        assert (np.diff(start) == windows.width).all()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('sigma', [0.5, 1.0])
def test_sizes_are_log_normal(kind, sigma):
  windows = world([[400] * 5] * 10)
  parts = assign(kind, windows, 200, sigma, alpha=1e3)
  log = np.log([len(part) for part in parts])
  assert log.std() == pytest.approx(sigma, rel=0.15)
  z = (log - log.mean()) / log.std()
  assert abs((z**3).mean()) < 0.5  # not skewed: the logarithm is normal


def test_a_skewed_client_still_sees_every_activity():
  windows = world([[200] * 6] * 2)
  for part in assign('contiguous', windows, 8, 1.0):
    table = np.bincount(windows.y[part], minlength=6)
    assert np.ptp(table) <= 3 and table.min() > 0


def test_few_clients_get_whole_persons_near_their_wish():
  wish = np.array([4.0, 1.0])
  client = quantity.merge(np.full(10, 7), wish)
  assert np.bincount(client).tolist() == [8, 2]
  parts = assign('subject', world([[9], [2], [5], [4]]), 3, 1.0)
  assert len(parts) == 3 and sum(map(len, parts)) == 20


def deal_to(windows, kind, least, sigma=0.0, alpha=5.0):
  generator = rng()

  def deal(clients):
    return partition.assign(
      kind,
      windows,
      everything(windows),
      clients,
      generator,
      alpha,
      least,
      sigma,
    )

  return deal


@pytest.mark.parametrize('kind', KINDS)
def test_laps_are_partitions_of_the_bank(kind):
  windows = world([[10, 9]] * 2)
  size, clients, least = len(windows.y), 90, 3
  parts = quantity.reuse_windows(
    deal_to(windows, kind, least), clients, size, least
  )
  assert len(parts) == clients and min(map(len, parts)) >= least
  count = np.bincount(np.concatenate(parts), minlength=size)
  # As many laps as it takes, and each holds every window once.
  assert count.min() == count.max() >= clients * least / size


def test_one_lap_is_the_disjoint_deal():
  windows = world([[30]])
  deal = deal_to(windows, 'subject', 1)
  for a, b in zip(quantity.reuse_windows(deal, 7, 30, 1), deal(7), strict=True):
    np.testing.assert_array_equal(a, b)


def test_hopeless_laps_are_refused():
  windows = world([[4]])
  with pytest.raises(InputError, match='min_windows=5'):
    quantity.reuse_windows(deal_to(windows, 'subject', 5), 6, 4, 5)
  with pytest.raises(InputError, match='less than 4 windows.*reuse=20'):
    assign('contiguous', world([[9]]), 3, 0.0, least=4)


@pytest.mark.parametrize('kind', KINDS)
def test_a_hundred_thousand_clients_over_one_bank(kind):
  windows = world([[60] * 20] * 6)
  sigma = 0.5 if kind == 'subject' else 0.0
  deal = deal_to(windows, kind, 4, sigma, 1e4)
  parts = quantity.reuse_windows(deal, 100_000, len(windows.y), 12)
  sizes = np.array([len(part) for part in parts])
  assert len(sizes) == 100_000 and sizes.min() >= 4
  assert 12 <= sizes.mean() < 20


def test_the_least_size_holds_under_skew():
  parts = assign('subject', world([[100]]), 10, 3.0, least=5)
  assert min(map(len, parts)) >= 5 and max(map(len, parts)) > 20


@pytest.mark.parametrize(
  ('key', 'value'), [('quantity_skew', -1.0), ('min_windows', 0)]
)
def test_config(key, value):
  c = default()
  c[key] = value
  with pytest.raises(InputError, match=key):
    validate(c)
