"""Which channels make up which modality, for every data set."""

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.datasets import (
  dsads,
  mhealth,
  motionsense,
  pamap2,
  synthetic,
  ucihar,
)
from relief_jax.datasets.channels import choose
from relief_jax.errors import InputError
from tests.datasets import originals

LOADERS = {
  'dsads': dsads,
  'mhealth': mhealth,
  'motionsense': motionsense,
  'pamap2': pamap2,
  'ucihar': ucihar,
}
NAMES = ('ax', 'ay', 'arm_x', 'arm_y', '4')
OWN = {'acc': [0, 1, 2], 'gyro': [3, 4]}


@pytest.mark.parametrize(
  ('asked', 'found'),
  [
    ('', OWN),
    ('gyro;acc', {'gyro': [3, 4], 'acc': [0, 1, 2]}),
    ('acc', {'acc': [0, 1, 2]}),
    (' acc = ay , ax ; arm=arm_* ', {'acc': [1, 0], 'arm': [2, 3]}),
    ('acc=0,arm_?', {'acc': [0, 2, 3]}),
    ('one=4;two=3', {'one': [4], 'two': [3]}),  # a name before a number
    ('one=ax;two=ax', {'one': [0], 'two': [0]}),
  ],
)
def test_choose(asked, found):
  chosen = choose(asked, NAMES, OWN)
  assert chosen == found and list(chosen) == list(found)


@pytest.mark.parametrize(
  ('asked', 'message'),
  [
    ('mag', "'mag'.*expected one of acc, gyro"),
    ('acc;', "''"),
    ('acc=az', "the channel 'az'; expected channels ax, ay"),
    ('acc=5', "the channel '5'"),
    ('acc=-1', "the channel '-1'"),
    ('acc=', "the channel ''"),
    ('acc=leg_*', r"the channel 'leg_\*'"),
    ('acc;gyro;acc', "with 'acc'.*every modality once"),
    ('acc=ax,a*', r"with 'acc=ax,a\*'.*every channel once"),
    ('=ax', "with '=ax'.*with a name"),
  ],
)
def test_choose_refuses(asked, message):
  with pytest.raises(InputError, match=message):
    choose(asked, NAMES, OWN)


@pytest.mark.parametrize('name', LOADERS)
def test_channels_have_the_names_of_what_they_measure(name, root):
  """By name they are the modality's own; the last modality may come first."""
  loader = LOADERS[name]
  own = loader.MODALITIES['sensor']
  count = len(loader.CHANNELS)
  assert len(set(loader.CHANNELS)) == count
  assert {n for numbers in own.values() for n in numbers} == set(range(count))
  originals.MAKE[name](root)
  whole = originals.load(name, root)
  assert {m: x.shape[2] for m, x in whole.x.items()} == {
    m: len(numbers) for m, numbers in own.items()
  }
  last = list(own)[-1]
  named = ','.join(loader.CHANNELS[n] for n in own[last])
  some = originals.load(name, root, channels=f'{last}={named};acc')
  assert list(some.x) == [last, 'acc']
  for m, x in some.x.items():
    np.testing.assert_array_equal(x, whole.x[m])
  with pytest.raises(InputError, match="modality.*'sonar'"):
    originals.load(name, root, channels='sonar')


@pytest.mark.parametrize(
  ('name', 'pattern', 'columns'),
  [
    ('pamap2', 'chest_gyro_*', [27, 28, 29]),  # of the file: see pamap2.py
    ('mhealth', 'arm_gyro_*', [17, 18, 19]),
  ],
)
def test_a_pattern_finds_the_columns_of_the_file(name, pattern, columns, root):
  originals.MAKE[name](root)
  found = originals.load(name, root, channels=f'gyro={pattern}')
  rows = getattr(originals, f'{name}_rows')(1)
  first = {'pamap2': slice(0, 32), 'mhealth': slice(120, 152)}[name]
  own = found.x['gyro'][(found.subject == 1) & (found.y == 0)][0]
  np.testing.assert_array_equal(own, rows[first, columns].astype(np.float32))


def test_made_up_data_have_no_channels_to_choose():
  config = config_lib.default()
  config.data.channels = 'acc'
  with pytest.raises(InputError, match='synthetic.channels'):
    synthetic.load(config, None)


def test_every_loader_is_tested():
  tables = {'csv', 'npz', 'synthetic'}
  rest = set(datasets.DATASETS) - tables - set(datasets._NO_CHANNELS)
  assert set(LOADERS) == rest


@pytest.mark.parametrize('name', datasets._NO_CHANNELS)
def test_images_and_texts_have_no_channels(name):
  config = config_lib.default()
  config.dataset, config.data.channels = name, 'acc'
  with pytest.raises(InputError, match='config.data.channels='):
    datasets.resolve(config)
  config.data.channels, config.data.client = '', 'who'
  with pytest.raises(InputError, match='config.data.client='):
    datasets.resolve(config)
