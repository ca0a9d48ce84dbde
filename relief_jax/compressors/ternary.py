"""Ternary numbers: the quantiser of T-FedAvg, as a codec.

T-FedAvg (https://arxiv.org/abs/2003.03564) trains through ternary weights and
sends them up and down. Here its quantiser codes what a link sends, with any
method: the update on the uplink, the weights (or their change) on the
downlink. Local training stays in full precision, so this is *not* T-FedAvg
itself: the straight-through part belongs to a method and not to a link.

Matrices are coded; arrays with fewer axes (biases) stay in float32. The
original also keeps the first and the last layer: **ours** codes them.
"""

import jax.numpy as jnp

from relief_jax.compressors import none
from relief_jax.compressors.base import Codec, Compressor, Field, Shape, size
from relief_jax.errors import unknown


def _twn(x):
  return 0.7 * jnp.abs(x).mean()


def _released(x):
  return 0.07 * jnp.abs(x).sum() / (x.shape[0] * x.shape[1])


MODES = {'twn': _twn, 'released': _released}


def ternary(codec: Codec) -> Compressor:
  """s * sign(x) where |x| > D, else 0; s is the mean of these |x|.

  D is 0.7 mean|x| in the mode `twn` (Li et al., 2016,
  https://arxiv.org/abs/1605.04711) and 0.07 sum|x| / (dim0 * dim1) in the mode
  `released`, as T-FedAvg's public code has it; on a matrix that is a tenth of
  the other, on more axes it grows with their length.

  Args:
    codec: its `mode`.

  Returns:
    A compressor. Bytes of k numbers: ceil(k / 4) + 4 for a matrix (two bits
    each, and s), else 4 k.

  Raises:
    InputError: an unknown mode.
  """
  if codec.mode not in MODES:
    raise unknown('mode of ternary', codec.mode, MODES)
  threshold = MODES[codec.mode]

  def encode(x, key):
    if x.ndim < 2:
      return none.NONE.encode(x, key)
    kept = jnp.abs(x) > threshold(x)
    total = jnp.where(kept, jnp.abs(x), 0.0).sum()
    scale = total / jnp.maximum(kept.sum(), 1)
    q = jnp.where(kept, jnp.where(x > 0, 2, 0), 1)
    return {'scale': scale[None], 'q': q.reshape(-1).astype(jnp.uint8)}

  def decode(code, key, shape):
    if len(shape) < 2:
      return none.NONE.decode(code, key, shape)
    q = code['q'].astype(jnp.float32) - 1.0
    return (code['scale'] * q).reshape(shape)

  def fields(shape: Shape):
    if len(shape) < 2:
      return none.NONE.fields(shape)
    return Field('scale', 1, 32), Field('q', size(shape), 2)

  return Compressor(encode=encode, decode=decode, fields=fields)
