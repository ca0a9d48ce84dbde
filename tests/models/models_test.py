"""Models: the convolution, the FLOPs, the groups, and an empty device."""

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
from relief_jax.models import cnn, encoders, layers, lora
from relief_jax.models.encoders import Spec
from relief_jax.models.mixture import Mixture
from relief_jax.types import Bank
from tests.support import tiny

BATCH = 32


BACKBONES = {
  'cnn': ('cnn', {}),
  'cnn joint': ('cnn', {'groups': 'joint'}),
  'cnn layer': ('cnn', {'groups': 'layer'}),
  'cnn exits': ('cnn', {'exits': True}),
  'cnn attention': ('cnn', {'fusion': 'attention', 'heads': 2}),
  'cnn mean': ('cnn', {'fusion': 'mean'}),
  'cnn dual': ('cnn', {'fusion': 'dual_health_style'}),
  'cnn experts': ('cnn', {'fusion': 'experts', 'mixture': Mixture(3, 2)}),
  'lora': ('lora', {}),
  'lora joint': ('lora', {'groups': 'joint'}),
  'lora cached': ('lora', {'cached': True}),
  'lora adapters': ('lora', {'adapters': True}),
  'lora adapters layer': ('lora', {'adapters': True, 'groups': 'layer'}),
}


def reference_conv(x, w, kernel, stride):
  return jax.lax.conv_general_dilated(
    x,
    w.T.reshape(kernel, x.shape[-1], -1),
    (stride,),
    'VALID',
    dimension_numbers=('NWC', 'WIO', 'NWC'),
  )


@pytest.mark.parametrize(
  'length, kernel, stride, channels, filters',
  [
    (9, 3, 1, 2, 3),
    (11, 3, 2, 1, 2),
    (12, 5, 2, 2, 3),
    (13, 5, 3, 2, 1),
    (14, 4, 3, 3, 2),
    (13, 2, 3, 2, 3),  # samples between the taps that no output sees
    (5, 5, 2, 2, 3),  # one output position
    (12, 5, 2, 3, 2),  # rows of columns are filled up to 16 numbers
  ],
)
def test_conv1d_and_its_gradients(length, kernel, stride, channels, filters):
  rng = np.random.default_rng(0)
  after = layers.conv_length(length, kernel, stride)
  shapes = (
    (2, length, channels),
    (filters, kernel * channels),
    (2, after, filters),
    (filters,),
  )
  x, w, out, b = (rng.normal(size=s).astype(np.float32) for s in shapes)

  @jax.jit
  def both(x, w, b, out):
    def one(conv, *args):
      y, pull = jax.vjp(lambda *a: conv(*a, kernel, stride), *args)
      return y, pull(out)

    def reference_relu(x, w, b, kernel, stride):
      y = reference_conv(x, w, kernel, stride)
      return jax.nn.relu(layers.bias(y, b))

    return (
      (one(layers.conv1d, x, w), one(layers.conv1d_relu, x, w, b)),
      (one(reference_conv, x, w), one(reference_relu, x, w, b)),
    )

  chex.assert_trees_all_close(*both(x, w, b, out), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'size, taps, strides, padding',
  [
    ((9,), (3,), (2,), 'SAME'),
    ((9,), (4,), (1,), 'VALID'),
    ((7, 8), (3, 2), (2, 1), 'SAME'),
    ((6, 5), (3, 3), (1, 2), 'VALID'),
    ((5, 5), (1, 1), (2, 2), ((0, 0), (1, 0))),
  ],
)
def test_convolution_is_laxs(size, taps, strides, padding):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 3)).astype(np.float32)
  w = rng.normal(size=(*taps, 3, 4)).astype(np.float32)
  letters = 'HW'[: len(size)]
  numbers = f'N{letters}C', f'{letters}IO', f'N{letters}C'

  def one(convolution):
    def value(x, w):
      y = convolution(x, w, strides, padding, dimension_numbers=numbers)
      return jnp.sin(y).sum(), y

    return jax.value_and_grad(value, (0, 1), has_aux=True)(x, w)

  chex.assert_trees_all_close(
    jax.jit(lambda: one(layers.convolution))(),
    jax.jit(lambda: one(jax.lax.conv_general_dilated))(),
    rtol=1e-4,
    atol=1e-5,
  )


