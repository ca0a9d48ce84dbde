"""The attention that may replace the sum over modalities."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import tree
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.config.validation import validate
from relief_jax.errors import InputError
from relief_jax.models import attention
from relief_jax.simulate import Simulation
from tests.support import tiny

OPTIONS = {'fusion': 'attention', 'heads': 3}


def test_weights_add_up_over_those_that_run():
  score = jax.random.normal(jax.random.key(0), (3, 5, 2))
  for run in ([1, 1, 1], [1, 0, 1], [0, 1, 0]):
    found = attention.weights(score, jnp.array(run, bool))
    np.testing.assert_allclose(found.sum(0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal((found > 0).all((1, 2)), run)
    alone = jax.nn.softmax(score[np.array(run, bool)], 0)
    np.testing.assert_allclose(found[np.array(run, bool)], alone, rtol=1e-5)
  # A score that nothing else is near, on a sensor that is away.
  far = attention.weights(score.at[1].set(1e8), jnp.array([1, 0, 1], bool))
  np.testing.assert_allclose(far.sum(0), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(
    attention.weights(score, jnp.zeros(3, bool)), 0.0
  )


def test_without_queries_it_is_the_mean_of_what_runs():
  p = jax.random.normal(jax.random.key(0), (3, 5, 6))
  found = attention.pool(jnp.zeros((6, 3)), p, jnp.array([1, 0, 1], bool))
  np.testing.assert_allclose(found, (p[0] + p[2]) / 2, rtol=1e-5)


def test_heads_share_the_units_out():
  """A head that listens to one modality alone; the other hears both."""
  p = jnp.stack([jnp.full((1, 4), 1.0), jnp.full((1, 4), -1.0)])
  query = jnp.zeros((4, 2)).at[:, 0].set(50.0)
  found = attention.pool(query, p, jnp.ones(2, bool))
  np.testing.assert_allclose(found, [[1, 1, 0, 0]], atol=1e-6)


@functools.cache
def step():
  """(params, run, branch) -> gradients and logits."""
  task = tiny.task(**OPTIONS)
  population = tiny.population(task, clients=3)
  batch = Batch(population.bank, jnp.array([0, 1, 5]), jnp.ones(3))
  train = jnp.ones(task.num_blocks, bool)

  @jax.jit
  def both(params, run):
    def loss(params):
      gate = Gate(run, None, train)
      scores = training.logits(task, params, {}, batch, gate)
      y = population.bank.y[batch.row]
      return training.cross_entropy(scores, y, batch.weight), scores

    return jax.grad(loss, has_aux=True)(params)

  params = tiny.init(task)
  key = jax.random.key(1)
  params['attention'] = jax.random.normal(key, params['attention'].shape)
  return task, params, both


@pytest.mark.slow
@pytest.mark.parametrize('run', [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 0)])
def test_what_is_away_gets_no_gradient(run):
  task, params, both = step()
  grads, scores = both(params, jnp.array(run, bool))
  chex.assert_tree_all_finite((grads, scores))
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  for g, m in enumerate(task.blocks.modality):
    if m >= 0 and not run[m]:
      assert sq[g] == 0, task.blocks.name[g]
    elif all(run):
      assert sq[g] > 0, task.blocks.name[g]
  # With one modality there is nothing to weigh.
  moved = float(jnp.abs(grads['attention']).max())
  assert moved < 1e-6 if sum(run) < 2 else moved > 1e-4


@pytest.mark.slow
def test_relief_with_attention_learns():
  """The shared group holds the queries, so that all of them move."""
  task = tiny.task(**OPTIONS)
  population = tiny.population(task)
  setting = tiny.setting(population, 'relief', steps=4)
  runs = tiny.run('relief', task, population, setting, 6)
  states, infos = zip(*runs, strict=True)
  assert infos[-1].loss.mean() < 0.9 * infos[0].loss.mean()
  # Of so few units those of one head may all be dead.
  moved = (states[-1].params['attention'] != 0).any(0)
  assert moved.sum() >= 2
  size = np.asarray(task.work.size)
  assert size[-1] == 6 + 6 * 3 + 6 * 3 + 3  # bias, queries, head
  np.testing.assert_allclose(infos[0].upload, infos[0].trained @ (4 * size))


def test_what_does_not_go_together_is_refused():
  choices = {'model.fusion': 'attention', 'model.heads': 3}
  for overrides, match in (
    ({'backbone': 'lora'}, 'backbone=cnn'),
    ({'fusion_norm': True}, 'fusion_norm=False'),
    ({'model.heads': 4}, 'hidden=8'),
    ({'method': 'heterofl'}, 'fusion=concat'),
    ({'method': 'fiarse'}, 'fusion=concat'),
  ):
    with pytest.raises(InputError, match=match):
      Simulation(tiny.config(**{**choices, **overrides}))
  with pytest.raises(InputError, match='model.fusion'):
    validate(tiny.config(**{'model.fusion': 'sum'}))
