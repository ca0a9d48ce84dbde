"""What is hostile is refused in our own words, before memory is taken."""

import importlib.util
import io
import random
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.config import validation
from relief_jax.datasets import cache, download, npy, npz, packed
from relief_jax.errors import InputError
from relief_jax.world import fleet_files
from tests.fuzz import fuzz, guided


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
  monkeypatch.setattr(cache, 'user_cache', lambda: None)


@pytest.mark.parametrize(
  'name', [n for n in fuzz.TARGETS if n not in ('small_world', 'checkpoint')]
)
def test_every_door_takes_or_refuses(name):
  """A few of what `python -m tests.fuzz` tries; a crash is no InputError."""
  count = 2 if name == 'original_text' else 12
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # zipfile's, of the names we give it
    for number in range(count):
      fuzz.attempt(name, number)


@pytest.mark.slow
@pytest.mark.parametrize('name', fuzz.TARGETS)
def test_every_door_takes_or_refuses_more(name):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    taken = sum(fuzz.attempt(name, number) for number in range(100, 160))
  assert 0 <= taken < 60 or name == 'checkpoint'


@pytest.mark.parametrize(
  'name', [n for n in fuzz.TARGETS if n not in ('small_world', 'checkpoint')]
)
def test_every_door_goes_by_bytes_too(name):
  """As `guided` draws: the same bytes again, and any number of them."""
  data = random.Random(name).randbytes(512)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for some in (b'', data[:7], data):
      first = fuzz.let_in(name, guided.Draws(some))
      assert fuzz.let_in(name, guided.Draws(some)) == first


def test_guided_fuzzing_without_its_package(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setattr('sys.argv', ['guided', '--target=flags'])
  assert guided.main() == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'pip install atheris' in said


def announcing(path, header, size=0):
  """An `.npz` whose x has this header and so many zeros."""
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(file, header)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    with archive.open('x.npy', 'w', force_zip64=True) as member:
      member.write(file.getvalue())
      for _ in range(size >> 20):
        member.write(bytes(1 << 20))
  return path


def peak(function):
  """Bytes that a refusal took."""
  tracemalloc.start()
  try:
    with pytest.raises(InputError) as error:
      function()
    return tracemalloc.get_traced_memory()[1], str(error.value)
  finally:
    tracemalloc.stop()


def test_a_header_that_announces_a_huge_array(tmp_path):
  header = {'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 4)}
  path = announcing(tmp_path / 'mine.npz', header)
  assert path.stat().st_size < 1000
  taken, said = peak(lambda: npz.read(path))
  assert taken < 1 << 20
  assert 'float32 of shape (1000000000000, 4) announced, 0 bytes there' in said


def test_a_file_that_unpacks_to_more_than_there_is(tmp_path, monkeypatch):
  """64 MB out of 60 kB, where 32 MB may be taken."""
  monkeypatch.setattr(npy, 'limit', lambda: 32 << 20)
  header = {'descr': '<f4', 'fortran_order': False, 'shape': (16 << 20,)}
  path = announcing(tmp_path / 'mine.npz', header, 64 << 20)
  assert path.stat().st_size < 1 << 17
  taken, said = peak(lambda: npz.read(path))
  assert taken < 4 << 20
  assert 'more than half of the memory of this machine' in said


def test_an_archive_for_which_there_is_no_room(tmp_path, monkeypatch):
  path = tmp_path / 'a.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a.txt', bytes(1 << 20))
  monkeypatch.setattr(download, '_LARGEST', 1 << 19)
  with pytest.raises(InputError, match='1,048,576 bytes unpacked, room for'):
    download.unpack('mhealth', path, tmp_path / 'out')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.zip']


def test_an_archive_cannot_leave_its_folder(tmp_path):
  """Nor can one in it; names lose their roots and their dots."""
  inner = io.BytesIO()
  with zipfile.ZipFile(inner, 'w') as archive:
    archive.writestr('../../../inner_evil', 'x')
  home = tmp_path / 'a' / 'b' / 'home'
  home.mkdir(parents=True)
  with zipfile.ZipFile(home / 'a.zip', 'w') as archive:
    for name in ('../evil', '/evil_root', 'a/../../../evil_too', 'good'):
      archive.writestr(name, 'x')
    archive.writestr('sub/inner.zip', inner.getvalue())
  download.unpack('mhealth', home / 'a.zip', home / 'out')
  files = {p for p in tmp_path.rglob('*') if p.is_file()}
  outside = {p for p in files if home / 'out' not in p.parents}
  assert outside == {home / 'a.zip'}
  assert home / 'out' / 'sub' / 'inner_evil' in files and len(files) == 6


@pytest.mark.parametrize(
  'share', ['1e999999999', '1e-999999999', '1e99', 'nan']
)
def test_numbers_that_would_take_all_memory(tmp_path, share):
  path = tmp_path / 'fleet.csv'
  path.write_text(f'name,share,sensors,device\na,{share},all,jetson_nano\n')
  with pytest.raises(InputError, match='percent above 0'):
    fleet_files.read(str(path))


def test_a_scale_that_is_one_number(tmp_path):
  """Whatever shape it has, it is refused by that shape."""
  arrays = {
    key: np.ones(2, np.int64)
    for key in ('run_start', 'run_length', 'run_activity', 'run_subject')
  }
  arrays |= {'x': np.zeros((2, 9), np.int16), 'fs': np.array(50.0)}
  arrays |= {'channels': np.array(['a', 'b']), 'scale': np.array(1.0)}
  np.savez(tmp_path / 'packed.npz', **arrays)
  with pytest.raises(InputError, match=r'scale of shape \(\) with values'):
    packed.read(tmp_path / 'packed.npz', 'hostile', ('a', 'b'), 2)


@pytest.mark.parametrize(
  ('key', 'odd'),
  [
    *(('model.filters', odd) for odd in (',', 1.5, True, 2**63, None, '4')),
    *(('data.test_subjects', odd) for odd in (1.5, True, 2**63, None)),
  ],
)
def test_tuples_of_what_is_no_number(key, odd):
  """A tuple of any values is one for `ml_collections`."""
  config = config_lib.default()
  config.update_from_flattened_dict({key: (4, odd)})
  with pytest.raises(InputError, match=f'config.{key} is .*whole numbers'):
    validation.validate(config)


@pytest.mark.parametrize('filters', [(), (0,), (8, -1)])
def test_a_model_of_no_filters(filters):
  config = config_lib.default()
  config.model.filters = filters
  with pytest.raises(InputError, match='1 or more whole numbers'):
    validation.validate(config)
