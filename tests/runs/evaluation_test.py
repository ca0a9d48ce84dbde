"""Macro-F1 against scikit-learn, confusion matrices against predictions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from relief_jax.runs import evaluation, scores
from relief_jax.scoring import rules
from relief_jax.types import HeldOut
from tests.support import tiny


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
  np.testing.assert_allclose(rules.class_f1(found), every)
  np.testing.assert_allclose(rules.macro_f1(found), macro)


def test_f1_of_nothing_is_zero():
  assert rules.macro_f1(np.zeros((3, 3))) == 0


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
  return jax.jit(
    lambda params, bank, masks: evaluation.sums_of(
      task,
      params,
      {},
      HeldOut(bank, jnp.arange(len(bank.y)) % 2),
      evaluation.Scope(masks, masks[:, 0], 2, fill),
      masks,
      batch=batch,
    )
  )


def total(counts):
  """Over persons, [S, C, C]."""
  return np.asarray(counts).sum(1)


def logits(task, params, bank, mask, fill):
  """[windows, C] logits, by filling or leaving out inputs before encoding."""
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
  return task.fuse(params, {}, features, run)


@pytest.mark.parametrize('fill', ['skip', 'input'])
def test_confusions_are_those_of_the_predictions(fill):
  task, params, bank, masks = world()
  by_person, losses = map(np.asarray, counter(fill, 8)(params, bank, masks))
  counts = total(by_person)
  y = np.asarray(bank.y)
  every = jax.jit(
    lambda params, bank: [
      logits(task, params, bank, mask, fill) for mask in masks
    ]
  )(params, bank)
  differ = {tuple(np.asarray(found.argmax(-1))) for found in every}
  assert len(differ) > 2  # subsets do
  for found, told, one, loss in zip(
    counts, every, by_person, losses, strict=True
  ):
    guess = np.asarray(told.argmax(-1))
    lost = -np.asarray(jax.nn.log_softmax(told))[np.arange(len(y)), y]
    np.testing.assert_allclose(loss, [lost[::2].sum(), lost[1::2].sum()], 1e-5)
    np.testing.assert_array_equal(found, confusion(y, guess, 3))
    np.testing.assert_array_equal(one[1], confusion(y[1::2], guess[1::2], 3))


@pytest.mark.parametrize('batch', [1, 23, 256])
def test_batches_and_their_padding_change_nothing(batch):
  _, params, bank, masks = world()
  counts, loss = counter('skip', batch)(params, bank, masks)
  again, same = counter('skip', 8)(params, bank, masks)
  np.testing.assert_array_equal(counts, again)
  np.testing.assert_allclose(loss, same, rtol=1e-5)
  assert (total(counts).sum((1, 2)) == 23).all()


def test_labels_never_touch_the_predictions():
  _, params, bank, masks = world()
  shuffled = bank.replace(y=jnp.roll(bank.y, 5))
  counts = counter('skip', 8)
  before, after = (total(counts(params, b, masks)[0]) for b in (bank, shuffled))
  assert (before != after).any()
  # How often each class is predicted, and how often it is true.
  np.testing.assert_array_equal(before.sum(1), after.sum(1))
  np.testing.assert_array_equal(before.sum(2), after.sum(2))


NAMES = ('acc', 'gyro')
OWNED = np.array([[1, 0], [1, 0], [1, 1]], bool)
TIER = np.array([0, 0, 1])
SCOPE = evaluation.scope(OWNED, 1, 1, 'skip')  # gyro only, acc only, both
GOOD, HALF, BAD = (
  np.array(c) for c in ([[2, 0], [0, 2]], [[2, 0], [1, 1]], [[0, 2], [2, 0]])
)
F1_HALF = (0.8 + 2 / 3) / 2


def facts(persons=('7',), validation=(False,), tiers=('low', 'high', 'none')):
  return scores.Facts(
    OWNED, TIER, 1, NAMES, tiers, persons, np.array(validation), ('sit', 'walk')
  )


def test_scope_knows_the_fleets_sensor_sets():
  assert SCOPE.masks.tolist() == [[False, True], [True, False], [True, True]]
  assert SCOPE.of_fleet.tolist() == [False, True, True]


def test_report_by_hand():
  counts = np.stack([BAD, HALF, GOOD])[:, None]
  found = scores.report(evaluation.Counts(counts), SCOPE, facts()).record
  plain = {k: v for k, v in found.items() if isinstance(v, float)}
  mean = (2 * F1_HALF + 1) / 3
  assert plain == pytest.approx(
    {
      'f1': mean,
      'f1_global': mean,
      'accuracy': (0.75 + 0.75 + 1) / 3,
      'accuracy_global': (0.75 + 0.75 + 1) / 3,
      'f1_all': 1,
      'f1_rare_only': 0,
      'f1_without_rare': F1_HALF,
    }
  )
  assert found['f1_by_subset'] == pytest.approx({'acc': F1_HALF, 'acc+gyro': 1})
  assert found['f1_global_by_subset'] == pytest.approx(
    {'gyro': 0, 'acc': F1_HALF, 'acc+gyro': 1}
  )
  assert found['f1_by_tier'] == pytest.approx({'low': F1_HALF, 'high': 1})
  assert found['f1_by_person'] == pytest.approx({'7': mean})
  assert found['accuracy_by_tier'] == pytest.approx({'low': 0.75, 'high': 1})
  assert found['f1_by_class'] == {'sit': 1, 'walk': 1}


def test_report_of_held_models_and_persons_by_hand():
  """Device 0 holds a narrower model; person b is for validation."""
  whole = np.array([[BAD, BAD], [HALF, BAD], [GOOD, GOOD]])  # [S, Z]
  narrow = np.array([[GOOD, HALF], [BAD, BAD]])  # [S', Z]: acc, both
  counts = evaluation.Counts(whole, (), narrow[None], np.array([1, 0, 0]))
  found = scores.report(counts, SCOPE, facts(('a', 'b'), (False, True)))
  record = found.record
  np.testing.assert_allclose(found.devices['f1'], [1, F1_HALF, 1])
  assert record['f1'] == pytest.approx((2 + F1_HALF) / 3)
  assert record['f1_by_tier'] == pytest.approx(
    {'low': (1 + F1_HALF) / 2, 'high': 1}
  )
  assert record['f1_global'] == pytest.approx((2 * F1_HALF + 1) / 3)
  assert record['f1_global_by_tier'] == pytest.approx(
    {'low': F1_HALF, 'high': 1}
  )
  assert record['f1_validation'] == pytest.approx((F1_HALF + 0 + 1) / 3)
  assert list(record['f1_by_person']) == ['a']
  assert record['f1_rare_only'] == 0  # of the server's model


def test_loss_and_confusion_of_what_is_held():
  """Four windows a person; the loss of person b is no result."""
  whole = np.array([[BAD, BAD], [HALF, BAD], [GOOD, GOOD]])
  narrow = np.array([[GOOD, HALF], [BAD, BAD]])
  counts = evaluation.Counts(
    whole,
    (),
    narrow[None],
    np.array([1, 0, 0]),
    loss=np.array([[9, 9], [4, 9], [2, 9]]),
    submodel_loss=np.array([[[1, 9], [9, 9]]]),
  )
  found = scores.report(counts, SCOPE, facts(('a', 'b'), (False, True)))
  assert found.record['test_loss'] == pytest.approx((1 + 4 + 2) / 4 / 3)
  np.testing.assert_array_equal(found.confusion, GOOD)
  personal = evaluation.Counts(
    np.stack([whole, whole, whole]), loss=np.tile(counts.loss, (3, 1, 1))
  )
  found = scores.report(personal, SCOPE, facts(('a', 'b'), (False, True)))
  assert found.record['test_loss'] == pytest.approx((4 + 4 + 2) / 4 / 3)
  np.testing.assert_array_equal(found.confusion, 2 * HALF + GOOD)


def test_report_of_own_windows_by_hand():
  """Device 1 has none; the rare sensor's owner is device 2 alone."""
  own = np.zeros((3, 3, 2), int)
  own[0] = [[1, 1], [2, 1], [2, 1]]  # hits, predicted, true
  own[2] = [[2, 2], [2, 2], [2, 2]]
  counts = evaluation.Counts(np.stack([BAD, HALF, GOOD])[:, None], own=own)
  found = scores.report(counts, SCOPE, facts())
  first = (2 / 4 + 1) / 2
  np.testing.assert_allclose(found.devices['f1_own'], [first, np.nan, 1])
  np.testing.assert_allclose(
    found.devices['accuracy_own'], [2 / 3, np.nan, 1], rtol=1e-6
  )
  assert found.record['f1_own'] == pytest.approx((first + 1) / 2)
  assert found.record['f1_own_by_tier'] == {'low': first, 'high': 1}
  assert found.record['f1_own_rare_owners'] == 1


def test_report_of_personal_models_by_hand():
  """Each with its own sensors; rare figures over the rare one's owners."""
  nothing = np.zeros((2, 2), int)
  counts = np.array(
    [
      [nothing, GOOD, BAD],  # client 0 owns acc: good
      [nothing, BAD, GOOD],  # client 1 owns acc: bad
      [HALF, BAD, GOOD],  # client 2 owns both
    ]
  )[:, :, None]
  found = scores.report(
    evaluation.Counts(counts), SCOPE, facts(tiers=('low', 'high'))
  ).record
  assert found['f1'] == found['f1_all'] == pytest.approx(2 / 3)
  assert found['accuracy'] == pytest.approx(2 / 3)
  assert found['f1_rare_only'] == pytest.approx(F1_HALF)
  assert found['f1_without_rare'] == 0
  assert found['f1_by_tier'] == {'low': 0.5, 'high': 1}
  assert found['f1_by_subset'] == {'acc': 0.5, 'acc+gyro': 1}
  assert 'f1_global' not in found  # there is no server's model
  np.testing.assert_allclose(
    [*found['f1_by_class'].values()], rules.class_f1(GOOD + BAD + GOOD)
  )
