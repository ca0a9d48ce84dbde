"""The transformer in two parts, at every point between its layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, models
from relief_jax.budgets import cuts
from relief_jax.models import counting, encoders

SPEC = encoders.Spec(
  ('acc', 'gyro'), (3, 2), 16, 4, d=8, blocks=2, attention_heads=2, patch=4
)
LORA = SPEC._replace(lora=('blocks/*/q', 'blocks/*/v'), rank=2)
BATCH = 3


@functools.cache
def made(lora):
  spec = LORA if lora else SPEC
  task = models.MODELS['transformer'](spec)
  task = task._replace(memory=counting.memory(task, spec.example))
  return task, cuts.required(task, 'psl')


@pytest.mark.parametrize(
  'lora', [pytest.param(False, marks=pytest.mark.slow), True]
)
@pytest.mark.parametrize(
  'run', [pytest.param((True, True), marks=pytest.mark.slow), (False, True)]
)
def test_both_parts_are_the_model(lora, run):
  task, points = made(lora)
  run = jnp.array(run)
  params = jax.tree.map(lambda v: v + 0.01, task.init(jax.random.key(0)))
  frozen = task.base(jax.random.key(1)) if task.base else {}
  inputs = [
    jax.random.normal(jax.random.key(m), (BATCH, 16, c))
    for m, c in enumerate(SPEC.channels)
  ]
  features = {
    m: jax.tree.map(
      lambda v, on=run[i]: jnp.where(on, v, 0),
      task.encode(params, frozen, i, inputs[i], 0),
    )
    for i, m in enumerate(task.modalities)
  }
  want = task.fuse(params, frozen, features, run, None)
  for s in range(len(points.layers)):
    z = points.front(s, params, frozen, inputs, run)
    found = points.back(s, params, frozen, z, run)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)


def test_the_embeddings_are_the_first_layer_and_each_block_one_more():
  task, points = made(False)
  assert points.layers == (0, 1, 2, 3, 4)
  names = np.array(task.blocks.name)
  held = [set(names[np.array(h)]) for h in points.held]
  embeddings = {'embed/acc', 'embed/gyro'}
  assert held[:2] == [set(), embeddings]
  assert held[2:] == [
    embeddings | {'block0'},
    embeddings | {'block0', 'block1'},
    set(names),
  ]
  # Inputs, then tokens: 4 of a window, of d numbers each.
  assert points.sent[0] == (4.0 * 16 * 3, 4.0 * 16 * 2)
  assert set(points.sent[1:-1]) == {(4.0 * 4 * 8,) * 2}


@pytest.mark.parametrize(
  'lora', [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_deeper_part_costs_more_and_the_last_one_all(lora):
  task, points = made(lora)
  run = jnp.ones((1, 2), bool)
  flops = [
    float(costs.step_flops(w, run, jnp.array(h)[None])[0])
    for w, h in zip(points.work, points.held, strict=True)
  ]
  assert flops[0] == 0 and (np.diff(flops) > 0).all()
  every = jnp.ones((1, task.num_blocks), bool)
  assert flops[-1] == float(costs.step_flops(task.work, run, every)[0])
  kept = [float(np.sum(m.kept)) + float(m.fixed) for m in points.memory]
  assert kept[0] == 0 and (np.diff(kept) >= 0).all()


def test_the_worked_example_of_what_crosses():
  """32 tokens of 64 numbers, batches of 16: 131,072 bytes a step."""
  spec = encoders.Spec(
    ('a', 'b', 'c', 'd'), (3,) * 4, 128, 4, patch=16, blocks=1
  )
  points = cuts.required(models.MODELS['transformer'](spec), 'psl')
  assert 16 * sum(points.sent[1]) == 131072
