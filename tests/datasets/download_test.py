"""Downloads, without any: what is asked for, unpacked, and said offline."""

import hashlib
import zipfile

import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import download
from relief_jax.errors import InputError
from tests.datasets import originals


@pytest.fixture
def served(tmp_path, monkeypatch):
  """MHEALTH as a zip in a zip, served by no network."""
  import pooch

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('RELIEF_DATA_DIR', raising=False)
  monkeypatch.chdir(tmp_path)
  originals.mhealth(tmp_path / 'made')
  inner, outer = tmp_path / 'MHEALTHDATASET.zip', tmp_path / 'outer.zip'
  with zipfile.ZipFile(inner, 'w') as archive:
    for path in sorted((tmp_path / 'made').glob('**/*.log')):
      archive.write(path, f'MHEALTHDATASET/{path.name}')
  with zipfile.ZipFile(outer, 'w') as archive:
    archive.write(inner, inner.name)
  asked = []

  def serve(url, output_file, pooch):
    asked.append(url)
    with open(output_file, 'wb') as file:
      file.write(outer.read_bytes())

  monkeypatch.setattr(pooch, 'HTTPDownloader', lambda **_: serve)
  known = hashlib.sha256(outer.read_bytes()).hexdigest()
  monkeypatch.setitem(
    download.ARCHIVES,
    'mhealth',
    download.ARCHIVES['mhealth']._replace(sha256=known),
  )
  return asked


def config():
  c = config_lib.default()
  c.dataset, c.data.width, c.data.download = 'mhealth', 32, True
  return c


def test_it_is_fetched_once_and_unpacked(served, tmp_path):
  windows, _ = datasets.load(config())
  assert len(windows.y) and len(served) == 1
  datasets.load(config())
  assert len(served) == 1
  again = config()
  again.data.download = False
  datasets.load(again)  # found in the user's cache
  left = sorted(p.name for p in (tmp_path / 'cache/relief_jax').iterdir())
  assert left == ['archives', 'mhealth', 'parsed']


def test_nothing_is_fetched_unless_asked(served):
  c = config()
  c.data.download = False
  with pytest.raises(InputError, match='data.download=True'):
    datasets.load(c)
  assert not served


def test_another_checksum_is_refused(served, monkeypatch):
  entry = download.ARCHIVES['mhealth']._replace(sha256='0' * 64)
  monkeypatch.setitem(download.ARCHIVES, 'mhealth', entry)
  with pytest.raises(InputError, match='hash'):
    datasets.load(config())


def test_offline_it_says_what_to_put_where(served, monkeypatch):
  import pooch

  def offline(url, output_file, pooch):
    raise ConnectionError('no route to host')

  monkeypatch.setattr(pooch, 'HTTPDownloader', lambda **_: offline)
  with pytest.raises(InputError) as error:
    datasets.load(config())
  text = str(error.value)
  for part in (
    download.ARCHIVES['mhealth'].url,
    'no route to host',
    '75,567,983 bytes',
    'mhealth.zip',
    'mhealth/mHealth_subject1.log',
  ):
    assert part in text


def test_an_archive_of_something_else_is_refused(tmp_path):
  (tmp_path / 'a.zip').write_text('<html>')
  with pytest.raises(InputError, match='not a zip file'):
    download.unpack('mhealth', tmp_path / 'a.zip', tmp_path / 'out')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.zip']


def test_progress(capsys):
  line = download.Progress('a.zip', 4 << 20)
  for _ in range(64):
    line.update(1 << 16)
  line.reset()
  line.update(4 << 20)
  line.close()
  assert 'a.zip: 4 of 4 MB' in capsys.readouterr().err
