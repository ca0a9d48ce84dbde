"""Losses, sums and metrics of tokens and numbers, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from relief_jax.errors import InputError
from relief_jax.models import criteria
from relief_jax.scoring import metrics, sums, targets

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(4, 3, 5)), jnp.float32)
TOKENS = jnp.array([[1, 2, -1], [0, -1, -1], [4, 4, 3], [2, 2, 2]])
WEIGHT = jnp.array([1.0, 0.5, 0.0, 2.0])


def token_losses():
  """[4, 3] nats, NaN where no token is."""
  each = -np.take_along_axis(
    np.asarray(jax.nn.log_softmax(LOGITS)),
    np.maximum(TOKENS, 0)[..., None],
    -1,
  )[..., 0]
  return np.where(np.asarray(TOKENS) < 0, np.nan, each)


def test_next_token_is_the_weighted_mean_over_real_tokens():
  each, weight = token_losses(), np.asarray(WEIGHT)[:, None]
  real = ~np.isnan(each)
  want = np.nansum(weight * each) / (weight * real).sum()
  found = criteria.next_token(LOGITS, TOKENS, WEIGHT)
  np.testing.assert_allclose(found, want, rtol=1e-6)
  grads = jax.grad(criteria.next_token)(LOGITS, TOKENS, WEIGHT)
  moved = (np.asarray(grads) != 0).any(-1)
  np.testing.assert_array_equal(moved, real & (weight > 0))


def test_squared_error_is_scikit_learns():
  output, y = RNG.normal(size=(2, 6, 3))
  weight = RNG.random(6)
  found = criteria.squared_error(*map(jnp.asarray, (output, y, weight)))
  want = reference.mean_squared_error(y, output, sample_weight=weight)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def added(kind, output, y, place, weight):
  one = sums.SUMS[kind]
  reading = one.read(output, y)
  start = one.persons.zeros(2, output.shape[-1])
  return np.asarray(one.persons.add(start, place, reading, y, weight))


def test_perplexity_and_accuracy_of_tokens():
  place, weight = jnp.array([0, 1, 1, 0]), jnp.array([1, 1, 1, 0])
  found = added(targets.TOKENS, LOGITS, TOKENS, place, weight)
  each = token_losses()
  want = [np.exp(np.nanmean(each[:1])), np.exp(np.nanmean(each[1:3]))]
  np.testing.assert_allclose(sums.perplexity(found), want, rtol=1e-5)
  guess = np.asarray(LOGITS.argmax(-1))
  right = (guess == np.asarray(TOKENS))[1:3].sum()
  np.testing.assert_array_equal(found[1, 1:], [right, 4])


def test_rmse_is_scikit_learns():
  output, y = jnp.asarray(RNG.normal(size=(2, 4, 3)), jnp.float32)
  place, weight = jnp.array([0, 1, 1, 0]), jnp.array([1, 1, 1, 0])
  found = sums.rmse(added(targets.NUMBERS, output, y, place, weight))
  want = np.sqrt(reference.mean_squared_error(y[1:3], output[1:3]))
  np.testing.assert_allclose(found[1], want, rtol=1e-5)


def test_nothing_to_score_is_no_number():
  assert np.isnan(sums.perplexity(np.zeros(3)))
  assert np.isnan(sums.rmse(np.zeros(2)))


def test_a_metric_knows_its_direction():
  assert metrics.F1.best((0.2, 0.3)) == 0.3
  assert metrics.RMSE.best((0.2, 0.3)) == 0.2
  assert metrics.PERPLEXITY.reached(3.0, 4.0)
  assert not metrics.PERPLEXITY.reached(5.0, 4.0)
  assert metrics.of({'perplexity': 2.0, 'test_loss': 1.0}).name == 'perplexity'


@pytest.mark.parametrize(
  'loss, kind, text',
  [
    ('softmax', 'tokens', "'next_token'"),
    ('next_token', 'classes', "'softmax' or 'sigmoid'"),
    ('squared_error', 'classes', 'of numbers, for data whose targets are'),
    ('hinge', 'classes', 'unknown loss'),
  ],
)
def test_a_loss_of_other_targets_is_refused(loss, kind, text):
  with pytest.raises(InputError, match=text):
    criteria.find(loss, kind)


def test_the_usual_losses():
  for kind in metrics.OF:
    assert criteria.find('', kind).targets == kind
  assert criteria.find('').targets == 'classes'
