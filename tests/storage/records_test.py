"""The files of a run: whole or not at all, and readable by anybody."""

import json
import os

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.errors import InputError
from relief_jax.storage import identity, records


def test_clean_leaves_plain_json():
  value = {'a': np.float32(0.5), 'b': (np.int64(1), float('inf')), 'c': None}
  found = records.clean(value)
  assert found == {'a': 0.5, 'b': [1, None], 'c': None}
  json.dumps(found, allow_nan=False)
  with pytest.raises(TypeError, match='no place in a record'):
    records.clean({'a': object()})


def test_floats_survive_to_the_bit(tmp_path):
  values = [1 / 3, 1e-300, 0.1 + 0.2]
  records.append_line(tmp_path / 'm', {'round': 0, 'v': values})
  assert records.read_metrics(tmp_path / 'm')[0]['v'] == values


def test_write_json_replaces_the_whole_file(tmp_path):
  path = tmp_path / 'a.json'
  records.write_json(path, {'a': list(range(1000))})
  records.write_json(path, {'a': 1})
  assert records.read_json(path) == {'a': 1}
  assert os.listdir(tmp_path) == ['a.json']
  with pytest.raises(TypeError):
    records.write_json(path, {'a': object()})
  assert records.read_json(path) == {'a': 1}


def test_half_a_line_is_left_out_and_cut_off(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  for number in (0, 5, 10):
    records.append_line(path, {'round': number})
  whole = path.read_bytes()
  with open(path, 'ab') as file:
    file.write(b'{"round": 15, "f1": 0.')
  assert [r['round'] for r in records.read_metrics(path)] == [0, 5, 10]
  assert records.truncate_metrics(path, 10)[-1] == {'round': 10}
  assert path.read_bytes() == whole
  assert len(records.truncate_metrics(path, 5)) == 2
  assert path.read_bytes() == b''.join(whole.splitlines(True)[:2])
  assert records.truncate_metrics(path, -1) == []
  assert path.read_bytes() == b''


def test_a_bad_line_inside_is_an_error(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"round": 0}\nrubbish\n{"round": 5}\n')
  with pytest.raises(InputError, match='line 2'):
    records.read_metrics(path)
  path.write_text('[1]\n')
  with pytest.raises(InputError, match='line 1'):
    records.read_metrics(path)


@pytest.mark.parametrize('content', ['', '{"a":', '[1, 2]'])
def test_a_corrupt_json_file_is_an_error(tmp_path, content):
  (tmp_path / 'a.json').write_text(content)
  with pytest.raises(InputError, match='a JSON object'):
    records.read_json(tmp_path / 'a.json')
  with pytest.raises(InputError):
    records.read_json(tmp_path / 'missing.json')


def test_config_round_trip(tmp_path):
  config = config_lib.default()
  config.hparams.ema = 0.25
  config.data.test_subjects = (1, 2)
  records.write_json(tmp_path / 'config.json', config)
  stored = records.read_json(tmp_path / 'config.json')
  again = records.config_from_dict(stored)
  assert again == config
  assert identity.difference(again, stored) == ''
  again.hparams.ema = 0.5
  assert 'hparams.ema' in identity.difference(again, stored)


def test_unknown_keys_and_wrong_types_are_named():
  with pytest.raises(InputError, match="unknown config key 'hparams.lr'"):
    records.config_from_dict({'hparams': {'lr': 1.0}})
  with pytest.raises(InputError, match='config.rounds'):
    records.config_from_dict({'rounds': 'many'})
  with pytest.raises(InputError, match='config.hparams'):
    records.config_from_dict({'hparams': 3})


def test_auto_takes_what_was_found_before():
  config = config_lib.default()
  identity.adopt(
    config, {'dataset': 'dsads', 'layout': 'one', 'rounds': 7, 'devices': 0}
  )
  assert (config.dataset, config.layout, config.rounds) == ('dsads', 'one', 60)


def test_environment_names_versions():
  found = records.environment()
  assert found['versions']['jax'] and found['versions']['python']
  assert found['device_kind']
