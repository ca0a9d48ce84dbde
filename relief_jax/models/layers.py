"""Layers written for clients that own their weights.

A convolution whose kernel differs per client becomes a grouped one under
vmap, and inside a loop it is an order of magnitude slower on XLA:CPU
(jax#12868), so a 1-D convolution here is im2col and a matrix product.
"""

from functools import partial

import jax
import jax.numpy as jnp

from relief_jax.types import Array, PyTree


def dense_init(key: Array, fan_in: int, fan_out: int) -> Array:
  """[fan_in, fan_out], He-normal for ReLU."""
  return jax.nn.initializers.he_normal()(key, (fan_in, fan_out), jnp.float32)


def conv_length(length: int, kernel: int, stride: int) -> int:
  """Output length of an unpadded convolution."""
  return (length - kernel) // stride + 1


def columns(x: Array, kernel: int, stride: int) -> Array:
  """im2col by slices: [B, L, c] -> [B, L', kernel * c]."""
  length = conv_length(x.shape[1], kernel, stride)
  last = stride * (length - 1) + 1
  return jnp.concatenate(
    [x[:, i : i + last : stride] for i in range(kernel)], axis=-1
  )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv1d(x: Array, w: Array, kernel: int, stride: int) -> Array:
  """Unpadded 1-D convolution, [B, L, c] and [kernel * c, f] -> [B, L', f].

  The gradient of the input is written out by hand as `stride` matrix
  products: output positions of one residue class see the same taps. Autodiff
  would scatter-add the columns' gradient instead, which costs half as much
  again as the whole step.
  """
  return columns(x, kernel, stride) @ w


def _conv1d_forward(x, w, kernel, stride):
  cols = columns(x, kernel, stride)
  return cols @ w, (cols, w, x.shape)


def _conv1d_backward(kernel, stride, saved, dy):
  cols, w, (batch, length, channels) = saved
  features = w.shape[1]
  dw = cols.reshape(-1, cols.shape[-1]).T @ dy.reshape(-1, features)
  taps = w.reshape(kernel, channels, features)
  whole = -(-length // stride)
  parts = []
  for residue in range(stride):
    used = range(residue, kernel, stride)
    if not used:
      parts.append(jnp.zeros((batch, whole, channels), dy.dtype))
      continue
    # Input position p = residue + stride * q gets dy[q - j] through its j-th
    # tap of this residue.
    pad = jnp.pad(dy, ((0, 0), (len(used) - 1, whole), (0, 0)))
    seen = jnp.concatenate(
      [
        jax.lax.slice_in_dim(
          pad, len(used) - 1 - j, len(used) - 1 - j + whole, axis=1
        )
        for j in range(len(used))
      ],
      axis=-1,
    )
    back = jnp.concatenate([taps[i].T for i in used], axis=0)
    parts.append(seen @ back)
  dx = jnp.stack(parts, axis=2).reshape(batch, whole * stride, channels)
  return dx[:, :length], dw


conv1d.defvjp(_conv1d_forward, _conv1d_backward)


def bias(x: Array, b: Array) -> Array:
  """Adds a [f] bias to [..., f] without implicit rank promotion."""
  return x + jnp.broadcast_to(b, x.shape)


def conv_flops(length: int, kernel: int, c_in: int, c_out: int) -> float:
  """FLOPs of one pass (forward, weight or input gradient) per sample."""
  return 2.0 * length * kernel * c_in * c_out


def stop_below(tree: PyTree, frozen: bool) -> PyTree:
  """The same tree, cut from the gradient where `frozen` (static)."""
  return jax.lax.stop_gradient(tree) if frozen else tree
