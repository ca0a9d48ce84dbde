"""Sends ternary numbers: the quantiser of T-FedAvg, as a codec.

T-FedAvg (https://arxiv.org/abs/2003.03564) trains through ternary weights and
sends them up and down. Here its quantiser codes what a link sends, with any
method: the update on the uplink, the weights (or their change) on the
downlink. Local training stays in full precision, so this is *not* T-FedAvg
itself (algorithms/tfedavg.py): training through ternary weights belongs to a
method and not to a link.

Matrices are coded; arrays with fewer axes (biases) stay in float32. The
original also keeps the first and the last layer: **ours** codes them.
"""

from collections.abc import Callable

import jax.numpy as jnp

from relief_jax.compressors import none
from relief_jax.compressors.base import Codec, Compressor, Field, Shape, size
from relief_jax.errors import unknown
from relief_jax.types import Array


def _twn(x):
  return 0.7 * jnp.abs(x).mean()


def _released(x):
  return 0.07 * jnp.abs(x).sum() / (x.shape[0] * x.shape[1])


MODES = {'twn': _twn, 'released': _released}


def threshold(mode: str) -> Callable[[Array], Array]:
  """Gives the threshold D of an array of two axes or more, [...] -> [].

  Raises:
    InputError: an unknown mode.
  """
  if mode not in MODES:
    raise unknown('mode of ternary', mode, MODES)
  return MODES[mode]


def scale(x: Array, kept: Array) -> Array:
  """Computes s, the mean magnitude of kept numbers, []; 0 where there are none.

  Args:
    x: [...] numbers.
    kept: [...] bool, |x| > D.
  """
  total = jnp.where(kept, jnp.abs(x), 0.0).sum()
  return total / jnp.maximum(kept.sum(), 1)


def ternary(codec: Codec) -> Compressor:
  """Sends s * sign(x) where |x| > D, else 0; s is the mean of these |x|.

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
  least = threshold(codec.mode)

  def encode(x, key):
    if x.ndim < 2:
      return none.NONE.encode(x, key)
    kept = jnp.abs(x) > least(x)
    q = jnp.where(kept, jnp.where(x > 0, 2, 0), 1).reshape(-1)
    return {'scale': scale(x, kept)[None], 'q': q.astype(jnp.uint8)}

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
