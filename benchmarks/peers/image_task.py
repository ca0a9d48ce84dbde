"""The public set-ups' models as Tasks of the simulator: one modality.

CNN: conv 3x3x32, conv 3x3x64, max-pool 2, dense 128, dense C, unpadded, ReLU
in between. The second convolution, nine tenths of the work, runs by Winograd's
algorithm (`winograd.py`). Bias and ReLU come after the pool: both are monotone,
so that nothing changes but three quarters of their cost. Images stay cut into
blocks from the first convolution to the dense layer, since changing the order
of numbers in memory costs XLA:CPU more than computing them.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp

from benchmarks.peers import winograd
from benchmarks.peers.common import Setup
from relief_jax import tree
from relief_jax.models import encoders, layers
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.task import Blocks, Task
from relief_jax.types import Array, PyTree

_FILTERS = (32, 64)
_HIDDEN = 128
_PARTS = 4  # of the features, by their place in a block


def columns(x: Array) -> Array:
  """Applies 3x3 im2col: [B, H, W, c] -> [B, H - 2, W - 2, 9 * c]."""
  h, w = x.shape[1] - 2, x.shape[2] - 2
  wide = jnp.concatenate([x[:, :, j : j + w] for j in range(3)], axis=-1)
  return jnp.concatenate([wide[:, i : i + h] for i in range(3)], axis=-1)


@jax.custom_vjp
def dense(x: Array, w: Array) -> Array:
  """Multiplies features in parts by a weight.

  For a small batch the weight's gradient is written as a sum over the batch,
  which XLA fuses into the optimiser's update: it never exists in memory.

  Args:
    x: [p, B, a].
    w: [p * a, b].

  Returns:
    [B, b].
  """
  return _dense_forward(x, w)[0]


def _dense_forward(x, w):
  parts = w.reshape(x.shape[0], x.shape[2], -1)
  return jnp.einsum('pba,pao->pbo', x, parts).sum(0), (x, parts)


def _dense_backward(saved, dy):
  x, w = saved
  if dy.shape[0] > 16:
    dw = jnp.einsum('pba,bo->pao', x, dy)
  else:
    dw = sum(x[:, i, :, None] * dy[i][None, None] for i in range(dy.shape[0]))
  return jnp.einsum('bo,pao->pba', dy, w), dw.reshape(-1, w.shape[2])


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def pooled(y: Array) -> Array:
  """Max-pools 2 x 2 neighbours in blocks, [4, 4, ...] -> [2, 2, ...].

  The gradient goes to the first largest of each four, whose number is kept:
  that of `jnp.maximum` shares it out where two are equal, which costs a pass
  over all of them.
  """
  return _pool_forward(y)[0]


def _pool_forward(y):
  y = y.reshape(2, 2, 2, 2, *y.shape[2:])
  four = [y[:, i, :, j] for i in (0, 1) for j in (0, 1)]
  most = reduce(jnp.maximum, four)
  first = jnp.full(most.shape, 3, jnp.int8)
  for number in (2, 1, 0):
    first = jnp.where(four[number] == most, jnp.int8(number), first)
  return most, first


def _pool_backward(first, dy):
  number = jnp.arange(4, dtype=jnp.int8)
  number = number.reshape(1, 2, 1, 2, *[1] * (dy.ndim - 2))
  own = first[:, None, :, None] == number
  dy = jnp.where(own, dy[:, None, :, None], 0.0)
  return (dy.reshape(4, 4, *dy.shape[4:]),)


pooled.defvjp(_pool_forward, _pool_backward)


def encode(params: PyTree, x: Array) -> Array:
  """Encodes images, [B, H, H, c] -> [4, B, d / 4].

  A part holds what is from one of the four places in a block of the pooled
  image; H is 4t + 4. Parts come first, as they lie in memory, where other
  encoders have the batch: right for FedAvg, which only hands them on.
  """
  one, two = params
  batch = x.shape[0]
  # A convolution of t + 1 whole blocks; those beyond the image see zeros.
  cols = columns(jnp.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0))))
  cols = winograd.blocks(cols)
  h = cols.reshape(-1, cols.shape[-1]) @ one['w']
  h = _relu(layers.bias(h, one['b'])).reshape(*cols.shape[:-1], -1)
  y = pooled(winograd.conv3x3(h, two['w']))
  y = y.reshape(_PARTS, -1, y.shape[-1])
  return _relu(layers.bias(y, two['b'])).reshape(_PARTS, batch, -1)


def encode_plain(params: PyTree, x: Array) -> Array:
  """Encodes images by plain convolutions, [B, H, H, c] -> [1, B, d].

  The numbers of `encode` in another order, in the form that accelerators have
  kernels for.
  """
  for layer in params:
    kernel = layer['w'].reshape(3, 3, x.shape[-1], -1)
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x = jax.nn.relu(x + layer['b'][None, None, None])
  batch, h, _, c = x.shape
  x = x.reshape(batch, h // 2, 2, h // 2, 2, c).max((2, 4))
  return x.reshape(1, batch, -1)


@jax.custom_vjp
def _relu(x: Array) -> Array:
  """Applies a ReLU that keeps its output for the gradient, and no mask."""
  # Not maximum(), which XLA:CPU would hand to a kernel of its own.
  return jnp.where(x > 0, x, 0.0)


def _relu_forward(x):
  y = _relu(x)
  return y, y


_relu.defvjp(_relu_forward, lambda y, dy: (jnp.where(y > 0, dy, 0.0),))


def init(key: Array, setup: Setup) -> PyTree:
  """Draws parameters: {'encoder': {'image': [layers]}, 'dense': [layers]}."""
  keys = jax.random.split(key, 4)
  if setup.model == 'linear':
    sizes = [(setup.shape[0], setup.classes)]
    convs = []
  else:
    side = (setup.shape[0] - 4) // 2
    sizes = [(_FILTERS[1] * side * side, _HIDDEN), (_HIDDEN, setup.classes)]
    convs = [(9 * setup.shape[2], _FILTERS[0]), (9 * _FILTERS[0], _FILTERS[1])]

  def make(key, shape):
    return {'w': layers.dense_init(key, *shape), 'b': jnp.zeros(shape[1])}

  return {
    'encoder': {'image': [make(*v) for v in zip(keys, convs, strict=False)]},
    'dense': [make(*v) for v in zip(keys[2:], sizes, strict=False)],
  }


def pfl_cnn(spec: encoders.Spec) -> Task:
  """Builds the CNN for a config, `backbone=.../image_task.py:pfl_cnn`.

  Features have the batch first here, as evaluation and every method want them.

  Args:
    spec: of images [H, H, c], of one modality `image`.
  """
  (shape,) = spec.inputs
  task = image_task(Setup('cnn', shape, 0, 0, 0, 0, 0, 0.0, spec.classes))

  def encode_image(*args):
    return task.encode(*args).swapaxes(0, 1)

  def fuse(params, frozen, features, run):
    parts = {'image': features['image'].swapaxes(0, 1)}
    return task.fuse(params, frozen, parts, run)

  return task._replace(encode=encode_image, fuse=fuse)


def image_task(setup: Setup, plain: bool = False) -> Task:
  """Builds a set-up's model, `cnn` or `linear`.

  Args:
    setup: which.
    plain: convolutions are left to XLA, for accelerators.
  """
  linear, encoded = setup.model == 'linear', encode_plain if plain else encode

  def encode_image(params, frozen, m, x, cut):
    del frozen, m
    own = layers.stop_below(params['encoder']['image'], cut > 0)
    return x if linear else encoded(own, x)

  def fuse(params, frozen, features, run):
    del frozen, run
    z = features['image']
    *hidden, last = params['dense']
    for layer in hidden:
      z = _relu(layers.bias(dense(z, layer['w']), layer['b']))
    return layers.bias(z @ last['w'], last['b'])

  groups = {
    'encoder': {'image': [0, 0][: 0 if linear else 2]},
    'dense': [1] * (1 if linear else 2),
  }
  work = WorkBuilder(1, 2)
  shapes = jax.eval_shape(partial(init, setup=setup), jax.random.key(0))
  if not linear:
    side = setup.shape[0]
    for size, conv in zip((side - 2, side - 4), (0, 1), strict=True):
      a, b = shapes['encoder']['image'][conv]['w'].shape
      flops = layers.conv_flops(size * size, 1, a, b)
      work.fwd[0] += flops
      work.wgrad[0] += flops
      work.gradient_path(flops, [0] * conv)
  for i, layer in enumerate(shapes['dense']):
    flops = encoders.dense_flops(*layer['w'].shape)
    work.shared += flops
    work.wgrad[1] += flops
    work.gradient_path(flops, [0] + [1] * (i > 0))
  return Task(
    modalities=('image',),
    blocks=Blocks(
      ('encoder', 'dense'),
      (0, -1),
      ('encoder', 'head'),
      (() if linear else (0,),),
    ),
    groups=groups,
    work=work.build(tree.group_sizes(groups, shapes, 2)),
    init=partial(init, setup=setup),
    classes=setup.classes,
    encode=encode_image,
    cuts=1,
    fuse=fuse,
  )