def test_conv1d_of_every_client_is_conv1d_of_each():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 2, 9, 2)).astype(np.float32)
  w = rng.normal(size=(3, 4, 6)).astype(np.float32)

  def one(x, w):
    return layers.conv1d(x, w, 3, 2)

  mapped = jax.jit(jax.vmap(one))(x, w)
  alone = jax.jit(one)
  each = np.stack([alone(a, b) for a, b in zip(x, w, strict=True)])
  np.testing.assert_allclose(mapped, each, rtol=1e-5, atol=1e-6)


def realistic(modalities=3, **overrides):
  names = ('acc', 'gyro', 'mag')[:modalities]
  return Spec(names, (15,) * modalities, 125, 19, **overrides)


def abstract(backbone, spec):
  """Shapes of parameters, frozen base and a batch of windows."""
  shape = jax.ShapeDtypeStruct
  x = {
    m: shape((BATCH, spec.width, c), jnp.float32)
    for m, c in zip(spec.modalities, spec.channels, strict=True)
  }
  key = jax.random.key(0)
  params = jax.eval_shape(models.MODELS[backbone](spec).init, key)
  frozen = {}
  if backbone == 'lora':
    frozen = jax.eval_shape(lambda: lora.base(key, spec))
  return params, frozen, Bank(x, {}, shape((BATCH,), jnp.int32))


def direct(task, params, frozen, batch, gate):
  """`training.logits` for constant gates, without its branches."""
  features = {}
  for i, name in enumerate(task.modalities):
    owners = task.blocks.layers[i]
    cut = next((c for c, g in enumerate(owners) if gate.train[g]), task.cuts)
    x = batch.bank.x[name]
    features[name] = task.encode(params, frozen, i, x, cut)
  return task.fuse(params, frozen, features, gate.run)


def lowered(backbone, spec, chosen, logits):
  """A loop-free training step of the groups `chosen`, and its analytic FLOPs.

  Gates are constants here, so that the compiler drops what is frozen as the
  branches of a real run do.
  """
  return lowered_task(
    models.MODELS[backbone](spec), backbone, spec, chosen, logits
  )


def lowered_task(task, backbone, spec, chosen, logits):
  """The same of a task that is a part of its model."""
  train = np.array([chosen(name) for name in task.blocks.name])
  gate = Gate(np.ones(len(spec.modalities), bool), None, train)
  mask = tree.broadcast_groups(task.groups, train)

  def loss(params, frozen, bank):
    params = jax.tree.map(
      lambda m, part: layers.stop_below(part, not m), mask, params
    )
    batch = Batch(bank, jnp.arange(BATCH), jnp.ones(BATCH))
    scores = logits(task, params, frozen, batch, gate)
    return sum(
      training.cross_entropy(s, bank.y, batch.weight)
      for s in (scores if scores.ndim == 3 else [scores])
    )

  step = jax.jit(jax.value_and_grad(loss)).lower(*abstract(backbone, spec))
  analytic = costs.step_flops(task.work, jnp.asarray(gate.run), train)
  return step, BATCH * float(analytic)


def everything(name):
  return True


def columns(name):
  return name.startswith('fusion') or name == 'shared'


def acc(name):
  return name.endswith('acc') or name == 'shared'


def one_expert(name):
  return name in ('expert/1', 'shared')


def starts(prefix):
  return lambda name: name.startswith(prefix)


# All are active, as the compiler counts them.
EXPERTS = {'fusion': 'experts', 'mixture': Mixture(3, 3)}


