"""The made-up world: shapes, seeds, and the need for its rare modality."""

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.datasets import synthetic
from relief_jax.datasets.windows import validate
from relief_jax.errors import InputError


def small(**changes):
  config = config_lib.default()
  config.data.width = 20
  config.synthetic.update(dict(subjects=3, windows_per_class=2) | changes)
  return config


def features(x):
  """Mean, deviation and mean step of every channel, [windows, 3 * c]."""
  step = np.abs(np.diff(x, axis=1)).mean(1)
  return np.concatenate([x.mean(1), x.std(1), step], 1)


def accuracy(windows, modalities):
  """Of least squares trained on all but persons 7 and 8, tested on those."""
  f = np.concatenate([features(windows.x[m]) for m in modalities], 1)
  test = np.isin(windows.subject, (7, 8))
  f = (f - f[~test].mean(0)) / f[~test].std(0)
  f = np.concatenate([f, np.ones((len(f), 1))], 1)
  target = np.eye(len(windows.classes))[windows.y]
  weight, *_ = np.linalg.lstsq(f[~test], target[~test], rcond=None)
  right = (f @ weight).argmax(1) == windows.y
  return right[test].mean()


@pytest.mark.parametrize('modalities', [1, 2, 6])
@pytest.mark.parametrize('classes', [2, 3, 8])
def test_any_number_of_modalities_and_classes(modalities, classes):
  windows = synthetic.load(small(modalities=modalities, classes=classes), None)
  validate(windows)
  names = synthetic.modality_names(modalities)
  assert tuple(windows.x) == names and len(names) == modalities
  count = 3 * classes * 2
  for x in windows.x.values():
    assert x.shape == (count, 20, 3) and x.dtype == np.float32
  assert len(set(windows.classes)) == classes
  assert (np.bincount(windows.y) == 6).all()
  assert set(windows.subject) == {1, 2, 3}


def test_windows_of_a_person_do_not_overlap():
  windows = synthetic.load(small(), None)
  for person in np.unique(windows.subject):
    start = np.sort(windows.start[windows.subject == person])
    assert (np.diff(start) >= windows.width).all()


def test_everything_follows_from_the_seed():
  config = small()
  first, again = synthetic.load(config, None), synthetic.load(config, None)
  config.seed = 1
  other = synthetic.load(config, None)
  for name, x in first.x.items():
    np.testing.assert_array_equal(x, again.x[name])
    assert np.abs(x - other.x[name]).max() > 1


def test_a_person_is_the_same_among_more_people():
  few = synthetic.load(small(), None)
  many = synthetic.load(small(subjects=5), None)
  for name, x in few.x.items():
    np.testing.assert_array_equal(x, many.x[name][: len(x)])


@pytest.mark.parametrize('seed', [0, 1])
def test_the_rare_modality_is_needed(seed):
  config = config_lib.default()
  config.seed = seed
  windows = synthetic.load(config, None)
  names = tuple(windows.x)
  every = accuracy(windows, names)
  assert every > 0.9
  assert accuracy(windows, names[:-1]) < every - 0.15
  # They complete each other: none is enough alone.
  assert max(accuracy(windows, (m,)) for m in names) < every - 0.1


def test_variants_look_alike_without_the_rare_modality():
  """A pair of variants is told apart by the last modality and by it alone."""
  config = config_lib.default()
  config.synthetic.update(classes=2, windows_per_class=40)
  windows = synthetic.load(config, None)
  assert accuracy(windows, ('mag',)) > 0.95
  assert abs(accuracy(windows, ('acc', 'gyro')) - 0.5) < 0.2


def test_the_default_test_persons_exist():
  config = config_lib.default()
  assert max(config.data.test_subjects) <= config.synthetic.subjects


def test_a_world_that_does_not_fit_into_memory():
  many = {'subjects': 10**5, 'windows_per_class': 10**5}
  with pytest.raises(InputError, match='half of the memory of this machine'):
    synthetic.load(small(**many), None)
