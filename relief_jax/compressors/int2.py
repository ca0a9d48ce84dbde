"""Quantises stochastically to 2 bits; unbiased."""

from relief_jax.compressors import rounding
from relief_jax.compressors.base import Codec, Compressor


def int2(codec: Codec) -> Compressor:
  """Quantises to 3 levels, see rounding.py.

  Bytes of k numbers: ceil(k / 4) + 4.
  """
  del codec
  return rounding.uniform(2)