@pytest.fixture
def bare_columns(monkeypatch):
  """No zeros that fill rows of columns: no device is charged for them."""
  monkeypatch.setattr(layers, '_zeros_after', lambda size: 0)


@pytest.mark.usefixtures('bare_columns')
@pytest.mark.parametrize(
  'backbone, overrides, chosen',
  [
    ('cnn', {}, everything),
    ('cnn', {}, columns),
    ('cnn', {}, acc),
    ('cnn', {}, starts('encoder')),
    ('cnn', {}, starts('nothing')),
    ('cnn', {'groups': 'joint'}, acc),
    ('cnn', {'groups': 'layer'}, everything),
    ('cnn', {'groups': 'layer'}, starts('encoder0')),
    ('cnn', {'groups': 'layer'}, starts('encoder1')),
    ('cnn', {'fusion': 'attention', 'heads': 64}, everything),
    ('cnn', {'fusion': 'attention', 'heads': 64}, columns),
    ('cnn', {'fusion': 'attention', 'heads': 64}, acc),
    ('cnn', {'fusion': 'mean'}, columns),
    ('cnn', {'fusion': 'dual_health_style'}, everything),
    ('cnn', {'fusion': 'dual_health_style'}, acc),
    pytest.param('cnn', EXPERTS, everything, marks=pytest.mark.slow),
    ('cnn', EXPERTS, one_expert),
    ('cnn', {'stride': 3, 'kernel': 4}, everything),
    ('cnn', {'stride': 1, 'filters': (8, 8, 8)}, everything),
    ('lora', {}, everything),
    ('lora', {}, starts('shared')),
    ('lora', {'rank': 2}, acc),
    ('lora', {'adapters': True}, everything),
    ('lora', {'adapters': True}, columns),
    ('lora', {'adapters': True, 'groups': 'joint'}, acc),
    ('lora', {'adapters': True, 'groups': 'layer'}, starts('encoder0')),
    ('lora', {'adapters': True, 'groups': 'layer'}, starts('encoder1')),
  ],
)
def test_flops_are_the_compilers_before_fusion(backbone, overrides, chosen):
  spec = realistic(**overrides)
  step, analytic = lowered(backbone, spec, chosen, direct)
  counted = step.cost_analysis()['flops']
  np.testing.assert_allclose(analytic, counted, rtol=1e-3)


@pytest.mark.usefixtures('bare_columns')
@pytest.mark.parametrize(
  'filters, depth, every, chosen',
  [
    ((8, 8, 8), 2, False, everything),
    ((8, 8, 8), 1, True, everything),
    ((8, 8, 8), 3, True, everything),
    ((8, 8, 8), 3, True, starts('encoder1')),
    ((8, 4), 2, True, starts('exit0')),
  ],
)
def test_flops_of_early_exits(filters, depth, every, chosen):
  spec = realistic(filters=filters, exits=True)
  exits = models.MODELS['cnn'](spec).exits
  held = exits.contained(depth, every)
  sub = exits.until(depth, every)
  names = {n for n, h in zip(sub.blocks.name, held, strict=True) if h}
  step, analytic = lowered_task(
    sub, 'cnn', spec, lambda n: chosen(n) and n in names, direct
  )
  counted = step.cost_analysis()['flops']
  np.testing.assert_allclose(analytic, counted, rtol=1e-3)


@pytest.mark.usefixtures('bare_columns')
@pytest.mark.parametrize(
  'backbone, overrides, chosen, share',
  [
    ('cnn', {}, everything, 0.996),
    ('cnn', {}, columns, 1.0),
    ('cnn', {'groups': 'layer'}, starts('encoder1'), 0.997),
    ('lora', {}, everything, 1.0),
    pytest.param(
      'lora', {'adapters': True}, everything, 0.979, marks=pytest.mark.slow
    ),
  ],
)
def test_flops_are_the_compilers(backbone, overrides, chosen, share):
  """The optimised program of `training.logits` itself, in which XLA computes
  the adapters' sums anew for every slice that reads them."""
  spec = realistic(**{'modalities': 2, **overrides})
  step, analytic = lowered(backbone, spec, chosen, training.logits)
  program = step.compile()
  assert ' conditional(' not in program.as_text()  # all gates were constants
  counted = program.cost_analysis()['flops']
  np.testing.assert_allclose(analytic / counted, share, atol=0.005)


