"""Cutting, checking and scaling of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relief_jax.datasets.windows import (
  Windows,
  cut,
  gather,
  validate,
  zscore,
)
from relief_jax.errors import InputError


def make(count=6, width=5, channels=2, seed=0) -> Windows:
  """Random windows of two modalities, three of each of two persons."""
  rng = np.random.default_rng(seed)
  shape = count, width, channels
  number = np.arange(count)
  return Windows(
    x={m: rng.normal(3, 2, shape).astype(np.float32) for m in ('acc', 'mag')},
    y=(number % 2).astype(np.int32),
    subject=(1 + number // 3).astype(np.int32),
    run=(number // 3).astype(np.int32),
    start=(number % 3 * width).astype(np.int64),
    classes=('still', 'moving'),
    rate=25.0,
    width=width,
  )


@given(
  lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6),
  width=st.integers(1, 9),
  stride=st.integers(1, 9),
)
def test_cut_is_the_obvious_loop(lengths, width, stride):
  length = np.array(lengths)
  first = np.cumsum(length) - length
  expected = [
    (at, run)
    for run, (a, n) in enumerate(zip(first, length, strict=True))
    for at in range(a, a + n - width + 1, stride)
  ]
  start, run = cut(first, length, width, stride)
  assert list(zip(start, run, strict=True)) == expected


def test_gather_copies_what_slicing_would():
  signal = np.random.default_rng(0).normal(size=(5000, 3))
  start = np.arange(0, 4990, 3)  # more than one block
  out = np.empty((len(start), 10, 3))
  gather(signal, start, out)
  np.testing.assert_array_equal(
    out, np.stack([signal[i : i + 10] for i in start])
  )


def test_good_windows_pass():
  validate(make())


def test_nan_names_modality_subject_window_and_share():
  windows = make()
  windows.x['mag'][4, 0, 0] = np.nan
  windows.x['mag'][5, 1] = np.inf
  with pytest.raises(InputError) as error:
    validate(windows)
  for part in ('mag', 'window 4', 'subject 2', '5.00%'):  # 3 of 60
    assert part in str(error.value)


def test_label_out_of_range_is_refused():
  windows = make()
  windows.y[1] = 2
  with pytest.raises(InputError, match='label 2 in window 1 of subject 1'):
    validate(windows)


@pytest.mark.parametrize(
  'change, found',
  [
    (dict(width=7), 'acc of shape'),
    (dict(run=np.zeros(2, np.int32)), 'run of shape'),
    (dict(x={}), '0 modalities'),
    (dict(y=np.zeros(0, np.int32)), '0 windows'),
  ],
)
def test_shapes_that_disagree_are_refused(change, found):
  with pytest.raises(InputError, match=found):
    validate(make()._replace(**change))


def test_zscore_knows_the_given_rows_only():
  windows = make(count=6)
  rows = {'acc': np.array([0, 1, 2, 3]), 'mag': np.array([2, 3])}
  x, mean, std = zscore(windows, rows)
  for name, mine in rows.items():
    seen = windows.x[name][mine].astype(np.float64)
    np.testing.assert_allclose(mean[name], seen.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(std[name], seen.std((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(x[name][mine].mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(x[name][mine].std((0, 1)), 1, rtol=1e-6)
    assert x[name].dtype == np.float32
    np.testing.assert_allclose(
      x[name] * std[name] + mean[name], windows.x[name], atol=1e-5
    )
  other = make()
  for name in other.x:
    other.x[name][4:] = 1e6
  other.x['mag'][:2] = 1e6
  _, again, spread = zscore(other, rows)
  for name in rows:
    np.testing.assert_array_equal(again[name], mean[name])
    np.testing.assert_array_equal(spread[name], std[name])


def test_zscore_survives_large_means_and_constant_channels():
  windows = make(count=3000, channels=3)
  x = windows.x['acc']
  x[..., 0] = 0.1
  x[..., 1] = 1e5 + np.round(x[..., 1])
  scaled, mean, std = zscore(windows, {m: np.arange(3000) for m in windows.x})
  assert std['acc'][0] == 1 and not scaled['acc'][..., 0].any()
  exact = x[..., 1].astype(np.float64).std()
  np.testing.assert_allclose(std['acc'][1], exact, rtol=1e-4)


def test_zscore_leaves_the_windows_alone():
  windows = make()
  before = windows.x['acc'].copy()
  zscore(windows, {m: np.arange(6) for m in windows.x})
  np.testing.assert_array_equal(windows.x['acc'], before)


def test_zscore_wants_an_owner_of_every_modality():
  with pytest.raises(InputError, match='no training window for mag'):
    zscore(make(), {'acc': np.arange(6), 'mag': np.arange(0)})
