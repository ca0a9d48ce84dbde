"""Compresses messages of a link: one file each, `Codec -> Compressor`."""

from relief_jax import plugins
from relief_jax.compressors import (
  int2,
  int4,
  int8,
  none,
  random_k,
  sign,
  ternary,
  top_k,
)
from relief_jax.compressors.base import Codec, Compressor
from relief_jax.errors import InputError

COMPRESSORS = {
  'int2': int2.int2,
  'int4': int4.int4,
  'int8': int8.int8,
  'none': none.none,
  'random_k': random_k.random_k,
  'sign': sign.sign,
  'ternary': ternary.ternary,
  'top_k': top_k.top_k,
}

KIND = plugins.Kind(
  'compressor',
  'uplink_codec.name',
  'relief_jax.compressors',
  COMPRESSORS,
  'a function (codec) that gives a Compressor',
  plugins.takes(1),
)


def make(codec: Codec) -> Compressor:
  """Builds the compressor that a codec names.

  Raises:
    InputError: an unknown name or mode, or a share outside of (0, 1].
  """
  found = plugins.find(KIND, codec.name)
  if not 0 < codec.share <= 1:  # NaN too
    raise InputError(
      f'a share of {codec.share}',
      'above 0 and at most 1',
      'set it to 0.05: every twentieth number is sent',
    )
  return found(codec)
