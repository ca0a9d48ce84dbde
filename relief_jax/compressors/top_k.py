"""Sends the largest numbers of every array, exactly; the rest is 0.

Biased, and by far the most of an update is left out: it needs the sender's
error feedback, which is on by default (Stich et al., 2018,
https://arxiv.org/abs/1809.07599).
"""

import math

import jax
import jax.numpy as jnp

from relief_jax.compressors.base import Codec, Compressor, Field, Shape, size


def kept(share: float, shape: Shape) -> int:
  """Counts the numbers of an array that are sent, at least one.

  ceil(share * k).
  """
  count = size(shape)
  # A share such as 0.07 times 100 is a little above 7.
  return min(count, max(1, math.ceil(share * count - 1e-9)))


def top_k(codec: Codec) -> Compressor:
  """Sends the n = ceil(share * k) largest magnitudes; of equal ones the first.

  Their places are sent as an index of w = ceil(log2 k) bits each or as one
  bit for every number of the array, whichever is less.

  Args:
    codec: its `share`.

  Returns:
    A compressor. Bytes of k numbers: 4 n + ceil(min(n w, k) / 8).
  """

  def by_index(shape: Shape) -> bool:
    return kept(codec.share, shape) * _width(shape) <= size(shape)

  def encode(x, key):
    del key
    flat = x.reshape(-1)
    count = kept(codec.share, x.shape)
    index = jnp.sort(jax.lax.top_k(jnp.abs(flat), count)[1])
    code = {'value': flat[index]}
    if by_index(x.shape):
      kind = jnp.uint8 if _width(x.shape) <= 8 else jnp.uint32
      return {**code, 'index': index.astype(kind)}
    mask = jnp.zeros(flat.shape, jnp.uint8).at[index].set(1)
    return {**code, 'mask': mask}

  def decode(code, key, shape):
    del key
    value = jnp.asarray(code['value'])
    if by_index(shape):
      zeros = jnp.zeros(size(shape), jnp.float32)
      index = jnp.asarray(code['index'], jnp.int32)
      return zeros.at[index].set(value).reshape(shape)
    mask = jnp.asarray(code['mask'], jnp.int32)
    place = jnp.maximum(jnp.cumsum(mask) - 1, 0)
    return jnp.where(mask > 0, value[place], 0.0).reshape(shape)

  def fields(shape: Shape):
    count = kept(codec.share, shape)
    value = Field('value', count, 32)
    if by_index(shape):
      return value, Field('index', count, _width(shape))
    return value, Field('mask', size(shape), 1)

  return Compressor(encode=encode, decode=decode, fields=fields, sparse=True)


def _width(shape: Shape) -> int:
  """Computes the bits of an index into an array."""
  return (size(shape) - 1).bit_length()
