"""Rounds stochastically to evenly spaced levels, whatever their number.

QSGD (Alistarh et al., 2017, https://arxiv.org/abs/1610.02132) with the largest
magnitude of an array as its norm, **ours** in the choice of that norm.
"""

import jax
import jax.numpy as jnp

from relief_jax.compressors.base import Compressor, Field, size


def uniform(width: int) -> Compressor:
  """Sends x as scale * q, q an integer from -L to L, L = 2^(width-1) - 1.

  scale = max|x| / L; x / scale is rounded up with the probability of its
  fractional part, else down, so that what arrives is x in the mean. The error
  is below `scale` in every number: it contracts by 1 / L in the largest one,
  hence not with 2 bits.

  Args:
    width: bits of a number.

  Returns:
    A compressor. Bytes of k numbers: ceil(k * width / 8) + 4.
  """
  levels = 2 ** (width - 1) - 1

  def encode(x, key):
    x = x.reshape(-1)
    scale = jnp.abs(x).max() / levels
    ratio = jnp.where(scale > 0, x / scale, 0.0)
    low = jnp.floor(ratio)
    up = jax.random.uniform(key, x.shape) < ratio - low
    # The quotient of the largest number may be rounded to just above L.
    q = jnp.clip(low + up, -levels, levels)
    return {'scale': scale[None], 'q': (q + levels).astype(jnp.uint8)}

  def decode(code, key, shape):
    del key
    q = code['q'].astype(jnp.float32) - levels
    return (code['scale'] * q).reshape(shape)

  return Compressor(
    encode=encode,
    decode=decode,
    fields=lambda shape: (
      Field('scale', 1, 32),
      Field('q', size(shape), width),
    ),
    contracts=levels > 1,
  )