def test_an_absent_sensor_costs_only_products_with_its_zero_features():
  """Its columns are multiplied with zeros, which a device would not do."""
  spec = realistic(modalities=2)
  task = models.MODELS['cnn'](spec)
  params, frozen, bank = abstract('cnn', spec)

  def flops(run):
    gate = Gate(np.array(run), None, np.zeros(task.num_blocks, bool))

    def forward(params, frozen, bank):
      batch = Batch(bank, jnp.arange(BATCH), jnp.ones(BATCH))
      return training.logits(task, params, frozen, batch, gate)

    program = jax.jit(forward).lower(params, frozen, bank).compile()
    return program.cost_analysis()['flops'] / BATCH

  both, one = flops([True, True]), flops([True, False])
  column = 2.0 * spec.features * spec.hidden
  saved = float(task.work.fwd[1]) - column
  np.testing.assert_allclose(both - one, saved, rtol=0.03)


@pytest.mark.parametrize('name', BACKBONES)
def test_groups_cover_the_parameters_once(name):
  backbone, overrides = BACKBONES[name]
  task = tiny.task(backbone, **overrides)
  num = task.num_blocks
  params = jax.eval_shape(task.init, jax.random.key(0))
  # A prefix: `flatten_up_to` refuses anything else.
  numbers, structure = jax.tree.flatten(task.groups)
  parts = structure.flatten_up_to(params)
  by_hand = np.zeros(num)
  for g, part in zip(numbers, parts, strict=True):
    by_hand[g] += sum(leaf.size for leaf in jax.tree.leaves(part))
  np.testing.assert_array_equal(task.work.size, by_hand)
  assert set(numbers) == set(range(num))
  assert by_hand.sum() == sum(v.size for v in jax.tree.leaves(params))
  assert len(set(task.blocks.name)) == num == len(task.blocks.modality)
  # Every modality has groups, the shared one comes last.
  assert set(task.blocks.modality) == {-1, *range(len(task.modalities))}
  assert task.blocks.name[-1] == 'shared'
  for g, m in enumerate(task.blocks.modality):
    if m >= 0:
      assert task.blocks.name[g].split('/')[-1] == task.modalities[m]


@pytest.mark.parametrize('name', BACKBONES)
def test_gradient_paths(name):
  """Upwards only, within one modality but for what lies above the fusion."""
  backbone, overrides = BACKBONES[name]
  task = tiny.task(backbone, **overrides)
  work = jax.tree.map(np.asarray, task.work)
  num = task.num_blocks
  assert work.path.shape == (work.agrad.size, num)
  assert work.path.any(1).all() and (work.agrad > 0).all()
  assert (work.fwd > 0).all() and work.shared > 0
  # Early exits are no part of the model as a whole.
  early = np.array([n.startswith('exit') for n in task.blocks.name])
  np.testing.assert_array_equal(work.wgrad > 0, ~early)
  assert (work.size > 0).all()
  modality = np.array(task.blocks.modality)
  for row in work.path:
    touched = set(modality[row])
    assert len(touched) == 1 or touched >= set(range(len(task.modalities)))
  # What any group needs, all groups below it need too.
  for owners in task.blocks.layers:
    for lower, upper in zip(owners, owners[1:], strict=False):
      assert (work.path[:, lower] >= work.path[:, upper]).all()


