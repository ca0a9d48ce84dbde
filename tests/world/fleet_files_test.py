"""Fleets from files, and how tightly speed and sensors are coupled."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import simulate
from relief_jax.config import default
from relief_jax.config.validation import validate
from relief_jax.devices import DEVICES, figures
from relief_jax.errors import InputError
from relief_jax.world import fleet_files, fleets, tiers

NAMES = ('acc', 'gyro', 'ecg')
HEADER = 'name,share,sensors,device,speed_gflops,idle_mw'
ROWS = (
  'band,70,acc+ecg,cortex_m7,,',
  'phone,30,all,jetson_nano,12.5,900',
)
FIGURES = {
  'speed_gflops': 2,
  'active_w': 3,
  'sending_w': 2,
  'receiving_w': 1.5,
  'idle_mw': 500,
  'uplink_mbps': 4,
  'downlink_kbps': 8000,
}


def write(folder, *lines, name='fleet.csv'):
  path = folder / name
  path.write_text('\n'.join(lines))
  return str(path)


def build(name, clients, coupling=1.0, seed=0):
  rng = np.random.default_rng(seed)
  samples = np.full(clients, 5)
  return fleets.build(name, clients, NAMES, samples, rng, coupling)


def test_csv(tmp_path):
  path = write(tmp_path, HEADER, *ROWS)
  fleet = build(path, 10)
  assert fleets.tier_names(path) == ('band', 'phone')
  tier = np.asarray(fleet.tier)
  assert np.bincount(tier).tolist() == [7, 3]
  speed = np.asarray(fleet.speed)
  np.testing.assert_allclose(speed[tier == 0], DEVICES['cortex_m7'].speed)
  np.testing.assert_allclose(speed[tier == 1], 12.5e9)
  owned = np.asarray(fleet.owned)
  assert (owned[tier == 0] == [True, False, True]).all()
  assert owned[tier == 1].all()
  watts = np.asarray(fleet.watts)[tier == 1]
  expected = DEVICES['jetson_nano']._replace(idle=0.9).watts
  np.testing.assert_allclose(watts, [expected] * 3, rtol=1e-6)


def test_json_counts_and_profile_file(tmp_path):
  (tmp_path / 'board.json').write_text(
    json.dumps({'name': 'board', 'note': '', 'fit': {'r2': 1.0}} | FIGURES)
  )
  rows = [
    {'name': 'a', 'count': 2, 'sensors': ['acc'], 'device': 'board.json'},
    {'name': 'b', 'count': 1, 'sensors': '2/3'} | FIGURES,
    {'name': 'c', 'count': 1, 'sensors': 'all', 'device': 'jetson_tx2'},
  ]
  path = write(tmp_path, json.dumps(rows), name='fleet.json')
  fleet = build(path, 4)
  tier = np.asarray(fleet.tier)
  assert np.bincount(tier).tolist() == [2, 1, 1]
  assert np.asarray(fleet.owned).sum(1)[tier == 1] == [2]
  for t in (0, 1):
    np.testing.assert_allclose(np.asarray(fleet.speed)[tier == t], 2e9)
    np.testing.assert_allclose(np.asarray(fleet.uplink)[tier == t], 4e6)
    np.testing.assert_allclose(np.asarray(fleet.downlink)[tier == t], 8e6)
  with pytest.raises(InputError, match='exactly 4.*clients=4'):
    build(path, 5)


def test_a_file_as_a_spreadsheet_writes_it(tmp_path):
  path = tmp_path / 'fleet.csv'
  text = '\r\n'.join([HEADER.upper(), *ROWS, ',,,,,', ''])
  path.write_bytes(b'\xef\xbb\xbf' + text.encode())
  assert fleets.tier_names(str(path)) == ('band', 'phone')


def test_shares_are_exact(tmp_path):
  thirds = ('a,33.3,all,cortex_m7', 'b,66.7,all,jetson_tx2')
  path = write(tmp_path, 'name,share,sensors,device', *thirds)
  assert np.bincount(build(path, 10).tier).tolist() == [3, 7]
  assert fleets.smallest(path, 3) == 1


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ((HEADER,), 'no row'),
    ((HEADER.replace(',', ';'), *ROWS), 'semicolons'),
    ((HEADER + ',name', *ROWS), "row 1, column 'name': there twice"),
    ((HEADER, ROWS[0] + ',1', ROWS[1]), 'row 2: 7 fields.*6'),
    ((HEADER, ROWS[0], ROWS[0]), 'row 3, column name.*not used in row 2'),
    ((HEADER, ROWS[0]), 'share: a sum of 70'),
    ((HEADER, 'a,-1,all,cortex_m7,,'), 'row 2, column share.*above 0'),
    ((HEADER, 'a,much,all,cortex_m7,,'), "column share: 'much'"),
    ((HEADER, 'a,,all,cortex_m7,,'), 'row 2, column share: nothing'),
    ((HEADER, 'a,100,,cortex_m7,,'), 'row 2, column sensors: nothing'),
    ((HEADER, 'a,100,3/2,cortex_m7,,'), 'column sensors.*1/2'),
    ((HEADER, 'a,100,acc+acc,cortex_m7,,'), 'sensors.*every name once'),
    ((HEADER, 'a,100,all,abacus,,'), 'column device: abacus.*cortex_m7'),
    ((HEADER, 'a,100,all,no.json,,'), 'row 2, column device.*No such file'),
    ((HEADER, 'a,100,all,,2,'), 'row 2: no active.*active_w'),
    ((HEADER, 'a,100,all,cortex_m7,fast,'), "'speed_gflops': 'fast'"),
    ((HEADER, 'a,100,all,cortex_m7,nan,'), "speed_gflops': 'nan'"),
    ((HEADER, 'a,100,all,cortex_m7,2e9,'), 'speed_gflops.*0.0001 to 1e'),
    (
      ('name,share,sensors,device,speed', 'a,100,all,cortex_m7,2e9'),
      "row 2, column 'speed': no known unit.*speed_gflops",
    ),
    (
      ('name,share,sensors,device,colour', 'a,100,all,cortex_m7,red'),
      "unknown column 'colour'",
    ),
    (
      ('name,share,sensors,device,idle_w,idle_mw', 'a,100,all,cortex_m7,1,1'),
      'idle given twice',
    ),
    (
      ('name,count,sensors,device', 'a,1.5,all,cortex_m7'),
      'column count.*whole number',
    ),
    (
      ('name,count,share,sensors,device', 'a,1,100,all,cortex_m7'),
      'column share.*count in every row',
    ),
  ],
)
def test_every_problem_names_its_place(tmp_path, lines, message):
  path = write(tmp_path, *lines)
  with pytest.raises(InputError, match=message) as caught:
    fleet_files.read(path)
  assert path in str(caught.value)


def test_files_that_are_none(tmp_path):
  with pytest.raises(InputError, match='No such file'):
    fleets.find(str(tmp_path / 'fleet.csv'))
  path = write(tmp_path, '[{"name": "a",}]', name='fleet.json')
  with pytest.raises(InputError, match='line 1, column 15'):
    fleets.find(path)
  path = write(tmp_path, '{}', name='fleet.json')
  with pytest.raises(InputError, match='a list of objects'):
    fleets.find(path)
  with pytest.raises(InputError, match='an object of figures'):
    figures.read(write(tmp_path, '[]', name='board.json'))


def test_sensors_must_be_in_the_data(tmp_path):
  path = write(tmp_path, HEADER, ROWS[0].replace('ecg', 'emg'), ROWS[1])
  with pytest.raises(InputError, match="tier 'band'.*'emg'.*acc, ecg, gyro"):
    build(path, 10)
  path = write(tmp_path, 'name,share,sensors,device', 'a,100,acc,cortex_m7')
  with pytest.raises(InputError, match='owns gyro, ecg.*a tier .* sensor'):
    build(path, 10)


def correlation(fleet):
  speed, sensors = np.asarray(fleet.speed), np.asarray(fleet.owned).sum(1)
  order = np.unique(speed, return_inverse=True)[1]
  return np.corrcoef(order, sensors)[0, 1]


def test_coupling_one_is_the_nested_fleet():
  for seed in range(3):
    one, plain = build('four_tiers', 40, 1.0, seed), build('four_tiers', 40)
    assert correlation(one) > 0.9
    if not seed:
      np.testing.assert_array_equal(one.owned, plain.owned)
      np.testing.assert_array_equal(one.speed, plain.speed)


def test_coupling_falls_in_proportion_and_keeps_the_margins():
  found = []
  for coupling in (1.0, 0.75, 0.5, 0.25, 0.0):
    fleet = build('four_tiers', 4000, coupling)
    found.append(correlation(fleet))
    owned = np.asarray(fleet.owned)
    # The same devices and the same sensor sets, dealt otherwise.
    assert np.bincount(fleet.tier).tolist() == [1600, 1200, 800, 400]
    assert np.bincount(owned.sum(1)).tolist() == [0, 1600, 1200, 1200]
  expected = found[0] * np.array([1.0, 0.75, 0.5, 0.25, 0.0])
  np.testing.assert_allclose(found, expected, atol=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 5))
def test_swapping_permutes_rows(clients, coupling, seed):
  owned = np.eye(clients, dtype=bool)
  rng = np.random.default_rng(seed)
  after = tiers.shuffle_sensors(owned, coupling, rng)
  np.testing.assert_array_equal(after.sum(0), 1)
  np.testing.assert_array_equal(after.sum(1), 1)
  moved = (after != owned).any(1).sum()
  assert moved <= round((1 - coupling) * clients)
  assert owned.trace() == clients  # the argument is left as it was


@pytest.mark.parametrize('coupling', [-0.1, 1.1])
def test_coupling_is_checked(coupling):
  c = default()
  c.fleet_coupling = coupling
  with pytest.raises(InputError, match='fleet_coupling'):
    validate(c)


def test_where_shares_are_from_is_kept(tmp_path):
  path = tmp_path / 'fleet.csv'
  path.write_text(
    'name,share,sensors,device,source\n'
    'band,60,1/2,cortex_m7,"A survey (2024), table 3"\n'
    'phone,40,all,jetson_nano,\n'
  )
  c = default()
  c.dataset, c.clients, c.data.width, c.fleet = 'synthetic', 10, 16, str(path)
  found = simulate.Simulation(c).description
  assert found['tier_sources'] == {'band': 'A survey (2024), table 3'}
  c.fleet = 'four_tiers'
  assert 'tier_sources' not in simulate.Simulation(c).description
