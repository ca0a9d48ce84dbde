"""Sends numbers drawn at random; the receiver draws the same places.

Random masks from a shared seed (Konecny et al., 2016,
https://arxiv.org/abs/1610.05492, section 3): both ends derive the key from the
run's seed, the round, the device's id and the array's number, so no index is
on the wire.
"""

import jax
import jax.numpy as jnp

from relief_jax.compressors.base import Codec, Compressor, Field, size
from relief_jax.compressors.top_k import kept


def random_k(codec: Codec) -> Compressor:
  """Sends n = ceil(share * k) numbers, drawn uniformly without replacement.

  With `scaled` they arrive times k / n, which is x in the mean but magnifies
  what was to be sent: no error feedback then. Without, the link may have it.

  Args:
    codec: its `share` and `scaled`.

  Returns:
    A compressor. Bytes of k numbers: 4 n.
  """

  def chosen(key, shape):
    order = jnp.argsort(jax.random.bits(key, (size(shape),)))
    return order[: kept(codec.share, shape)]

  def encode(x, key):
    return {'value': x.reshape(-1)[chosen(key, x.shape)]}

  def decode(code, key, shape):
    count = size(shape)
    value = jnp.asarray(code['value'])
    if codec.scaled:
      value = value * (count / kept(codec.share, shape))
    zeros = jnp.zeros(count, jnp.float32)
    return zeros.at[chosen(key, shape)].set(value).reshape(shape)

  return Compressor(
    encode=encode,
    decode=decode,
    fields=lambda shape: (Field('value', kept(codec.share, shape), 32),),
    sparse=True,
    contracts=not codec.scaled,
  )
