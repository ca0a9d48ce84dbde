"""Sends scaled signs: one bit a number and the mean magnitude.

The compressor of EF-signSGD (Karimireddy et al., 2019,
https://arxiv.org/abs/1901.09847, section 4); biased, so it
needs error feedback (`error_feedback='on'`) to converge.
"""

import jax.numpy as jnp

from relief_jax.compressors.base import Codec, Compressor, Field, size


def sign(codec: Codec) -> Compressor:
  """Sends mean|x| * sign(x), with sign(0) = 1. Bytes: ceil(k / 8) + 4."""
  del codec

  def encode(x, key):
    del key
    x = x.reshape(-1)
    return {
      'scale': jnp.abs(x).mean()[None],
      'bit': (x >= 0).astype(jnp.uint8),
    }

  def decode(code, key, shape):
    del key
    return (code['scale'] * (2.0 * code['bit'] - 1.0)).reshape(shape)

  return Compressor(
    encode=encode,
    decode=decode,
    fields=lambda shape: (
      Field('scale', 1, 32),
      Field('bit', size(shape), 1),
    ),
  )
