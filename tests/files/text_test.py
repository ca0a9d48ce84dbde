"""Text is read alike everywhere, with or without a byte order mark."""

import codecs
import json

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.datasets import parsing
from relief_jax.errors import InputError
from relief_jax.online import presence
from relief_jax.storage import records
from relief_jax.world import fleet_files

FLEET = 'name,share,sensors,device\na,100,all,jetson_nano\n'
READERS = {
  'fleet.csv': (lambda p: fleet_files.read(str(p)), FLEET),
  'fleet.json': (
    lambda p: fleet_files.read(str(p)),
    '[{"name":"a","share":100,"sensors":"all","device":"jetson_nano"}]',
  ),
  'trace.csv': (lambda p: presence.read(str(p)).tolist(), '1,0\n0,1\n'),
  'config.json': (records.read_json, json.dumps({'rounds': 3})),
  'data.txt': (
    lambda p: parsing.table(p, parsing.read_bytes(p), 2, ',').tolist(),
    '1,2\n3,4\n',
  ),
}


@pytest.mark.parametrize('name', READERS)
def test_a_byte_order_mark_is_none_of_the_text(tmp_path, name):
  read, text = READERS[name]
  path = tmp_path / name
  path.write_text(text)
  plain = read(path)
  path.write_bytes(codecs.BOM_UTF8 + text.replace('\n', '\r\n').encode())
  assert read(path) == plain


@pytest.mark.parametrize('name', [n for n in READERS if n != 'data.txt'])
def test_another_encoding_is_refused(tmp_path, name):
  read, text = READERS[name]
  (tmp_path / name).write_bytes(text.encode('utf-16'))
  with pytest.raises(InputError, match=f'{name}.*UTF-8'):
    read(tmp_path / name)


@pytest.mark.parametrize('columns', [1, 2, 5])
def test_a_trace_of_other_devices_is_refused(tmp_path, columns):
  path = tmp_path / 'trace.csv'
  path.write_text(','.join('1' * columns) + '\n')
  own = config_lib.default().online.presence
  own.kind, own.path = 'trace', str(path)
  rng = np.random.default_rng(0)
  with pytest.raises(InputError, match=f'{columns} columns for 4 devices'):
    presence.draw(own, 4, rng)
  assert presence.draw(own, columns, rng).here.shape == (1, columns)
