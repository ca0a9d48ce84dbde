"""Quantises stochastically to 8 bits; unbiased."""

from relief_jax.compressors import rounding
from relief_jax.compressors.base import Codec, Compressor


def int8(codec: Codec) -> Compressor:
  """Quantises to 255 levels, see rounding.py.

  Bytes of k numbers: k + 4.
  """
  del codec
  return rounding.uniform(8)
