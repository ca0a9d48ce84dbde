"""The transformer: what it computes, what it leaves out, what it costs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, models, tree
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.errors import InputError
from relief_jax.models import (
  counting,
  jaxprs,
  transformer,
  transformer_forward,
)
from relief_jax.models.encoders import Spec
from relief_jax.scoring import targets
from relief_jax.task import Skip
from tests.support import tiny

SMALL = dict(d=8, blocks=2, attention_heads=2, patch=4)
LORA = ('embed', 'q', 'v')
BATCH = 6
KINDS = {
  'full': {},
  'layer': {'groups': 'layer'},
  'lora': {'lora': LORA},
  'lora of one block': {'lora': ('blocks/1/up',)},
}


def task_of(kind='full', **overrides):
  return tiny.task('transformer', **SMALL, **KINDS[kind], **overrides)


def moved(tree, seed=0, scale=0.3):
  """Parameters away from their zeros and ones."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda v: v + scale * rng.normal(size=v.shape).astype(np.float32), tree
  )


@functools.cache
def made(kind='full'):
  """A task, its parameters, its base, and windows."""
  task = task_of(kind)
  params = moved(tiny.init(task))
  frozen = task.base(jax.random.key(5)) if task.base else {}
  x = tiny.population(task).bank.x
  return task, params, frozen, {m: v[:BATCH] for m, v in x.items()}


def features_of(task, params, frozen, x):
  return {
    m: task.encode(params, frozen, task.modalities.index(m), v, 0)
    for m, v in x.items()
  }


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['lora', 'full'])
def test_an_absent_sensor_is_not_there(kind):
  task, params, frozen, x = made(kind)

  @jax.jit
  def every_way(params, frozen, x):
    both = {m: x[m] for m in ('acc', 'mag')}
    two = features_of(task, params, frozen, both)
    every = features_of(task, params, frozen, x)
    run = jnp.array([True, False, True])
    train = jnp.ones(task.num_blocks, bool)
    lost = {**every, 'gyro': jax.tree.map(jnp.zeros_like, every['gyro'])}
    return (
      task.fuse(params, frozen, two, run),
      task.fuse(params, frozen, every, run),
      task.fuse(params, frozen, lost, jnp.ones(3, bool)),
      task.fuse(params, frozen, every, run, Skip(train, 2)),
    )

  first, *others = every_way(params, frozen, x)
  assert np.std(first) > 0.01
  for other in others:
    np.testing.assert_allclose(other, first, atol=2e-6)


def test_tokens_that_fill_up_a_text_are_not_there():
  """A text is the same however long it is filled up."""
  spec = Spec(('text',), (1,), 8, 3, inputs=((8,),), vocabulary=5, **SMALL)
  short = spec._replace(width=5, inputs=((5,),))
  long, task = transformer.transformer(spec), transformer.transformer(short)
  params = moved(long.init(jax.random.key(0)))
  assert params['embed']['text']['w'].shape == (5, 8)
  cut = jax.tree.map(lambda v: v, params)
  cut['embed']['text']['position'] = params['embed']['text']['position'][:5]
  x = np.array([[1, 2, 0, 4, 3], [4, 0, -1, -1, -1]])
  filled = np.pad(x, ((0, 0), (0, 3)), constant_values=-1)

  def logits(task, params, x):
    features = features_of(task, params, {}, {'text': jnp.asarray(x)})
    return task.fuse(params, {}, features, jnp.ones(1, bool))

  want = jax.jit(functools.partial(logits, task))(cut, x)
  found = jax.jit(functools.partial(logits, long))(params, filled)
  np.testing.assert_allclose(found, want, atol=2e-6)
  assert np.abs(want[0] - want[1]).max() > 1e-2


@pytest.mark.slow
def test_a_sensor_that_one_window_lacks_is_not_there():
  task, params, frozen, x = made()
  every = features_of(task, params, frozen, x)
  there = np.ones(BATCH, bool)
  there[2] = False
  every['gyro'] = jax.tree.map(
    lambda h: jnp.where(tree.along(there, h), h, 0.0), every['gyro']
  )
  whole, without = (
    task.fuse(params, frozen, every, jnp.array(run))
    for run in ([True] * 3, [True, False, True])
  )
  np.testing.assert_allclose(whole[2], without[2], atol=2e-6)
  assert np.abs(whole[3] - without[3]).max() > 1e-3


