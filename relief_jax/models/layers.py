"""Computes layers, written for clients that own their weights.

A convolution whose kernel differs per client becomes a grouped one under
vmap, and inside a loop it is an order of magnitude slower on XLA:CPU
(jax#12868), so a 1-D convolution here is im2col and a matrix product.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from relief_jax.types import Array, PyTree

# exp of it is 0 beside any score, and unlike an infinity it has a gradient.
NEVER = -1e9


def dense_init(key: Array, fan_in: int, fan_out: int) -> Array:
  """Draws [fan_in, fan_out] weights, He-normal for ReLU."""
  return jax.nn.initializers.he_normal()(key, (fan_in, fan_out), jnp.float32)


def conv_length(length: int, kernel: int, stride: int) -> int:
  """Computes the output length of an unpadded convolution."""
  return (length - kernel) // stride + 1


def columns(x: Array, kernel: int, stride: int) -> Array:
  """Gathers im2col columns: [B, L, c] -> [B * L', kernel * c + zeros].

  The numbers that an output position sees lie one after another in memory, so
  a row is one slice of `kernel * c` numbers, gathered. Slices of the taps that
  are concatenated take twice as long on XLA:CPU, which copies them first.
  Zeros fill a row up to a whole number of vector registers where few are
  needed.
  """
  batch, length, channels = x.shape
  row = kernel * channels
  first = jnp.arange(conv_length(length, kernel, stride)) * stride * channels
  cols = jax.lax.gather(
    x.reshape(batch, -1),
    first[:, None],
    jax.lax.GatherDimensionNumbers(
      offset_dims=(0, 2), collapsed_slice_dims=(), start_index_map=(1,)
    ),
    slice_sizes=(batch, row),
    indices_are_sorted=True,
    unique_indices=True,
    mode='promise_in_bounds',
  )
  padded = jnp.pad(cols, ((0, 0), (0, 0), (0, _zeros_after(row))))
  return padded.reshape(-1, padded.shape[-1])


_filled = contextvars.ContextVar('filled', default=True)


@contextlib.contextmanager
def bare() -> Iterator[None]:
  """Leaves out the zeros that fill rows: no device is charged for them."""
  token = _filled.set(False)
  try:
    yield
  finally:
    _filled.reset(token)


def _zeros_after(size: int) -> int:
  """Counts the zeros that round a row up to 16 numbers; 0 if too many."""
  zeros = -size % 16 if _filled.get() else 0
  return zeros if 8 * zeros <= size else 0


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv1d(x: Array, w: Array, kernel: int, stride: int) -> Array:
  """Computes a 1-D convolution, [B, L, c], [f, kernel * c] -> [B, L', f].

  Unpadded.

  The gradient of the input is written out by hand: one matrix product gives
  the gradient of the columns, and every input position adds the few of them
  that it went into. Autodiff would scatter them one tap after another.
  Weights have their outputs first: the product for their gradient then has
  the larger operand, the columns, as it lies in memory.
  """
  return _conv1d_forward(x, w, kernel, stride)[0]


def _conv1d_forward(x, w, kernel, stride):
  cols = columns(x, kernel, stride)
  padded = jnp.pad(w, ((0, 0), (0, _zeros_after(w.shape[1]))))
  y = (cols @ padded.T).reshape(x.shape[0], -1, w.shape[0])
  return y, (cols, w, x.shape)


def _conv1d_backward(kernel, stride, saved, dy):
  cols, w, (batch, length, channels) = saved
  after = conv_length(length, kernel, stride)
  flat = dy.reshape(batch * after, -1)
  dw = (flat.T @ cols)[:, : w.shape[1]]
  taps = (flat @ w).reshape(batch, after, kernel * channels)
  # Output q saw `stride` input positions from stride * (q + j) on by its taps
  # from stride * j on: taken as one position of `step` numbers, what they get
  # is a sum of shifted slices.
  step, shifts = stride * channels, -(-kernel // stride)
  parts = []
  for j in range(shifts):
    part = taps[:, :, j * step : (j + 1) * step]
    missing = step - part.shape[-1]
    parts.append(jnp.pad(part, ((0, 0), (j, shifts - 1 - j), (0, missing))))
  dx = sum(parts[1:], parts[0]).reshape(batch, -1, channels)
  unseen = max(length - dx.shape[1], 0)
  return jnp.pad(dx[:, :length], ((0, 0), (0, unseen), (0, 0))), dw


conv1d.defvjp(_conv1d_forward, _conv1d_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def conv1d_relu(
  x: Array, w: Array, b: Array, kernel: int, stride: int
) -> Array:
  """Computes `relu(conv1d(x, w) + b)`, and keeps no mask for its gradient.

  The sign can be read off the output. At 0 the gradient is 0, as
  that of `jax.nn.relu`.

  Args:
    x: [B, L, c].
    w: [f, kernel * c].
    b: [f].
    kernel: taps.
    stride: of the convolution.

  Returns:
    [B, L', f].
  """
  return _conv1d_relu_forward(x, w, b, kernel, stride)[0]


def _conv1d_relu_forward(x, w, b, kernel, stride):
  y, saved = _conv1d_forward(x, w, kernel, stride)
  y = bias(y, b)
  # Not maximum(): XLA:CPU would hand that to a kernel of its own.
  y = jnp.where(y > 0, y, 0.0)
  return y, (saved, y)


def _conv1d_relu_backward(kernel, stride, saved, dy):
  saved, y = saved
  # Flat for all of its readers, or XLA:CPU makes it once per shape.
  flat = jnp.where(y > 0, dy, 0.0).reshape(-1, y.shape[-1])
  return *_conv1d_backward(kernel, stride, saved, flat), flat.sum(0)


conv1d_relu.defvjp(_conv1d_relu_forward, _conv1d_relu_backward)


def convolution(
  x: Array,
  w: Array,
  strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  **given: Any,
) -> Array:
  """Computes a 1-D or 2-D convolution as matrix products, channels last.

  Stands for `jax.lax.conv_general_dilated` in Flax's layers, which take it as
  `nnx.Conv(..., conv_general_dilated=convolution)`: inside the loop over
  clients XLA:CPU computes its own an order of magnitude more slowly. What is
  grouped or dilated goes to that one.

  Args:
    x: [B, *S, c].
    w: [*taps, c, f].
    strides: of each axis.
    padding: `SAME`, `VALID` or (before, after) of each axis.
    **given: the others of `jax.lax.conv_general_dilated`.
  """
  taps, size = w.shape[:-2], x.shape[1:-1]
  plain = given.get('feature_group_count', 1) == 1 and all(
    set(given.get(key) or (1,)) == {1}
    for key in ('lhs_dilation', 'rhs_dilation')
  )
  layout = jax.lax.conv_dimension_numbers(
    x.shape, w.shape, given.get('dimension_numbers')
  )
  last = x.ndim - 1
  if not plain or len(taps) > 2 or layout.lhs_spec[:2] != (0, last):
    return jax.lax.conv_general_dilated(x, w, strides, padding, **given)
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(size, taps, strides, padding)
  x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
  if len(taps) == 1:
    flat = w.reshape(-1, w.shape[-1]).T
    return conv1d(x, flat, taps[0], strides[0])
  batch, height, width, channels = x.shape
  rows = conv_length(height, taps[0], strides[0])
  total = None
  for i in range(taps[0]):  # a row of taps after the other
    seen = x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0]]
    part = conv1d(
      seen.reshape(-1, width, channels),
      w[i].reshape(-1, w.shape[-1]).T,
      taps[1],
      strides[1],
    )
    total = part if total is None else total + part
  assert total is not None  # a kernel has taps
  return total.reshape(batch, rows, *total.shape[1:])


def bias(x: Array, b: Array) -> Array:
  """Adds a [f] bias to [..., f] without implicit rank promotion."""
  return x + jnp.broadcast_to(b, x.shape)


def conv_flops(length: int, kernel: int, c_in: int, c_out: int) -> float:
  """Counts the FLOPs of one pass (forward or either gradient) per sample.

  The gradient of the weight or of the input.
  """
  return 2.0 * length * kernel * c_in * c_out


def stop_below(tree: PyTree, frozen: bool) -> PyTree:
  """Stops the gradient of a tree where `frozen` (static)."""
  return jax.lax.stop_gradient(tree) if frozen else tree