def test_cost_of_a_set_by_hand():
  """One modality, one convolution, all figures on paper."""
  task = tiny.task('cnn', modalities=('acc',), filters=(4,), width=9)
  after, column, head = 4, 2 * 4 * 6, 2 * 6 * 3
  conv = 2 * after * 3 * 2 * 4
  encoder, fusion, shared = range(3)
  work = task.work
  assert task.blocks.name == ('encoder/acc', 'fusion/acc', 'shared')
  np.testing.assert_array_equal(work.fwd, [conv + 4 * after * 4 + column + 6])
  np.testing.assert_array_equal(work.wgrad, [conv + after * 4, column, head])
  np.testing.assert_array_equal(work.size, [24 + 4, 24, 6 + 18 + 3])
  run = jnp.array([True])

  def cost(*chosen):
    train = jnp.zeros(3, bool).at[jnp.array(chosen, int)].set(True)
    return float(costs.step_flops(work, run, train))

  idle = cost()
  assert cost(shared) - idle == head + head + 6
  assert cost(shared, fusion) - cost(shared) == column
  # The encoder adds its own gradient, its ReLU's and the column's.
  assert cost(shared, fusion, encoder) - cost(shared, fusion) == (
    conv + after * 4 + 2 * after * 4 + column
  )


@functools.cache
def compiled(backbone):
  """(params, run [M]) -> gradients and logits of three windows."""
  # With the norm of the fusion, which divides by the number present.
  task = tiny.task(backbone, fusion_norm=True)
  population = tiny.population(task, clients=3)
  batch = Batch(population.bank, jnp.array([0, 1, 5]), jnp.ones(3))
  train = jnp.ones(task.num_blocks, bool)

  @jax.jit
  def both(params, run):
    def loss(params):
      gate = Gate(run, None, train)
      scores = training.logits(task, params, population.frozen, batch, gate)
      y = population.bank.y[batch.row]
      return training.cross_entropy(scores, y, batch.weight), scores

    return jax.grad(loss, has_aux=True)(params)

  return task, jax.jit(task.init)(jax.random.key(0)), both


def answer(backbone, present):
  """Task, parameters, logits and gradients with all or no sensors."""
  task, params, both = compiled(backbone)
  grads, scores = both(params, np.full(3, present))
  return task, params, scores, grads


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_nobody_present(backbone):
  """Only the bias is left, and no encoder, column or A moves."""
  task, params, scores, grads = answer(backbone, False)
  chex.assert_tree_all_finite((scores, grads))
  assert scores.shape == (3, 3)
  np.testing.assert_array_equal(scores, np.repeat(scores[:1], 3, 0))
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  np.testing.assert_array_equal(sq[:-1], 0)
  assert sq[-1] > 0  # the head's bias


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_everybody_present(backbone):
  task, params, scores, grads = answer(backbone, True)
  chex.assert_tree_all_finite((scores, grads))
  chex.assert_trees_all_equal_shapes_and_dtypes(params, grads)
  # B = 0 cuts A from the gradient at first; all else moves at once.
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  moving = np.array(
    [backbone == 'cnn' or n == 'shared' for n in task.blocks.name]
  )
  np.testing.assert_array_equal(np.asarray(sq) > 0, moving)


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_the_first_answer_is_undecided(backbone):
  """A small head: the first loss is close to log C on real shapes."""
  spec = realistic(modalities=2)
  task = models.MODELS[backbone](spec)
  y = np.arange(64) % spec.classes

  @jax.jit
  def first(key):
    frozen = lora.base(key, spec) if backbone == 'lora' else {}
    features = {
      m: jnp.abs(jax.random.normal(jax.random.key(i), (64, spec.features)))
      for i, m in enumerate(spec.modalities)
    }
    scores = task.fuse(task.init(key), frozen, features, jnp.ones(2, bool))
    return training.cross_entropy(scores, y, jnp.ones(64)), scores

  loss, scores = first(jax.random.key(0))
  np.testing.assert_allclose(loss, np.log(spec.classes), rtol=0.05)
  assert np.std(scores) > 0.01


