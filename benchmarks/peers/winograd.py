"""A trainable 3x3 convolution by Winograd's F(4x4, 3x3), for XLA:CPU.

Tiles of 4x4 outputs are computed from 6x6 inputs with 36 products instead of
144 (Lavin and Gray, 2016, https://arxiv.org/abs/1509.09308). Forward and both
gradients become 36 matrix products each; nothing is larger than 2.25 times
the input, where im2col's columns are 9 times. Sums are in another order than
a direct convolution's: they agree to about 1e-5 relative.

Y = A' [(G w G') * (B' x B)] A per tile, and every gradient is the transpose.
"""

from collections.abc import Sequence
from functools import partial, reduce

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
_GG = np.kron(_G, _G)

# One row after the other, else XLA fuses both passes into one that computes
# every intermediate up to six times.
_materialise = jax.lax.optimization_barrier


def _mix(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
  """Rows of `matrix` times a vector of arrays; zeros and ones are free."""
  found = []
  for row in matrix:
    terms = [
      part if factor == 1 else part * factor
      for factor, part in zip(row, parts, strict=True)
      if factor
    ]
    found.append(reduce(jnp.add, terms))
  return found


def _grid_mix(matrix: np.ndarray, grid: list[list[Array]]) -> list[list[Array]]:
  """`matrix @ grid @ matrix.T` over a grid of arrays."""
  columns = [_mix(matrix, column) for column in zip(*grid, strict=True)]
  return [_mix(matrix, row) for row in zip(*_materialise(columns), strict=True)]


def _tiles(x: Array) -> list[list[Array]]:
  """B' x B: [B, 4t + 2, 4t + 2, c] -> 6 x 6 of [B * t * t, c]."""
  side = (x.shape[1] - 2) // TILE
  last = TILE * (side - 1) + 1
  rows = _materialise(_mix(_B, [x[:, i : i + last : TILE] for i in range(6)]))
  return [
    [
      v.reshape(-1, x.shape[-1])
      for v in _mix(_B, [r[:, :, j : j + last : TILE] for j in range(6)])
    ]
    for r in rows
  ]


def _untile(grid: list[list[Array]], batch: int) -> Array:
  """The transpose of `_tiles`: overlapping tiles are added up."""
  side = round((grid[0][0].shape[0] // batch) ** 0.5)
  shape = (batch, side, side, grid[0][0].shape[-1])
  rows = [
    _overlap(_mix(_B.T, [v.reshape(shape) for v in r]), axis=2) for r in grid
  ]
  return _overlap(_mix(_B.T, _materialise(rows)), axis=1)


def _overlap(parts: list[Array], axis: int) -> Array:
  """Puts 6 positions of t tiles with stride 4 side by side: 4t + 2."""
  size = parts[0].shape[axis]

  def shift(v, by):
    pad = [(0, 0)] * v.ndim
    pad[axis] = (by, 1 - by)
    return jnp.pad(v, pad)

  merged = [
    shift(parts[i], 0) + (shift(parts[i + TILE], 1) if i < 2 else 0)
    for i in range(TILE)
  ]
  joined = jnp.stack(merged, axis + 1)
  shape = list(parts[0].shape)
  shape[axis] = (size + 1) * TILE
  return jax.lax.slice_in_dim(
    joined.reshape(shape), 0, size * TILE + 2, axis=axis
  )


@partial(jax.custom_vjp)
def conv3x3(x: Array, w: Array) -> list[list[Array]]:
  """Unpadded 3x3 convolution, tile by tile.

  Args:
    x: [B, 4t + 2, 4t + 2, c].
    w: [9 * c, f], rows in the order (height, width, channel).

  Returns:
    4 x 4 of [B * t * t, f]: the output at (4a + p, 4b + q) is row a * t + b of
    entry (p, q).
  """
  return _forward(x, w)[0]


def _forward(x, w):
  tiles, kernel = _tiles(x), _kernel(w, x.shape[-1])
  # Each product of its own: XLA:CPU's batched product is slower.
  tiles = _materialise(tiles)
  product = [
    [v @ kernel[6 * i + j] for j, v in enumerate(row)]
    for i, row in enumerate(tiles)
  ]
  return _grid_mix(_A, product), (tiles, kernel, x.shape[0])


def _kernel(w: Array, channels: int) -> Array:
  """G w G': [9 * c, f] -> [36, c, f]."""
  return (jnp.asarray(_GG) @ w.reshape(9, -1)).reshape(36, channels, -1)


def _backward(saved, dy):
  tiles, kernel, batch = saved
  back = _materialise(_grid_mix(_A.T, dy))
  dw = jnp.stack(
    [
      (v.T @ d).reshape(-1)
      for row, drow in zip(tiles, back, strict=True)
      for v, d in zip(row, drow, strict=True)
    ]
  )
  dx = [
    [d @ kernel[6 * i + j].T for j, d in enumerate(row)]
    for i, row in enumerate(back)
  ]
  dw = (_GG.T @ dw).reshape(-1, kernel.shape[-1])
  return _untile(_materialise(dx), batch), dw


conv3x3.defvjp(_forward, _backward)
