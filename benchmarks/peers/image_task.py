"""The public set-ups' models as Tasks of the simulator: one modality.

CNN: conv 3x3x32, conv 3x3x64, max-pool 2, dense 128, dense C, unpadded, ReLU
in between. The second convolution, nine tenths of the work, runs by Winograd's
algorithm (`winograd.py`) or as im2col. Bias and ReLU come after the pool: both
are monotone, so that nothing changes but three quarters of their cost.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp

from benchmarks.peers import winograd
from benchmarks.peers.common import Setup
from relief_jax import tree
from relief_jax.models import encoders, layers
from relief_jax.types import Array, PyTree, Task

_FILTERS = (32, 64)
_HIDDEN = 128


def columns(x: Array) -> Array:
  """im2col of a 3x3 kernel: [B, H, W, c] -> [B, H - 2, W - 2, 9 * c]."""
  h, w = x.shape[1] - 2, x.shape[2] - 2
  taps = [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return jnp.concatenate(taps, axis=-1)


@jax.custom_vjp
def conv3x3(x: Array, w: Array) -> Array:
  """Unpadded 3x3 convolution by im2col, [B, H, W, c] and [9 * c, f]."""
  return columns(x) @ w


def _conv_forward(x, w):
  cols = columns(x)
  return cols @ w, (cols, w, x.shape[-1])


def _conv_backward(saved, dy):
  cols, w, channels = saved
  dw = cols.reshape(-1, cols.shape[-1]).T @ dy.reshape(-1, w.shape[1])
  taps = w.reshape(9, channels, -1)[::-1].transpose(0, 2, 1)
  wide = jnp.pad(dy, ((0, 0), (2, 2), (2, 2), (0, 0)))
  return columns(wide) @ taps.reshape(-1, channels), dw


conv3x3.defvjp(_conv_forward, _conv_backward)


@jax.custom_vjp
def dense(x: Array, w: Array) -> Array:
  """[B, a] @ [a, b], for a small batch and a large weight.

  The weight's gradient is written as a sum over the batch, which XLA fuses
  into the optimiser's update: it never exists in memory.
  """
  return x @ w


def _dense_backward(saved, dy):
  x, w = saved
  dw = sum(x[i][:, None] * dy[i][None] for i in range(x.shape[0]))
  return dy @ w.T, dw


dense.defvjp(lambda x, w: (x @ w, (x, w)), _dense_backward)


@jax.custom_vjp
def pooled(grid: list[list[Array]]) -> list[Array]:
  """Max over 2 x 2 neighbours of a 4 x 4 grid of arrays.

  The gradient goes to the first largest of each four, whose number is kept:
  that of `jnp.maximum` shares it out where two are equal, which costs a pass
  over all of them.
  """
  return _pool_forward(grid)[0]


def _pool_forward(grid):
  # Else XLA computes the convolution's last step anew for every use.
  grid = jax.lax.optimization_barrier(grid)
  found, first = [], []
  for i in (0, 2):
    for j in (0, 2):
      four = [grid[i][j], grid[i][j + 1], grid[i + 1][j], grid[i + 1][j + 1]]
      most = reduce(jnp.maximum, four)
      number = jnp.where(four[2] == most, 2, 3)
      number = jnp.where(four[1] == most, 1, number)
      first.append(jnp.where(four[0] == most, 0, number).astype(jnp.int8))
      found.append(most)
  return jax.lax.optimization_barrier((found, first))


def _pool_backward(first, gradients):
  return (
    [
      [
        jnp.where(
          first[i // 2 * 2 + j // 2] == i % 2 * 2 + j % 2,
          gradients[i // 2 * 2 + j // 2],
          0.0,
        )
        for j in range(4)
      ]
      for i in range(4)
    ],
  )


pooled.defvjp(_pool_forward, _pool_backward)


def encode(kind: str, params: PyTree, x: Array) -> Array:
  """Images to features, [B, H, W, c] -> [B, d]."""
  one, two = params
  x = jax.nn.relu(layers.bias(conv3x3(x, one['w']), one['b']))
  batch, side = x.shape[0], x.shape[1] - 2
  if kind == 'winograd':
    parts = pooled(winograd.conv3x3(x, two['w']))
    parts = [jax.nn.relu(layers.bias(p, two['b'])) for p in parts]
    return jnp.concatenate([p.reshape(batch, -1) for p in parts], axis=-1)
  y = conv3x3(x, two['w']).reshape(batch, side // 2, 2, side // 2, 2, -1)
  y = jnp.maximum(y[:, :, 0], y[:, :, 1])
  y = jnp.maximum(y[:, :, :, 0], y[:, :, :, 1])
  return jax.nn.relu(layers.bias(y, two['b'])).reshape(batch, -1)


def init(key: Array, setup: Setup) -> PyTree:
  """Parameters: {'encoder': {'image': [layers]}, 'dense': [layers]}."""
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


def image_task(setup: Setup, kind: str) -> Task:
  """A set-up's model.

  Args:
    setup: `cnn` or `linear`.
    kind: of the second convolution, `winograd` or `im2col`.
  """
  linear = setup.model == 'linear'
  product = dense if setup.batch <= 16 else jnp.matmul

  def encode_image(params, frozen, m, x, cut):
    del frozen, m
    own = layers.stop_below(params['encoder']['image'], cut > 0)
    return x if linear else encode(kind, own, x)

  def fuse(params, frozen, features, run):
    del frozen, run
    z = features['image']
    *hidden, last = params['dense']
    for layer in hidden:
      z = jax.nn.relu(layers.bias(product(z, layer['w']), layer['b']))
    return layers.bias(z @ last['w'], last['b'])

  groups = {
    'encoder': {'image': [0, 0][: 0 if linear else 2]},
    'dense': [1] * (1 if linear else 2),
  }
  work = encoders.WorkBuilder(1, 2)
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
    group_names=('encoder', 'dense'),
    group_modality=(0, -1),
    groups=groups,
    work=work.build(tree.group_sizes(groups, shapes, 2)),
    init=partial(init, setup=setup),
    encode=encode_image,
    cuts=1,
    layer_groups=(() if linear else (0,),),
    fuse=fuse,
  )
