"""A trainable 3x3 convolution by Winograd's F(4x4, 3x3), for XLA:CPU.

Tiles of 4x4 outputs are computed from 6x6 inputs with 36 products instead of
144 (Lavin and Gray, 2016, https://arxiv.org/abs/1509.09308). Sums are in
another order than a direct convolution's: they agree to about 1e-5 relative.

Y = A' [(G w G') * (B' x B)] A per tile, and every gradient is the transpose.
The transforms are matrix products too, of a 36x36 and a 16x36 matrix with all
tiles at once. As sums of scaled arrays they take a tenth of the operations but
longer: XLA:CPU fuses such sums into their users, each of which then computes
all of it anew (an `optimization_barrier` is gone by then).
"""

from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.types import Array

TILE = 4  # outputs of a tile along one side
_B = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ],
  np.float32,
)
_G = np.array(
  [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ],
  np.float32,
)
_A = np.array(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
  ],
  np.float32,
)
_AA, _BB, _GG = (np.kron(v, v) for v in (_A, _B, _G))


def blocks(x: Array) -> Array:
  """Cuts images into blocks as `conv3x3` reads them.

  [B, 4s, 4s, c] -> [4, 4, B, s, s, c]: entry (i, j, n, a, b) is from (4a + i,
  4b + j) of image n. A transform then reads long runs of memory, not every
  fourth row.
  """
  batch, height, _, channels = x.shape
  s = height // TILE
  cut = x.reshape(batch, s, TILE, s, TILE, channels)
  return jnp.moveaxis(cut, (2, 4), (0, 1))


@jax.custom_vjp
def conv3x3(x: Array, w: Array) -> Array:
  """Convolves an image of side 4t + 2 with 3x3 kernels, unpadded.

  Args:
    x: [4, 4, B, t + 1, t + 1, c], from `blocks`; its positions from 4t + 2 on
      count for nothing.
    w: [9 * c, f], rows in the order (height, width, channel).

  Returns:
    [4, 4, B, t, t, f], in blocks.
  """
  return _forward(x, w)[0]


def _forward(x, w):
  *_, batch, s, _, channels = x.shape
  shape = (TILE, TILE, batch, s - 1, s - 1, w.shape[1])
  cut = jnp.stack([x[at] for at in _positions(s - 1)])
  tiles = (_BB @ cut.reshape(36, -1)).reshape(36, -1, channels)
  kernel = (_GG @ w.reshape(9, -1)).reshape(36, channels, -1)
  y = _AA @ jnp.einsum('knc,kcf->knf', tiles, kernel).reshape(36, -1)
  return y.reshape(shape), (tiles, kernel)


def _positions(t: int) -> Iterator[tuple]:
  """Yields where the 36 positions of all tiles lie in the blocks."""
  for i, j in product(range(6), range(6)):
    a, b = i // TILE, j // TILE
    every = slice(None)
    yield i % TILE, j % TILE, every, slice(a, a + t), slice(b, b + t)


def _backward(saved, dy):
  tiles, kernel = saved
  _, channels, filters = kernel.shape
  back = (_AA.T @ dy.reshape(16, -1)).reshape(36, -1, filters)
  dw = jnp.einsum('knc,knf->kcf', tiles, back)
  dtiles = jnp.einsum('knf,kcf->knc', back, kernel)
  cut = _BB.T @ dtiles.reshape(36, -1)
  cut = cut.reshape(6, 6, *dy.shape[2:5], channels)
  dx = _overlap(_overlap(cut, 0, 3), 1, 4)
  return dx, (_GG.T @ dw.reshape(36, -1)).reshape(9 * channels, filters)


def _overlap(v: Array, position: int, tile: int) -> Array:
  """Adds the overlap of two tiles: [6], [t] -> [4], [t + 1] on two axes.

  Args:
    v: six positions of t tiles.
    position: axis of the positions.
    tile: axis of the tiles.
  """
  first, last = jnp.split(v, [TILE], axis=position)

  def pad(v, axis, before, after):
    widths = [(0, 0)] * v.ndim
    widths[axis] = (before, after)
    return jnp.pad(v, widths)

  shared = pad(last, position, 0, TILE - 2)
  return pad(first, tile, 0, 1) + pad(shared, tile, 1, 0)


conv3x3.defvjp(_forward, _backward)
