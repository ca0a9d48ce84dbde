"""FLOPs and memory counted from a jaxpr, against counts by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs
from relief_jax.clients.training import cross_entropy
from relief_jax.errors import InputError
from relief_jax.models import cnn, counting, layers
from relief_jax.models.counting import BATCH
from tests.support import tiny

F32 = jnp.float32


def shapes(**sizes):
  return {k: jax.ShapeDtypeStruct(v, F32) for k, v in sizes.items()}


def counted(forward, params, x, groups=None, num=None):
  """What a model with one input costs; by default a block per parameter."""
  groups = groups or {k: i for i, k in enumerate(params)}

  def loss(params, frozen, inputs):
    del frozen
    scores = forward(params, inputs[0])
    return cross_entropy(scores, jnp.zeros(BATCH, int), jnp.ones(BATCH))

  one = jax.ShapeDtypeStruct((BATCH, *x), F32)
  num = num or len(groups)
  return counting.count(loss, params, {}, [one], groups, num)


def flops(found, *trained):
  train = jnp.zeros(found.work.size.size, bool)
  train = train.at[jnp.array(trained, int)].set(True)
  return float(costs.step_flops(found.work, jnp.ones(1, bool), train))


def dense(x, w):
  return x @ w


def perceptron(params, x):
  hidden = jax.nn.relu(layers.bias(x @ params['a'], params['b']))
  return hidden @ params['c']


def test_a_perceptron():
  found = counted(perceptron, shapes(a=(64, 128), b=(128,), c=(128, 10)), (64,))
  first, last = 2 * 64 * 128, 2 * 128 * 10
  idle = first + last + 2 * 128 + 5 * 10
  np.testing.assert_allclose(flops(found), idle, rtol=0.01)
  # The output layer: only its own gradient.
  np.testing.assert_allclose(flops(found, 2), idle + last, rtol=0.01)
  # The first one: through the output, the ReLU, then its own.
  np.testing.assert_allclose(
    flops(found, 0), idle + last + 128 + first, rtol=0.01
  )
  # Its bias alone: no product with the input.
  np.testing.assert_allclose(flops(found, 1), idle + last + 256, rtol=0.01)
  np.testing.assert_array_equal(found.work.size, [64 * 128, 128, 1280])


@pytest.mark.parametrize('overrides', [{}, {'groups': 'layer'}])
def test_the_sensor_cnn(overrides):
  """The count by hand is models/encoders.py; zeros that fill rows are free."""
  spec = tiny.spec(
    channels=(9, 9, 9), width=64, filters=(16, 32), hidden=64, **overrides
  )
  task = cnn.cnn(spec)
  xs = [jax.ShapeDtypeStruct((BATCH, 64, 9), F32)] * 3
  params = jax.eval_shape(task.init, jax.random.key(0))

  def loss(params, frozen, inputs):
    features = {
      m: task.encode(params, frozen, i, inputs[i], 0)
      for i, m in enumerate(task.modalities)
    }
    scores = task.fuse(params, frozen, features, jnp.ones(3, bool))
    return cross_entropy(scores, jnp.zeros(BATCH, int), jnp.ones(BATCH))

  found = counting.count(loss, params, {}, xs, task.groups, task.num_blocks)
  rng = np.random.default_rng(0)
  for _ in range(20):
    train = jnp.asarray(rng.random(task.num_blocks) < 0.5)
    run = jnp.asarray(rng.random(3) < 0.6)
    by_hand = costs.step_flops(task.work, run, train)
    own = costs.step_flops(found.work, run, train)
    # What does not run does not train.
    if all(
      run[m] or m < 0
      for m, t in zip(task.blocks.modality, train, strict=True)
      if t
    ):
      np.testing.assert_allclose(own, by_hand, rtol=0.01)
  np.testing.assert_array_equal(found.work.size, task.work.size)


def conv(x, w, stride=1):
  return jax.lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def norm(x):
  """Group norm of one group, without scale."""
  centred = x - x.mean((1, 2, 3), keepdims=True)
  scale = jax.lax.rsqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-5)
  return centred * scale


# Of a ResNet-8 for images of 32 x 32 x 3: side after, taps, channels in, out.
RESNET = {
  'stem': (32, 9, 3, 16),
  'a1': (32, 9, 16, 16),
  'a2': (32, 9, 16, 16),
  'b1': (16, 9, 16, 32),
  'b2': (16, 9, 32, 32),
  'bs': (16, 1, 16, 32),
  'c1': (8, 9, 32, 64),
  'c2': (8, 9, 64, 64),
  'cs': (8, 1, 32, 64),
}


def resnet(params, x):
  h = jax.nn.relu(norm(conv(x, params['stem'])))
  for name, stride in (('a', 1), ('b', 2), ('c', 2)):
    y = jax.nn.relu(norm(conv(h, params[name + '1'], stride)))
    y = norm(conv(y, params[name + '2']))
    if stride > 1:
      h = conv(h, params[name + 's'], stride)
    h = jax.nn.relu(h + y)
  return h.mean((1, 2)) @ params['head']


def test_a_resnet():
  params = shapes(
    head=(64, 10),
    **{
      k: (math.isqrt(taps), math.isqrt(taps), a, b)
      for k, (_, taps, a, b) in RESNET.items()
    },
  )
  found = counted(resnet, params, (32, 32, 3))
  product = {k: 2 * s * s * t * a * b for k, (s, t, a, b) in RESNET.items()}
  # Norm (5: two sums, centred, squared, scaled), ReLU, residual: a number each.
  small = {k: 7 * s * s * b for k, (s, _, _, b) in RESNET.items()}
  forward = sum(product.values()) + sum(small.values()) + 2 * 64 * 10
  np.testing.assert_allclose(flops(found), forward, rtol=0.03)
  # All: each product twice more, but for the gradient of the image.
  backward = 2 * sum(product.values()) - product['stem'] + 2 * 2 * 64 * 10
  every = range(len(params))
  np.testing.assert_allclose(
    flops(found, *every),
    forward + backward + 1.5 * sum(small.values()),
    rtol=0.03,
  )
  # The head alone is its own product once more.
  np.testing.assert_allclose(
    flops(found, list(params).index('head')), forward + 2 * 64 * 10, rtol=0.03
  )


def attention(x, qkv, out):
  q, k, v = jnp.split(x @ qkv, 3, -1)
  heads = [t.reshape(*t.shape[:2], 4, -1) for t in (q, k, v)]
  scores = jnp.einsum('bqhd,bkhd->bhqk', *heads[:2])
  mixed = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), heads[2])
  return mixed.reshape(x.shape) @ out


@pytest.mark.parametrize('form', ['unrolled', 'scan', 'remat'])
def test_a_transformer(form):
  """Two blocks of width 64 over 32 tokens; stacked, they are one block."""
  d, tokens, depth = 64, 32, 2
  sizes = {
    'qkv': (d, 3 * d),
    'out': (d, d),
    'up': (d, 4 * d),
    'down': (4 * d, d),
  }
  params = shapes(head=(d, 10), **{k: (depth, *v) for k, v in sizes.items()})

  def layer(x, p):
    x = x + attention(x, p['qkv'], p['out'])
    return x + jax.nn.gelu(x @ p['up']) @ p['down']

  def forward(params, x):
    stack = {k: params[k] for k in sizes}
    one = jax.checkpoint(layer) if form == 'remat' else layer
    if form == 'scan':
      x = jax.lax.scan(lambda x, p: (one(x, p), None), x, stack)[0]
    else:
      for i in range(depth):
        x = one(x, jax.tree.map(lambda v, i=i: v[i], stack))
    return x.mean(1) @ params['head']

  groups = dict.fromkeys(sizes, 0) | {'head': 1}
  found = counted(forward, params, (tokens, d), groups, 2)
  weights = depth * 2 * tokens * sum(a * b for a, b in sizes.values())
  mixing = depth * 2 * 2 * tokens * tokens * d
  # Soft-max 5 and scores of 4 heads; GELU 8 of 4d; two residuals.
  small = depth * (
    5 * 4 * tokens * tokens + 8 * tokens * 4 * d + 2 * tokens * d
  )
  idle = weights + mixing + small
  np.testing.assert_allclose(flops(found), idle, rtol=0.03)
  # Both operands of the mixing need gradients, of the first block's input none.
  first = 2 * tokens * d * (3 * d) if form != 'scan' else 0
  backward = 2 * weights - first + 2 * mixing + 2 * small
  if form == 'remat':
    # Computed once more, but for each block's last product.
    backward += idle - depth * 2 * tokens * 4 * d * d
  np.testing.assert_allclose(flops(found, 0, 1), idle + backward, rtol=0.03)


def test_the_dearest_branch_counts():
  def forward(params, x):
    return jax.lax.cond(
      x.sum() > 0, lambda: x @ params['a'], lambda: x[:, :4] * 2.0
    )

  found = counted(forward, shapes(a=(8, 4)), (8,))
  np.testing.assert_allclose(flops(found), 2 * 8 * 4, rtol=0.5)


def test_a_loop_of_unknown_length_is_refused():
  def forward(params, x):
    x = jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v + 1, x)
    return jax.lax.stop_gradient(x) @ params['a']

  with pytest.raises(InputError, match='length depends on its numbers'):
    counted(forward, shapes(a=(8, 4)), (8,))


def test_memory_of_a_perceptron():
  params = shapes(a=(64, 128), b=(128,), c=(128, 10))
  found = counted(perceptron, params, (64,))

  def need(*trained, batch=BATCH, slots=1):
    train = np.isin(np.arange(3), trained)
    return float(
      costs.training_bytes(
        found.memory, found.work, jnp.ones(3, bool), train, batch, slots
      )
    )

  size = 4 * np.array([64 * 128, 128, 1280])
  idle = need()
  # Nothing is kept for a model that does not train.
  np.testing.assert_allclose(
    idle - size.sum(), BATCH * float(found.memory.working)
  )
  # The head keeps what goes into it and the soft-max.
  head = 4 * 128 + 4 * 10
  np.testing.assert_allclose(
    need(2) - idle, 2 * size[2] + BATCH * head, rtol=0.02
  )
  # The first layer keeps the input and the sign of the ReLU, and no hidden.
  first = 4 * 64 + 128 + 4 * 10
  np.testing.assert_allclose(
    need(0) - idle, 2 * size[0] + BATCH * first, rtol=0.03
  )
  assert need(0, batch=8) < need(0) < need(0, slots=2)
  assert need(0, 1, 2) < need(0) + need(1) + need(2)