def test_fusion_norm_scales_by_what_is_there():
  spec = tiny.spec(fusion_norm=True)
  z = jnp.ones((2, 4))
  for run, factor in (([1, 0, 0], 3), ([1, 1, 0], 1.5), ([0, 0, 0], 3)):
    scaled = encoders.fuse_norm(spec, z, jnp.array(run, bool))
    np.testing.assert_allclose(scaled, factor * np.ones((2, 4)))
  off = spec._replace(fusion_norm=False)
  assert encoders.fuse_norm(off, z, jnp.zeros(3, bool)) is z


def test_lora_starts_as_its_base():
  """B = 0 and zero adapters: the first model is the frozen one."""
  task = tiny.task('lora', adapters=True)
  plain = tiny.task('cnn')
  spec = tiny.spec()

  @jax.jit
  def both(key):
    full = cnn.init(key, spec)
    params = task.init(jax.random.fold_in(key, 1))

    def scores(task, params, frozen):
      features = {
        m: task.encode(params, frozen, i, jnp.ones((1, spec.width, c)), 0)
        for i, (m, c) in enumerate(
          zip(spec.modalities, spec.channels, strict=True)
        )
      }
      return task.fuse(params, frozen, features, jnp.ones(3, bool))

    merged = {**full, 'head': params['head']}
    return scores(task, params, lora.freeze(full)), scores(plain, merged, {})

  adapted, base = both(jax.random.key(0))
  np.testing.assert_allclose(adapted, base, rtol=1e-5, atol=1e-6)


def test_a_base_with_a_head_starts_as_the_model_that_it_was():
  """Its head is the first one: the trained head is what is added to it."""
  task, plain = tiny.task('lora', base_head=True), tiny.task('cnn')
  spec = tiny.spec()

  @jax.jit
  def both(key):
    full = cnn.init(key, spec)
    params = task.init(jax.random.fold_in(key, 1))
    features = {
      m: jax.random.normal(jax.random.key(i), (5, spec.features))
      for i, m in enumerate(spec.modalities)
    }
    run = jnp.ones(3, bool)
    params['head']['b'] += 1.0
    return (
      task.fuse(params, lora.freeze(full, True), features, run),
      plain.fuse(full, {}, features, run),
    )

  adapted, base = both(jax.random.key(0))
  np.testing.assert_allclose(adapted, base + 1, rtol=1e-5, atol=1e-6)


def test_lora_product_is_the_merged_one():
  """z = W0 h + (alpha / r) B A h, computed without ever merging."""
  task, plain = tiny.task('lora'), tiny.task('cnn')
  spec = tiny.spec()

  @jax.jit
  def both(key):
    frozen = lora.base(key, spec)
    params = task.init(jax.random.fold_in(key, 1))
    params['lora_b'] = jax.random.normal(key, params['lora_b'].shape)
    features = {
      m: jax.random.normal(jax.random.key(i), (5, spec.features))
      for i, m in enumerate(spec.modalities)
    }
    columns = {
      m: w
      + spec.lora_alpha / spec.rank * params['lora_a'][m] @ params['lora_b']
      for m, w in frozen['fusion'].items()
    }
    merged = {**frozen, 'fusion': columns, 'head': params['head']}
    run = jnp.ones(3, bool)
    return (
      task.fuse(params, frozen, features, run),
      plain.fuse(merged, {}, features, run),
    )

  adapted, merged = both(jax.random.key(0))
  assert spec.lora_alpha != spec.rank
  np.testing.assert_allclose(adapted, merged, rtol=1e-4, atol=1e-5)


def test_cached_features_cannot_have_adapters_below():
  with pytest.raises(ValueError, match='not cacheable'):
    models.MODELS['lora'](tiny.spec(cached=True, adapters=True))


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_too_short_windows_are_refused(backbone):
  with pytest.raises(InputError, match='windows of 6 samples'):
    models.MODELS[backbone](tiny.spec(width=6))
