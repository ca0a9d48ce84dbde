"""Noise in updates: how much, where, from which key, and none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.aggregation.mean import masked_mean
from relief_jax.settings import Guard, Setting
from relief_jax.updates import link, noise, stack
from tests.support import tiny
from tests.support.handmade import (
  ENCODER,
  HEAD,
  TASK,
  device,
  flat,
  same,
  update,
)

CLIP, MULTIPLIER = 0.5, 1.5
HPARAMS = {
  'clip_norm': jnp.float32(CLIP),
  'noise_multiplier': jnp.float32(MULTIPLIER),
}
KEY, OTHER = jax.random.key(1), jax.random.key(2)
# The blocks of `handmade`, long enough to measure.
NOTHING = {
  'encoder': {'w': jnp.zeros(6000), 'b': jnp.zeros(6000)},
  'head': jnp.zeros(6000),
}


def spread(found):
  """Deviation of the numbers of each block."""
  return {name: np.std(flat(part)) for name, part in found.items()}


def sent(key, delta=NOTHING, number=0, blocks=(ENCODER, HEAD), **guard):
  """The update that arrives from a device, P."""
  setting = Setting(guard=Guard(clip=True, noise='device', **guard))
  chain = stack.stack(setting, link.make(setting))
  found = update(delta, blocks)
  facts = device(number, hparams=HPARAMS)
  return chain.update(found, chain.init(delta), facts, key)[0].delta


def test_a_device_adds_noise_to_what_it_trained():
  found = spread(sent(KEY))
  np.testing.assert_allclose([*found.values()], MULTIPLIER * CLIP, rtol=0.03)
  one = sent(KEY, blocks=(HEAD,))
  same(one['encoder'], NOTHING['encoder'])
  assert (flat(one['head']) != 0).all()


def test_noise_comes_after_the_clip_and_follows_its_keys():
  delta = jax.tree.map(lambda v: v + 1, NOTHING)
  norm = np.linalg.norm(flat(delta))
  one, pure = flat(sent(KEY, delta)), flat(sent(KEY))
  np.testing.assert_allclose(one - pure, CLIP / norm, rtol=0, atol=1e-5)
  np.testing.assert_array_equal(one, flat(sent(KEY, delta)))
  for other in (sent(KEY, delta, number=1), sent(OTHER, delta)):
    assert (flat(other) != one).mean() > 0.99


def averaged(weight, mask):
  """The mean of updates of nothing, with the server's noise, P."""
  mean = masked_mean(TASK).server(
    (NOTHING, jnp.zeros(2), None), (), weight, mask
  )
  return noise.on_mean(KEY, HPARAMS, TASK, mean.delta, mean.touched, weight)


@pytest.mark.parametrize('weight', [1, 3])
def test_the_server_adds_noise_to_sums_so_a_rare_block_has_most(weight):
  """Five devices count for the head, two for the encoder.

  A larger weight lets a device move the sum further.
  """
  counted = jnp.zeros((5, 2)).at[:, HEAD].set(1).at[:2, ENCODER].set(1)
  found = spread(averaged(weight * counted, counted > 0))
  assert found['head'] == pytest.approx(MULTIPLIER * CLIP / 5, rel=0.03)
  assert found['encoder'] == pytest.approx(MULTIPLIER * CLIP / 2, rel=0.03)


def test_a_block_that_nobody_trained_stays_as_it_is():
  weight = jnp.ones((5, 2))
  found = averaged(weight, (weight > 0).at[:, ENCODER].set(False))
  same(found['encoder'], NOTHING['encoder'])
  assert (flat(found['head']) != 0).all()


@pytest.mark.parametrize('where', ['device', 'server'])
@pytest.mark.slow
def test_noise_in_a_round_by_its_formula(where):
  """Over rounds from one state: deviation by block, none where it is 0."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(4,))
  owned = np.array([[1, 1]] * 2 + [[1, 0]] * 3, bool)
  population = tiny.population(task, owned=owned)

  def after(guard, key=0, **values):
    made = tiny.setting(population, 'cohort_mean', guard=guard, **values)
    one = tiny.compiled('cohort_mean', task, made)
    state = tiny.start('cohort_mean', task, made)
    # The same batches in every round: only the messages' key differs.
    return one(jax.random.key(key), state, population, made.hparams)[0].params

  clip = {'clip_norm': 1e-6}  # the noise alone is left
  noisy = Guard(clip=True, noise=where)
  values = clip | {'noise_multiplier': 1e6}
  start = tiny.init(task)
  found = [
    jax.tree.map(jnp.subtract, after(noisy, key, **values), start)
    for key in range(12)
  ]
  parts = {'gyro': [], 'acc': []}
  for one in found:
    for path, leaf in jax.tree_util.tree_leaves_with_path(one):
      name = jax.tree_util.keystr(path)
      if 'encoders' in name or 'acc' in name or 'gyro' in name:
        owner = 'gyro' if 'gyro' in name else 'acc'
        parts[owner].append(np.ravel(leaf))
  root = np.sqrt if where == 'device' else np.asarray
  for owner, count in (('gyro', 2), ('acc', 5)):
    size = np.concatenate(parts[owner]).std()
    assert size == pytest.approx(1 / root(count), rel=0.1), owner
  # The same key again: the same bits. No noise: those of a run without.
  same(after(noisy, 3, **values), jax.tree.map(jnp.add, start, found[3]))
  same(
    after(noisy, **clip, noise_multiplier=0.0), after(Guard(clip=True), **clip)
  )