@functools.cache
def gradients(kind):
  """(gate, branch, length) -> gradient of the loss; the gate is traced."""
  task, params, frozen, x = made(kind)
  bank = tiny.population(task).bank

  def loss(params, frozen, run, train, weight, branch, length):
    batch = Batch(bank, jnp.arange(BATCH), weight)
    gate = Gate(run, None, train)
    scores = training.logits(
      task, params, frozen, batch, gate, branch, length=length
    )
    return training.cross_entropy(scores, bank.y[:BATCH], weight)

  @functools.partial(jax.jit, static_argnums=(3, 4))
  def gradient(run, train, weight, branch=True, length=None):
    return jax.value_and_grad(loss)(
      params, frozen, run, train, weight, branch, length
    )

  return task, gradient


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_what_is_skipped_is_a_gradient_that_nobody_asked_for(kind):
  task, gradient = gradients(kind)
  run, weight = jnp.array([True, True, False]), jnp.ones(BATCH)
  rng = np.random.default_rng(1)
  reach = np.array([m != 2 for m in task.blocks.modality])
  sets = [reach & (rng.random(reach.size) < 0.4) for _ in range(4)]
  for train in (*np.eye(reach.size, dtype=bool)[reach], *sets):
    masked, whole = gradient(run, train, weight, False)
    mask = tree.broadcast_groups(task.groups, jnp.asarray(train))
    for length in (None, 2):
      value, found = gradient(run, train, weight, True, length)
      np.testing.assert_allclose(value, masked, rtol=1e-5)
      chex.assert_trees_all_close(
        tree.scale(jax.tree.map(jnp.float32, mask), found),
        tree.scale(jax.tree.map(jnp.float32, mask), whole),
        rtol=1e-4,
        atol=1e-6,
      )


def test_only_sensors_of_as_many_tokens_have_shorter_programs():
  for spec, skips in (
    (tiny.spec(), (1, 2, 3)),  # three windows
    (
      tiny.spec(modalities=('camera', 'acc'), inputs=((8, 8, 1), (20, 3))),
      (2,),
    ),
  ):
    assert transformer.transformer(spec._replace(patch=4)).skips == skips


def test_the_backward_pass_ends_at_the_lowest_trained_block():
  task, gradient = gradients('full')
  head = np.array([n == 'head' for n in task.blocks.name])
  _, found = gradient(jnp.ones(3, bool), head, jnp.ones(BATCH))
  assert (
    jax.tree.reduce(max, jax.tree.map(lambda g: abs(g).max(), found['head']))
    > 0
  )
  for part in ('embed', 'blocks'):
    for leaf in jax.tree.leaves(found[part]):
      assert not leaf.any()


def test_padding_has_no_part_in_the_gradient():
  task, gradient = gradients('full')
  every = jnp.ones(task.num_blocks, bool)
  bank = tiny.population(task).bank
  weight = jnp.ones(BATCH).at[-2:].set(0.0)
  value, found = gradient(jnp.ones(3, bool), every, weight)
  x = {m: v[: BATCH - 2] for m, v in bank.x.items()}
  _, params, frozen, _ = made()

  def loss(params):
    scores = task.fuse(
      params, frozen, features_of(task, params, frozen, x), jnp.ones(3, bool)
    )
    kept = bank.y[: BATCH - 2]
    return training.cross_entropy(scores, kept, jnp.ones(BATCH - 2))

  want, alone = jax.jit(jax.value_and_grad(loss))(params)
  np.testing.assert_allclose(value, want, rtol=1e-5)
  chex.assert_trees_all_close(found, alone, rtol=1e-4, atol=1e-6)


# Name: parameters and products' FLOPs of a block, of methods-2's table.
TABLE = {
  'tiny': (12_704, 16, 0.43e6),
  'sensor': (49_984, 32, 3.4e6),
  'char': (49_984, 64, 7.3e6),
  'char_long': (111_840, 80, 20e6),
}


def counted(spec):
  """The counter's word on a model, of its own program."""
  task = transformer.transformer(spec)
  key = jax.random.key(0)

  def loss(params, frozen, values):
    x = dict(zip(spec.modalities, values, strict=True))
    scores = task.fuse(
      params, frozen, features_of(task, params, frozen, x),
      jnp.ones(len(values), bool),
    )  # fmt: skip
    y, weight = targets.zeros(task.targets, scores), jnp.ones(32)
    return training.criterion(task)(scores, y, weight)

  shapes = [counting.batch_of(v) for v in spec.example.values()]
  params = jax.eval_shape(task.init, key)
  frozen = jax.eval_shape(task.base, key) if task.base else {}
  groups, num = task.groups, task.num_blocks
  return task, counting.count(loss, params, frozen, shapes, groups, num)


@pytest.mark.parametrize('name', TABLE)
def test_a_block_is_that_of_the_table(name):
  size, tokens, flops = TABLE[name]
  preset = transformer.PRESETS[name]
  d, heads = preset.d, preset.heads
  one = transformer_forward._init_block(jax.random.key(0), d)
  assert sum(v.size for v in jax.tree.leaves(one)) == size
  assert size == 12 * d * d + 13 * d
  spec = Spec(('a',), (1,), 8, 2, d=d, attention_heads=heads)
  bias = jnp.zeros((1, 1, 1, 1))
  block = functools.partial(
    transformer_forward._block,
    functools.partial(
      transformer_forward._attended, spec, None, bias, 1, False
    ),
  )
  x = jax.ShapeDtypeStruct((tokens, d), jnp.float32)
  flat = jaxprs.flatten(jax.make_jaxpr(block)(one, x))
  products = sum(op.flops for op in flat.ops if op.name == 'dot_general')
  assert products == 24 * d * d * tokens + 4 * d * tokens**2
  assert products == pytest.approx(flops, rel=0.03)
  every = sum(op.flops for op in flat.ops)
  by_hand = products + (61 * d + 10) * tokens + 7 * heads * tokens**2
  assert every == pytest.approx(by_hand, rel=0.03)


