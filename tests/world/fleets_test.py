"""Fleets: shares, nested sensors, owners, and the device table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import config as config_lib
from relief_jax import world
from relief_jax.devices import DEVICES, device
from relief_jax.errors import InputError
from relief_jax.world import fleets

NAMES = ('acc', 'gyro', 'mag', 'hr', 'ecg', 'emg')


def build(name='four_tiers', clients=48, modalities=3, seed=0):
  rng = np.random.default_rng(seed)
  samples = np.full(clients, 10)
  return fleets.build(name, clients, NAMES[:modalities], samples, rng)


@pytest.mark.parametrize('name', DEVICES)
def test_device_figures_are_plausible(name):
  d = device(name)
  assert 1e8 < d.speed < d.peak < 1e13
  assert 0 < d.efficiency <= 0.5
  assert 0 < d.idle < d.receiving < d.sending < 60
  assert d.idle < d.active <= 60
  assert 1e6 <= d.uplink <= 1e9 and 1e6 <= d.downlink <= 1e9
  assert d.watts == (d.active, d.sending, d.receiving, d.idle)


def test_devices_are_listed_from_slow_to_fast():
  speeds = [d.speed for d in DEVICES.values()]
  assert speeds == sorted(speeds)


def test_unknown_names():
  with pytest.raises(InputError, match='cortex_m7'):
    device('abacus')
  with pytest.raises(InputError, match='four_tiers'):
    fleets.tier_names('armada')


@pytest.mark.parametrize('name', fleets.FLEETS)
def test_descriptions(name):
  tiers = fleets.find(name).tiers
  assert sum(t.share for t in tiers) == 100
  assert [t.part for t in tiers] == sorted(t.part for t in tiers)
  assert tiers[-1].part == 1
  assert fleets.tier_names(name) == tuple(t.name for t in tiers)
  speeds = [t.speed or device(t.device).speed for t in tiers]
  assert speeds == sorted(speeds)


@pytest.mark.parametrize(
  ('name', 'ratio'),
  [('four_tiers', 27.7), ('three_tiers', 20), ('extreme', 1387)],
)
def test_speed_ratio(name, ratio):
  speed = np.asarray(build(name).speed)
  np.testing.assert_allclose(speed.max() / speed.min(), ratio, rtol=2e-3)


@pytest.mark.parametrize(
  ('clients', 'counts'),
  [
    (10, [4, 3, 2, 1]),
    (48, [19, 14, 10, 5]),  # 19.2, 14.4, 9.6, 4.8
    (5, [2, 1, 1, 1]),  # 2, 1.5, 1, 0.5: the tie goes to more sensors
    (4, [2, 1, 1, 0]),
    (1, [1, 0, 0, 0]),
  ],
)
def test_counts_by_hand(clients, counts):
  assert fleets.counts(fleets.FLEETS['four_tiers'].tiers, clients) == counts


@pytest.mark.parametrize(
  ('name', 'modalities', 'owned'),
  [
    ('four_tiers', 4, [1, 2, 3, 4]),
    ('four_tiers', 3, [1, 2, 3, 3]),
    ('four_tiers', 5, [2, 3, 4, 5]),
    ('four_tiers', 1, [1, 1, 1, 1]),
    ('three_tiers', 3, [1, 2, 3]),
    ('uniform', 3, [3]),
  ],
)
def test_sensors_by_hand(name, modalities, owned):
  found = fleets.owned_by(fleets.FLEETS[name].tiers, modalities)
  np.testing.assert_array_equal(found.sum(1), owned)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
  st.sampled_from(['four_tiers', 'three_tiers', 'extreme', 'uniform']),
  st.integers(1, 60),
  st.integers(1, 6),
)
def test_any_fleet_is_whole_or_refused(name, clients, modalities):
  """`smallest` tells exactly which sizes have an owner for every modality."""
  if clients < fleets.smallest(name, modalities):
    with pytest.raises(InputError, match='cohort with no device'):
      build(name, clients, modalities)
    return
  fleet = build(name, clients, modalities)
  owned, tier = np.asarray(fleet.owned), np.asarray(fleet.tier)
  assert owned.shape == (clients, modalities) and owned.any(0).all()
  # Nested: who owns a modality owns all the ones before it.
  assert (owned[:, 1:] <= owned[:, :-1]).all() and owned[:, 0].all()
  tiers = fleets.FLEETS[name].tiers
  counts = np.bincount(tier, minlength=len(tiers))
  assert counts.sum() == clients
  for count, t in zip(counts, tiers, strict=True):
    assert abs(count - t.share * clients / 100) < 1


def test_shapes_and_types():
  fleet = build()
  for field in ('speed', 'uplink', 'downlink', 'budget'):
    value = getattr(fleet, field)
    assert value.shape == (48,) and value.dtype == np.float32
  assert fleet.watts.shape == (48, 4) and fleet.watts.dtype == np.float32
  assert fleet.owned.dtype == bool and fleet.samples.dtype == np.int32
  np.testing.assert_array_equal(fleet.id, np.arange(48))
  orin = np.asarray(fleet.tier) == 3
  np.testing.assert_array_equal(
    np.asarray(fleet.watts)[orin], [DEVICES['jetson_agx_orin'].watts] * 5
  )


def test_tiers_are_dealt_at_random_and_reproducibly():
  tier = np.asarray(build().tier)
  np.testing.assert_array_equal(tier, build().tier)
  assert (tier != np.asarray(build(seed=1).tier)).any()
  assert (np.diff(tier) < 0).any()
  np.testing.assert_array_equal(np.sort(tier), np.sort(build(seed=1).tier))


def test_no_owner_names_the_modality_and_the_cure():
  with pytest.raises(InputError, match=r'owns hr.*clients=5'):
    build(clients=4, modalities=4)
  build(clients=5, modalities=4)


def test_an_owner_without_data_is_no_owner():
  tier = np.asarray(build(clients=10, modalities=4).tier)
  samples = np.where(tier == 3, 0, 10)
  rng = np.random.default_rng(0)
  with pytest.raises(InputError, match='owns hr.*at least one window'):
    fleets.build('four_tiers', 10, NAMES[:4], samples, rng)


def test_testbed_has_two_devices():
  assert build('testbed', 2).owned.all()
  with pytest.raises(InputError, match='exactly 2.*clients=2'):
    build('testbed', 3)


def test_bad_sizes():
  with pytest.raises(InputError, match='at least 1'):
    build('uniform', 0)
  with pytest.raises(InputError, match='partition'):
    fleets.build('uniform', 3, NAMES, np.ones(2), np.random.default_rng(0))


@pytest.mark.parametrize('modalities', [3, 4])
def test_the_last_modality_of_a_nested_fleet_is_the_rarest(modalities):
  for name in ('four_tiers', 'three_tiers'):
    fleet = build(name, modalities=modalities)
    assert fleets.rarest(fleet, NAMES[:modalities]) == modalities - 1


@pytest.mark.parametrize(
  ('sensors', 'rarest'),
  [
    (('acc+mag', 'acc', 'acc+gyro+mag'), 'gyro'),
    (('gyro', 'gyro+mag', 'gyro+mag+acc'), 'acc'),
    # A tie: the later in the data set's order.
    (('acc+gyro+mag', 'acc', 'acc'), 'mag'),
    (('mag+acc+gyro', 'mag', 'mag'), 'gyro'),
    (('acc', 'gyro', 'mag+hr'), 'hr'),
    (('hr', 'mag', 'acc+gyro+hr'), 'mag'),
    (('hr+mag', 'mag+hr', 'acc+gyro'), 'gyro'),
  ],
)
def test_the_rarest_of_a_fleet_that_is_not_nested(sensors, rarest, tmp_path):
  """Owned by the fewest devices, wherever in the order it stands."""
  path = tmp_path / 'fleet.csv'
  rows = [f't{i},2,raspberry_pi_4,{own}' for i, own in enumerate(sensors)]
  path.write_text('\n'.join(['name,count,device,sensors', *rows]))
  names = NAMES[: 4 if any('hr' in own for own in sensors) else 3]
  fleet = fleets.build(
    str(path), 6, names, np.full(6, 9), np.random.default_rng(0)
  )
  assert names[fleets.rarest(fleet, names)] == rarest


@pytest.mark.parametrize('modalities', [3, 4])
def test_a_run_asks_about_the_rarest_unless_told_otherwise(modalities):
  config = config_lib.default()
  config.update(dataset='synthetic', clients=8)
  config.data.update(width=16, stride=16)
  config.synthetic.update(modalities=modalities, windows_per_class=4)

  def rare():
    found = world.build(config, None)
    return found.spec.modalities[found.rare]

  assert rare() == NAMES[modalities - 1]
  config.data.rare = 'mag'
  assert rare() == 'mag'
  config.data.rare = 'ecg'
  with pytest.raises(InputError, match="data.rare.*'ecg'"):
    rare()


def test_rarest():
  # All alike: the last.
  assert fleets.rarest(build('uniform', 3), NAMES[:3]) == 2
  with pytest.raises(InputError, match='names'):
    fleets.rarest(build(), NAMES[:2])


def test_a_spread_changes_the_speeds_of_a_tier_alone():
  def drawn(spread):
    rng = np.random.default_rng(3)
    samples = np.full(400, 10)
    return fleets.build('four_tiers', 400, NAMES[:3], samples, rng, 0.5, spread)

  plain, spread = drawn(0.0), drawn(0.4)
  for field in ('tier', 'owned', 'uplink', 'watts', 'samples'):
    np.testing.assert_array_equal(getattr(plain, field), getattr(spread, field))
  log = np.log(np.asarray(spread.speed) / np.asarray(plain.speed))
  assert abs(log.mean()) < 0.06 and abs(log.std() - 0.4) < 0.04


def test_a_spread_comes_from_the_config():
  c = config_lib.default()
  c.dataset, c.clients, c.data.width = 'synthetic', 12, 16
  c.fleet_spread = 0.3
  fleet = world.build(c, None).population.fleet
  tier, speed = np.asarray(fleet.tier), np.asarray(fleet.speed)
  assert len(np.unique(speed[tier == 0])) == (tier == 0).sum() > 1
