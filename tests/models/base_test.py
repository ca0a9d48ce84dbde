"""The frozen base of LoRA: how it is trained, and what it is worth."""

import chex
import jax
import jax.numpy as jnp
import pytest

from relief_jax import world
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.config import validation
from relief_jax.errors import InputError
from relief_jax.models import lora
from relief_jax.world import base as base_lib
from tests.support import tiny


def loss(dropout, sensors):
  """Of a base with its own head on its own windows, by the sensors that run."""
  spec = tiny.spec(base_head=True)
  task = tiny.task('lora', base_head=True)
  bank = tiny.population(tiny.task(), clients=6).bank
  base = world.pretrain(jax.random.key(0), spec, bank, 150, dropout)
  batch = Batch(bank, jnp.arange(bank.y.size), jnp.ones(bank.y.size))
  gate = Gate(jnp.array(sensors), None, jnp.zeros(task.num_blocks, bool))
  scores = training.logits(task, tiny.init(task), base, batch, gate)
  return float(training.cross_entropy(scores, bank.y, batch.weight))


@pytest.mark.slow
def test_a_base_with_its_head_knows_the_classes():
  assert loss(0.0, [True] * 3) < 0.5 * float(jnp.log(3))


@pytest.mark.slow
def test_dropout_makes_a_base_for_devices_with_one_sensor():
  alone = [True, False, False]
  assert loss(0.5, alone) < loss(0.0, alone)


@pytest.mark.slow
def test_a_base_without_a_head_is_the_same():
  bank = tiny.population(tiny.task(), clients=3).bank
  bases = [
    world.pretrain(jax.random.key(0), spec, bank, 3, 0.5)
    for spec in (tiny.spec(), tiny.spec(base_head=True))
  ]
  assert 'head' not in bases[0]
  found = {k: bases[1][k] for k in bases[0]}
  chex.assert_trees_all_close(bases[0], found, rtol=1e-4, atol=1e-6)
  assert set(bases[1]) == set(lora.freeze(bases[1], True))


@pytest.mark.slow
def test_a_transformers_base_is_trained_once(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  small = dict(d=8, blocks=1, attention_heads=2, patch=4, base_head=True)
  spec = tiny.spec(**small, lora=('q',))
  task = tiny.task('transformer', **small, lora=('q',))
  bank = tiny.population(task, clients=6).bank
  given = jax.random.key(0), 'transformer', spec, bank, 60, 0.0
  first = base_lib.kept(*given)
  (copy,) = tmp_path.rglob('base-*.npz')
  written = copy.stat().st_mtime_ns
  other_rank = spec._replace(rank=3, lora=('v',))
  again = base_lib.kept(*given[:2], other_rank, *given[3:])
  chex.assert_trees_all_equal(first, again)
  assert copy.stat().st_mtime_ns == written
  base_lib.kept(jax.random.key(1), *given[1:])
  assert len(list(tmp_path.rglob('base-*.npz'))) == 2
  # Adapters and the added head are zero at first: it knows the classes.
  batch = Batch(bank, jnp.arange(bank.y.size), jnp.ones(bank.y.size))
  gate = Gate(jnp.ones(3, bool), None, jnp.zeros(task.num_blocks, bool))
  scores = training.logits(task, tiny.init(task), first, batch, gate)
  value = training.cross_entropy(scores, bank.y, batch.weight)
  assert value < 0.7 * jnp.log(3)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'model.base': 'random', 'model.base_head': True}, 'base=pretrained'),
    ({'model.base_dropout': 1.0}, 'base_dropout is 1.0'),
    ({'model.lora': ('q',)}, 'backbone=transformer'),
    ({'backbone': 'char_mlp', 'model.lora': ('q',)}, 'backbone=transformer'),
    ({'model.weights': 'a.safetensors'}, 'backbone=transformer'),
    ({'model.transformer.preset': 'huge'}, 'transformer.preset'),
    ({'depthfl.fade': 300.0}, 'depthfl.fade is 300'),
    ({'centralized.sensors': 'some'}, 'centralized.sensors'),
  ],
)
def test_options_out_of_range(given, message):
  with pytest.raises(InputError, match=message):
    validation.validate(tiny.config(**{'backbone': 'lora', **given}))
