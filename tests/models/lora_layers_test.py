"""Adapters of users' models: zero at first, and all that moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relief_jax import costs, models
from relief_jax.errors import InputError
from relief_jax.models import lora_layers
from tests.support import tiny

SPEC = tiny.spec()


class Head(nnx.Module):
  """A linear layer of all features."""

  def __init__(self, rngs):
    self.out = nnx.Linear(15, SPEC.classes, rngs=rngs)

  def __call__(self, features):
    return self.out(jnp.concatenate(list(features.values()), -1))


def stages(channels):
  return [
    lambda x: x.mean(1),
    functools.partial(nnx.Linear, channels, 6),
    nnx.relu,
    functools.partial(nnx.Linear, 6, 5),
  ]


@functools.cache
def made(**options):
  chains = {
    m: stages(c) for m, c in zip(SPEC.modalities, SPEC.channels, strict=True)
  }
  own = models.Adapters(rank=2, train='head', **options) if options else ()
  task = models.from_flax(chains, SPEC, head=Head, frozen=own)
  tiny._made[id(task)] = task, 'cnn', SPEC
  return task


def logits(task, params, frozen):
  x = tiny.population(task).bank.x
  found = {
    m: task.encode(params, frozen, i, x[m], 0)
    for i, m in enumerate(task.modalities)
  }
  return task.fuse(params, frozen, found, jnp.ones(3, bool))


@pytest.mark.slow
def test_adapters_of_a_users_model():
  task, full = made(layers='*kernel', alpha=4.0), made()
  key = jax.random.key(0)
  params, base, every = task.init(key), task.base(key), full.init(key)
  assert {p.rpartition('/')[2] for p in params} == {
    'kernel_lora_a', 'kernel_lora_b', 'kernel', 'bias'
  }  # fmt: skip
  assert set(base) == {p for p in every if not p.startswith('head')}
  np.testing.assert_array_equal(
    logits(task, params, base), logits(full, every, {})
  )
  low = {p: v + 0.1 for p, v in params.items() if 'lora' in p}
  params |= low
  for path in every:
    if path + '_lora_a' in low:
      product = low[path + '_lora_a'] @ low[path + '_lora_b']
      every[path] = every[path] + 2.0 * product
  np.testing.assert_allclose(
    logits(task, params, base), logits(full, every, {}), atol=1e-5
  )
  # The blocks are the stages', and smaller.
  assert task.blocks.name == full.blocks.name
  assert (task.work.size[:-1] < full.work.size[:-1]).all()
  every = jnp.ones(task.num_blocks, bool)
  run = jnp.ones(3, bool)
  assert costs.step_flops(task.work, run, every) > 0


@pytest.mark.slow
def test_they_train():
  task = made(layers=('*/1/kernel',))
  population = tiny.population(task)
  base = task.base(jax.random.key(0))
  assert jax.tree.structure(population.frozen) == jax.tree.structure(base)
  setting = tiny.setting(population, 'cohort_mean')
  start = tiny.init(task)
  state, info = tiny.step('cohort_mean', task, population, setting, 2)
  moved = {p for p in start if np.any(start[p] != state.params[p])}
  assert moved == set(start)
  assert all('/1/' in p or p.startswith('head') for p in start)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'layers': 'nothing'}, "pattern 'nothing' of adapters"),
    ({'layers': '*bias'}, 'no matrix that is frozen'),
    ({'layers': 'head'}, 'no matrix that is frozen'),
  ],
)
def test_patterns_that_fit_no_matrix(options, message):
  with pytest.raises(InputError, match=message):
    made(**options)


def test_patterns_of_the_transformers_layers():
  paths = ('embed', *(f'blocks/{i}/{n}' for i in range(2) for n in ('q', 'up')))
  assert lora_layers.chosen(paths, ['all']) == paths
  assert lora_layers.chosen(paths, ['blocks/1/*', 'embed']) == (
    'embed', 'blocks/1/q', 'blocks/1/up'
  )  # fmt: skip
  with pytest.raises(InputError, match='one of embed, q, up'):
    lora_layers.chosen(paths, ['q', 'value'])
