"""Tables: own arrays, `.csv` and `.npz` without recordings."""

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import check
from relief_jax.errors import InputError
from relief_jax.report import world_figure
from relief_jax.world import client_data, fleets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype(np.float32)


def config(name, path='', **overrides):
  c = config_lib.default('fedavg')
  c.dataset, c.data_path, c.data.split = name, str(path), 'official'
  c.partition, c.data.own_share = 'subject', 0.0
  c.update_from_flattened_dict(overrides)
  return c


def write(path, y, client=None, more=''):
  client = client or ['ann', 'bob']
  lines = ['age,bmi,lab,label,site' + (',extra' if more else '')]
  for i, (row, label) in enumerate(zip(X, y, strict=True)):
    cells = [*map(str, row), str(label), client[i % len(client)]]
    lines.append(','.join([*cells, more] if more else cells))
  path.write_text('\n'.join(lines), encoding='utf-8')
  return path


def test_a_csv_of_classes(tmp_path):
  path = write(tmp_path / 'a.csv', ['yes', 'no'] * 10)
  c = config('csv', path, **{'data.client': 'site'})
  found, name = datasets.load(c)
  assert name == 'csv' and found.classes == ('no', 'yes')
  assert found.people == {1: 'ann', 2: 'bob'}
  np.testing.assert_allclose(found.x['table'][:10], X[::2], rtol=1e-6)
  assert (
    found.official_test.reshape(2, 10).tolist()
    == [[False] * 8 + [True] * 2] * 2
  )
  c.data.channels = 'lab=lab;bio=age,bmi'
  assert list(datasets.load(c)[0].x) == ['lab', 'bio']


def test_a_csv_of_numbers_and_of_whole_ones(tmp_path):
  path = write(tmp_path / 'a.csv', np.arange(20) / 8)
  c = config('csv', path, **{'data.client': 'site'})
  found, _ = datasets.load(c)
  assert found.targets == 'numbers' and found.classes == ('label',)
  write(path, [3, 10] * 10)
  found, _ = datasets.load(c)
  assert found.targets == 'classes' and found.classes == ('3', '10')


@pytest.mark.parametrize(
  'overrides, more, text',
  [
    ({'data.label': 'y'}, '', "without a column 'y'"),
    ({'data.client': 'who'}, '', "without a column 'who'"),
    ({'data.client': ''}, '', "no number in 'site'"),
    ({'data.channels': 'a=zz'}, '', "the channel 'zz'"),
    ({}, 'word', "no number in 'extra'"),
  ],
)
def test_bad_tables_are_told_in_a_line(tmp_path, overrides, more, text):
  path = write(tmp_path / 'a.csv', [1] * 20, more=more)
  c = config('csv', path, **{'data.client': 'site', **overrides})
  with pytest.raises(InputError, match=text) as caught:
    datasets.load(c)
  assert '\n' not in str(caught.value)


def test_files_that_are_no_table(tmp_path):
  (tmp_path / 'a.csv').write_bytes(b'\xff\x00a,b\n1,2,3\n')
  for path in (tmp_path / 'a.csv', tmp_path / 'none.csv', ''):
    with pytest.raises(InputError):
      datasets.load(config('csv', path))


def test_an_npz_of_numbers_and_of_a_table(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, x=X, y=X[:, 0], subject=np.arange(20) % 2)
  found, _ = datasets.load(config('npz', path))
  assert found.targets == 'numbers' and found.x['input'].shape == (20, 3)
  np.savez(path, x=X, y=np.arange(20) % 2, modality=['a', 'b', 'b'])
  found, _ = datasets.load(config('npz', path))
  assert {m: x.shape for m, x in found.x.items()} == {
    'a': (20, 1),
    'b': (20, 2),
  }
  ids = np.arange(40).reshape(4, 10) % 7
  np.savez(path, x=ids, y=ids)
  found, _ = datasets.load(config('npz', path))
  assert found.targets == 'tokens' and len(found.classes) == 7