@pytest.mark.parametrize(
  'lora', [(), LORA, pytest.param(('all',), marks=pytest.mark.slow), ('up',)]
)
def test_costs_are_the_counters(lora):
  spec = Spec(('acc', 'gyro', 'mag'), (9, 9, 6), 125, 19, blocks=2, lora=lora)
  task, found = counted(spec)
  rng = np.random.default_rng(0)
  num = task.num_blocks
  for i in range(12):
    train = rng.random(num) < (0.2, 0.5, 1.1)[i % 3]
    mine, own = (
      float(costs.step_flops(w, jnp.ones(3, bool), jnp.asarray(train)))
      for w in (task.work, found.work)
    )
    assert mine == pytest.approx(own, rel=0.03)
  np.testing.assert_array_equal(task.work.size, found.work.size)
  assert found.memory.kept.sum() > 0


def test_absent_tokens_cost_nothing():
  """A device with two of three sensors: as a model that has only these."""
  names, channels = ('acc', 'gyro', 'mag'), (9, 9, 6)
  task = transformer.transformer(Spec(names, channels, 125, 19, blocks=2))
  two, found = counted(Spec(names[:2], channels[:2], 125, 19, blocks=2))
  for train in (True, False):
    run = jnp.array([True, True, False])
    chosen = train & jnp.array([n != 'embed/mag' for n in task.blocks.name])
    mine = costs.step_flops(task.work, run, chosen)
    own = costs.step_flops(
      found.work, jnp.ones(2, bool), jnp.full(two.num_blocks, train)
    )
    assert float(mine) == pytest.approx(float(own), rel=0.03)


def test_the_frozen_base_is_not_a_weight_per_client():
  task, params, frozen, x = made('lora')
  clients, d = 3, SMALL['d']
  every = jax.tree.map(lambda v: jnp.stack([v] * clients), params)

  def loss(params):
    found = features_of(task, params, frozen, x)
    return task.fuse(params, frozen, found, jnp.ones(3, bool)).sum()

  # Compiled: gradients of the base that nobody reads are gone there.
  mapped = jax.jit(jax.vmap(jax.grad(loss))).lower(every)
  program = mapped.compile().as_text()
  for shape in ((d, d), (d, 4 * d), (4 * d, d)):
    assert f'[{",".join(map(str, (clients, *shape)))}]' not in program
  assert f'[{clients},{d},2]' in program  # but its adapter is


def text(**overrides):
  values = {'blocks': 2, 'd': 8, 'attention_heads': 2, **overrides}
  return Spec(
    ('text',), (1,), 5, 11, inputs=((5,),), targets=targets.TOKENS, **values
  )


@pytest.mark.parametrize('lora', [(), ('q', 'embed')])
def test_no_symbol_sees_a_later_one(lora):
  task = transformer.transformer(text(lora=lora))
  params = moved(task.init(jax.random.key(0)))
  frozen = task.base(jax.random.key(1)) if task.base else {}
  symbols = jnp.array([[1, 2, 3, 4, 5], [1, 2, 3, 9, 5]], jnp.int32)

  @jax.jit
  def logits(x):
    found = features_of(task, params, frozen, {'text': x})
    return task.fuse(params, frozen, found, jnp.ones(1, bool))

  found = logits(symbols)
  assert found.shape == (2, 5, 11)
  np.testing.assert_array_equal(found[0, :3], found[1, :3])
  assert (np.abs(found[0, 3:] - found[1, 3:]).max(-1) > 1e-4).all()


def test_patches_of_images_and_windows():
  image = jnp.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3)
  found = transformer_forward.cut_patches(image, 4)
  assert found.shape == (2, 4, 4 * 4 * 3)
  np.testing.assert_array_equal(found[1, 0], image[1, :4, :4].reshape(-1))
  corner = np.zeros((4, 4, 3), int)
  corner[:1, :2] = image[0, 4:, 4:]
  np.testing.assert_array_equal(found[0, 3], corner.reshape(-1))
  window = jnp.arange(14.0).reshape(1, 7, 2)
  (cut,) = transformer_forward.cut_patches(window, 4)
  np.testing.assert_array_equal(cut[1], [8, 9, 10, 11, 12, 13, 0, 0])
  spec = Spec(('image',), (3,), 5, 2, inputs=((5, 6, 3),), patch=4)
  assert transformer_forward.patches(spec, 0) == (4, 48)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'d': 9}, 'width of 9 for 2 heads'),
    ({'patch': 20}, 'patches of 20 samples'),
    ({'lora': ('w',)}, "pattern 'w'"),
    ({'inputs': ((4,), (3,), (2,))}, 'acc, whose inputs are'),
    ({'weights': 'nowhere.safetensors'}, 'nowhere.safetensors'),
  ],
)
def test_sizes_that_do_not_fit(overrides, message):
  with pytest.raises(InputError, match=message) as error:
    models.make('transformer', tiny.spec(**{**SMALL, **overrides}))
  assert '\n' not in str(error.value)
