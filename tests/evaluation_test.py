"""Macro-F1 against scikit-learn, confusion matrices against predictions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from relief_jax import evaluation
from tests import tiny

quick = functools.partial(jax.jit, compiler_options=tiny.QUICK)


def confusion(truth, guess, classes):
  found = np.zeros((classes, classes), int)
  np.add.at(found, (truth, guess), 1)
  return found


@pytest.mark.parametrize('seed', range(20))
def test_f1_is_scikit_learns(seed):
  """Also where classes are missing from labels, predictions, or both."""
  rng = np.random.default_rng(seed)
  classes, count = rng.integers(2, 7), rng.integers(1, 30)
  labels = rng.permutation(classes)
  truth = rng.choice(labels[: rng.integers(1, classes + 1)], count)
  guess = rng.choice(labels[rng.integers(0, classes) :], count)
  found = confusion(truth, guess, classes)
  every = metrics.f1_score(
    truth, guess, labels=range(classes), average=None, zero_division=0
  )
  macro = metrics.f1_score(truth, guess, average='macro', zero_division=0)
  np.testing.assert_allclose(evaluation.class_f1(found), every)
  np.testing.assert_allclose(evaluation.macro_f1(found), macro)


def test_f1_of_nothing_is_zero():
  assert evaluation.macro_f1(np.zeros((3, 3))) == 0


def test_subsets_are_the_fleets_and_the_probes():
  owned = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0]], bool)
  masks = evaluation.subsets(owned, rare=1)
  found = {tuple(m) for m in masks.astype(int)}
  fleet, all_on, alone = {(1, 0, 0), (1, 1, 0)}, {(1, 1, 1)}, {(0, 1, 0)}
  assert found == fleet | all_on | alone | {(1, 0, 1), (0, 1, 1)}
  assert len(masks) == 6
  # With one modality there is nothing to leave out.
  assert evaluation.subsets(np.ones((2, 1), bool), 0).tolist() == [[True]]


@functools.cache
def world():
  task = tiny.task('cnn')
  # 23 windows; a filled sensor delivers something that is not zero.
  population = tiny.population(task, samples=[5, 6, 7, 2, 3], fill=0.7)
  params = jax.tree.map(lambda v: 3 * v, tiny.init(task))
  masks = evaluation.subsets(np.asarray(population.fleet.owned), rare=2)
  return task, params, population.bank, masks


@functools.cache
def counter(fill, batch):
  task, *_ = world()
  return quick(
    lambda params, bank, masks: evaluation.confusions(
      task, params, {}, bank, masks, fill, batch
    )
  )


def predictions(task, params, bank, mask, fill):
  """[windows] classes, by filling or leaving out inputs before encoding."""
  windows = len(bank.y)
  features = {}
  for i, name in enumerate(task.modalities):
    x = bank.x[name]
    if not mask[i]:
      x = jnp.broadcast_to(bank.fill[name], x.shape)
    h = task.encode(params, {}, i, x, 0)
    features[name] = h if mask[i] or fill == 'input' else jnp.zeros_like(h)
    assert len(h) == windows
  run = jnp.ones(len(mask), bool) if fill == 'input' else jnp.asarray(mask)
  return task.fuse(params, {}, features, run).argmax(-1)


@pytest.mark.parametrize('fill', ['skip', 'input'])
def test_confusions_are_those_of_the_predictions(fill):
  task, params, bank, masks = world()
  counts = np.asarray(counter(fill, 8)(params, bank, masks))
  y = np.asarray(bank.y)
  every = quick(
    lambda params, bank: [
      predictions(task, params, bank, mask, fill) for mask in masks
    ]
  )(params, bank)
  assert len({tuple(np.asarray(g)) for g in every}) > 2  # subsets differ
  for found, guess in zip(counts, every, strict=True):
    np.testing.assert_array_equal(found, confusion(y, np.asarray(guess), 3))


@pytest.mark.parametrize('batch', [1, 23, 256])
def test_batches_and_their_padding_change_nothing(batch):
  _, params, bank, masks = world()
  counts = counter('skip', batch)(params, bank, masks)
  np.testing.assert_array_equal(counts, counter('skip', 8)(params, bank, masks))
  assert (counts.sum((1, 2)) == 23).all()


def test_labels_never_touch_the_predictions():
  _, params, bank, masks = world()
  shuffled = bank.replace(y=jnp.roll(bank.y, 5))
  counts = counter('skip', 8)
  before, after = (counts(params, b, masks) for b in (bank, shuffled))
  assert (before != after).any()
  # How often each class is predicted, and how often it is true.
  np.testing.assert_array_equal(before.sum(1), after.sum(1))
  np.testing.assert_array_equal(before.sum(2), after.sum(2))


NAMES = ('acc', 'gyro')
OWNED = np.array([[1, 0], [1, 0], [1, 1]], bool)
TIER = np.array([0, 0, 1])
MASKS = np.array([[0, 1], [1, 0], [1, 1]], bool)
GOOD, HALF, BAD = (
  np.array(c) for c in ([[2, 0], [0, 2]], [[2, 0], [1, 1]], [[0, 2], [2, 0]])
)
F1_HALF = (0.8 + 2 / 3) / 2


def test_report_by_hand():
  counts = np.stack([BAD, HALF, GOOD])  # gyro only, acc only, both
  found = evaluation.report(
    counts, MASKS, OWNED, TIER, 1, NAMES, ('low', 'high', 'none')
  )
  plain = {k: v for k, v in found.items() if isinstance(v, float)}
  assert plain == pytest.approx(
    {
      'f1': (2 * F1_HALF + 1) / 3,
      'accuracy': (0.75 + 0.75 + 1) / 3,
      'f1_all': 1,
      'f1_rare_owners': 1,
      'f1_rare_only': 0,
      'f1_without_rare': F1_HALF,
    }
  )
  assert found['f1_by_subset'] == pytest.approx(
    {'gyro': 0, 'acc': F1_HALF, 'acc+gyro': 1}
  )
  assert found['f1_by_tier'] == pytest.approx({'low': F1_HALF, 'high': 1})
  assert found['f1_by_class'] == [1, 1]


def test_report_of_personal_models_by_hand():
  """Each with its own sensors; rare figures over the rare one's owners."""
  nothing = np.zeros((2, 2), int)
  counts = np.array(
    [
      [nothing, GOOD, BAD],  # client 0 owns acc: good
      [nothing, BAD, GOOD],  # client 1 owns acc: bad
      [HALF, BAD, GOOD],  # client 2 owns both
    ]
  )
  found = evaluation.report(
    counts, MASKS, OWNED, TIER, 1, NAMES, ('low', 'high')
  )
  assert found['f1'] == found['f1_all'] == pytest.approx(2 / 3)
  assert found['accuracy'] == pytest.approx(2 / 3)
  assert found['f1_rare_owners'] == 1
  assert found['f1_rare_only'] == pytest.approx(F1_HALF)
  assert found['f1_without_rare'] == 0
  assert found['f1_by_tier'] == {'low': 0.5, 'high': 1}
  assert found['f1_by_subset'] == {'acc': 0.5, 'acc+gyro': 1}
  np.testing.assert_allclose(
    found['f1_by_class'], evaluation.class_f1(GOOD + BAD + GOOD)
  )
