"""Device files that can be cited: ours, to the bit, and what is refused."""

import copy
import json

import pytest

from relief_jax import devices
from relief_jax.devices import DEVICES, Device, cited, figures
from relief_jax.errors import InputError
from tests.support.paths import ROOT

FILES = sorted((ROOT / 'relief_jax' / 'devices').glob('*.json'))
# As the figures were written before they were files.
CONSTANTS = {
  'cortex_m7': Device(480e6 * 2, 0.20, 0.5, 0.93, 0.38, 0.1, 18e6, 18e6),
  'raspberry_pi_4': Device(
    4 * 1.5e9 * 8, 0.20, 6.4, 3.1, 2.6, 2.1, 108e6, 108e6
  ),
  'jetson_nano': Device(
    128 * 921.6e6 * 2, 0.10, 7.0, 3.5, 3.0, 2.0, 217e6, 217e6
  ),
  'jetson_tx2': Device(
    256 * 1.12e9 * 2, 0.10, 10.5, 4.5, 4.0, 3.0, 217e6, 217e6
  ),
  'jetson_xavier_nx': Device(
    384 * 1.1e9 * 2, 0.10, 10.5, 5.5, 5.0, 4.0, 217e6, 217e6
  ),
  'jetson_agx_orin': Device(
    2048 * 1.3e9 * 2, 0.05, 42.0, 11.5, 11.0, 10.0, 217e6, 217e6
  ),
}
MINE = json.loads(FILES[0].read_text(encoding='utf-8'))


def test_the_files_hold_the_constants_to_the_bit():
  assert DEVICES == CONSTANTS
  assert list(DEVICES) == list(CONSTANTS)  # from slow to fast


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_file_of_ours_has_its_own_name_and_says_where_from(path):
  values = json.loads(path.read_text(encoding='utf-8'))
  assert values['name'] == path.stem
  for name, figure in values['figures'].items():
    assert figure['note'], name
    assert (figure['source'] == 'none') <= (figure['how'] == 'ours'), name


def changed(path, value):
  """A file in which one value is another; None takes it out."""
  values = copy.deepcopy(MINE)
  *parts, last = path.split('.')
  at = values
  for part in parts:
    at = at[part]
  if value is None:
    del at[last]
  else:
    at[last] = value
  return values


@pytest.mark.parametrize(
  ('path', 'value', 'says'),
  [
    ('colour', 'red', "unknown key 'colour'"),
    ('figures.weight', {}, "unknown key 'weight'"),
    ('figures.idle.error', 1, "idle: unknown key 'error'"),
    ('version', None, "no 'version'"),
    ('figures.uplink', None, "no 'uplink'"),
    ('figures.idle.unit', None, "idle: no 'unit'"),
    ('figures.idle.source', None, "idle: no 'source'"),
    ('figures.idle.source', ' ', 'idle, source'),
    ('figures.idle.unit', 'Mbit/s', 'one of W, mW'),
    ('figures.idle.how', 'guessed', 'data sheet'),
    ('figures.idle.value', -0.1, r'idle: -0\.1 W'),
    ('figures.idle.value', 0, 'above 0'),
    ('figures.idle.value', '2', "'2' W"),
    ('figures.idle.value', True, 'True W'),
    ('figures.idle.value', float('nan'), 'nan W'),
    ('figures.idle.value', 10**400, 'above 0'),
    ('figures.efficiency.value', 1.5, 'at most 1'),
    ('figures.idle', 2.1, 'can be cited'),
    ('figures', [], 'figures: list'),
    ('format', 2, 'format 2'),
    ('name', 7, 'name: 7'),
  ],
)
def test_a_file_is_refused_in_one_line(tmp_path, path, value, says):
  file = tmp_path / 'board.json'
  file.write_text(json.dumps(changed(path, value)), encoding='utf-8')
  with pytest.raises(InputError, match=says) as error:
    figures.read(file)
  assert str(error.value).startswith(f'Found {file}')
  assert '\n' not in str(error.value)


def test_units_and_memory(tmp_path):
  values = changed('figures.peak.unit', 'Gflop/s')
  values['figures']['peak']['value'] = 8
  values['figures']['memory'] = {
    'value': 512,
    'unit': 'MB',
    'how': 'data sheet',
    'source': 'the board’s brief',
  }
  found = cited.to_device(values, 'board.json')
  assert found == devices.device(FILES[0].stem)._replace(peak=8e9, memory=512e6)


def test_a_fleet_takes_a_citable_file_of_ones_own(tmp_path):
  from relief_jax.world import fleet_files

  (tmp_path / 'board.json').write_text(json.dumps(MINE), encoding='utf-8')
  fleet = tmp_path / 'fleet.csv'
  fleet.write_text('name,share,sensors,device\nnode,100,all,board.json\n')
  (tier,) = fleet_files.read(fleet).tiers
  assert tier.device == DEVICES[FILES[0].stem]