def test_texts_with_a_class_each(tmp_path):
  path = tmp_path / 'a.npz'
  ids = np.arange(40).reshape(10, 4) % 7
  ids[3, 2:] = -1
  np.savez(path, x=ids, y=np.arange(10) % 2, vocabulary=9, subject=[0, 1] * 5)
  found, _ = datasets.load(config('npz', path))
  assert found.targets == 'classes' and found.text
  assert found.x['text'].dtype == np.int32 and len(found.vocabulary) == 9
  assert found.classes == ('0', '1') and found.width == 4
  np.testing.assert_array_equal(found.x['text'][found.subject == 0], ids[::2])
  for more, text in (
    ({'vocabulary': 6}, 'token 6 in window .* 0 to 5, the vocabulary'),
    ({'vocabulary': np.zeros(2)}, 'vocabulary of float64'),
    ({'y': ids}, '`classes` are the vocabulary'),
    ({'x': ids - 5 * (np.arange(10) == 1)[:, None] - 3}, 'no token in text'),
    ({'x': ids + 0.5}, 'where tokens are expected'),
  ):
    np.savez(path, **{'x': ids, 'y': np.arange(10) % 2, 'vocabulary': 9} | more)
    with pytest.raises(InputError, match=text):
      datasets.load(config('npz', path))


def test_a_csv_of_texts(tmp_path):
  path = tmp_path / 'a.csv'
  rows = ['good,"fine, thanks",ann', 'bad,no,bob'] * 3
  path.write_text('\n'.join(['mood,said,who', *rows]), encoding='utf-8')
  keys = {'data.label': 'mood', 'data.client': 'who', 'data.width': 8}
  found, _ = datasets.load(config('csv', path, **keys))
  assert found.classes == ('bad', 'good') and found.width == 8
  symbols = np.array(found.vocabulary)
  ann, *_, bob = found.x['text']
  assert ''.join(symbols[ann]) == 'fine, th'
  assert ''.join(symbols[bob[:2]]) == 'no' and (bob[2:] == -1).all()
  assert '3 texts are longer than 8' in found.notes[0]
  path.write_text('mood,said,who\ngood,,ann\nbad,no,bob\n', encoding='utf-8')
  with pytest.raises(InputError, match='no text in row 1'):
    datasets.load(config('csv', path, **keys))


def test_what_check_data_tells(tmp_path, capsys):
  path = write(tmp_path / 'a.csv', 100.0 * np.arange(20))
  assert not check.tell(path, client='site')
  out = capsys.readouterr().out
  assert 'clients     2' in out and 'scale it' in out
  folder = tmp_path / 'texts'
  folder.mkdir()
  for name in 'ab':
    (folder / f'{name}.txt').write_text('one line\n' * 9)
  assert check.tell(folder, width=8)
  out = capsys.readouterr().out
  assert 'tokens' in out and 'nothing wrong' in out
  np.savez(tmp_path / 'a.npz', x=X, y=np.arange(20) % 2)
  assert not check.tell(tmp_path / 'a.npz')
  assert 'one client only' in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['numbers', 'tokens'])
def test_inspect_shows_such_devices(tmp_path, monkeypatch, kind):
  y = {'numbers': X[:, 0], 'tokens': np.arange(60).reshape(20, 3) % 5}[kind]
  x = X if kind == 'numbers' else y
  data = datasets.from_arrays(x, y, client=np.arange(20) % 4)
  monkeypatch.setitem(datasets.DATASETS, 'mine', data)
  c = config('mine', clients=4)
  found = client_data.build_clients(c, None)
  view = world_figure.view(found, fleets.tier_names(c.fleet))
  assert view.table.sum() == len(found.split.train)
  told = world_figure.summary(view)
  assert ('classes per device' in told) == (kind == 'numbers')
  world_figure.draw(view, tmp_path / 'world.png')
