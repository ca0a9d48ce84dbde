"""Defines compressors, and the size and layout of their codes in bytes.

A compressor codes one array at a time. Its code is a few arrays of numbers, as
many as the shape says, so that a message has the same length in every round
and the cost model needs no data. `pack` writes exactly these arrays into bytes
and `unpack` reads them back; nothing else has to be sent.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from relief_jax.errors import InputError
from relief_jax.types import Array, PyTree

Shape = tuple[int, ...]
Code = dict[str, Any]  # arrays by field, of JAX or NumPy


class Codec(NamedTuple):
  """Describes the compressor of a link, and its options; all static.

  Attributes:
    name: in `COMPRESSORS`.
    share: of the numbers that `top_k` and `random_k` keep, in (0, 1].
    mode: of `ternary`, `twn` or `released`.
    scaled: `random_k` divides what it keeps by the share: unbiased.
    error_feedback: `on`, `off` or `auto`: the sender keeps what did not arrive
      (updates/link.py); `auto` for the sparse compressors that shrink their
      error.
  """

  name: str = 'none'
  share: float = 0.05
  mode: str = 'twn'
  scaled: bool = True
  error_feedback: str = 'auto'


class Field(NamedTuple):
  """Describes one array of a code on the wire.

  Attributes:
    name: its key in the code.
    length: numbers in it.
    width: bits of each: 32 is a float32, less an unsigned integer. The last
      byte of an array is filled up.
  """

  name: str
  length: int
  width: int

  @property
  def bytes(self) -> int:
    return -(-self.length * self.width // 8)


class Compressor(NamedTuple):
  """Codes one array of any shape; pure functions.

  Attributes:
    encode: (x float32, key) -> code; integers up to 8 bits are uint8, wider
      ones uint32.
    decode: (code, key, shape) -> what arrives, float32. The receiver derives
      the same key, so what is drawn from it is never sent.
    fields: shape -> the code's arrays in the order of the wire.
    sparse: most of what arrives is 0.
    contracts: what is lost is smaller than what was to be sent, in some norm;
      only then does error feedback stay bounded.
    lossless: nothing is lost.
  """

  encode: Callable[[Array, Array], Code]
  decode: Callable[[Code, Array, Shape], Array]
  fields: Callable[[Shape], tuple[Field, ...]]
  sparse: bool = False
  contracts: bool = True
  lossless: bool = False


def size(shape: Shape) -> int:
  """Counts the numbers in an array of this shape."""
  return int(np.prod(shape, dtype=np.int64))


def wire_bytes(compressor: Compressor, shape: Shape) -> int:
  """Computes the bytes of the code of an array: the sum over its fields.

  >>> from relief_jax.compressors.none import NONE
  >>> wire_bytes(NONE, (3, 4))
  48
  """
  return sum(field.bytes for field in compressor.fields(shape))


def pack(compressor: Compressor, code: Code, shape: Shape) -> bytes:
  """Packs a code as it is sent, `wire_bytes` long; on the host.

  Numbers of fewer bits follow each other without gaps, lowest bit first;
  float32 is little-endian.

  Args:
    compressor: that made the code.
    code: of an array.
    shape: of the array.

  Raises:
    InputError: an array of the code has another length than its field.
  """
  parts = []
  for field in compressor.fields(shape):
    value = np.asarray(code[field.name]).reshape(-1)
    if value.size != field.length:
      raise InputError(
        f'{value.size} numbers of {field.name!r}',
        f'{field.length} for an array of shape {shape}',
        'pack a code together with the shape that it was made of',
      )
    if field.width == 32:
      parts.append(value.astype('<f4').tobytes())
    else:
      bits = value[:, None].astype(np.uint32) >> _places(field.width) & 1
      bits = np.packbits(bits.astype(np.uint8), bitorder='little')
      parts.append(bits.tobytes())
  return b''.join(parts)


def unpack(compressor: Compressor, data: bytes, shape: Shape) -> Code:
  """Inverts `pack`, bit for bit.

  Raises:
    InputError: another number of bytes than `wire_bytes`.
  """
  expected = wire_bytes(compressor, shape)
  if len(data) != expected:
    raise InputError(
      f'{len(data)} bytes',
      f'{expected} for an array of shape {shape}',
      'unpack with the compressor and the shape that packed it',
    )
  code: Code = {}
  start = 0
  for field in compressor.fields(shape):
    part = data[start : start + field.bytes]
    start += field.bytes
    if field.width == 32:
      code[field.name] = np.frombuffer(part, '<f4').astype(np.float32)
      continue
    bits = np.unpackbits(
      np.frombuffer(part, np.uint8),
      count=field.length * field.width,
      bitorder='little',
    ).reshape(field.length, field.width)
    value = (bits.astype(np.uint32) << _places(field.width)).sum(1)
    kind = np.uint8 if field.width <= 8 else np.uint32
    code[field.name] = value.astype(kind)
  return code


def _places(width: int) -> np.ndarray:
  """Gives the places of a number's bits, [1, width]."""
  return np.arange(width, dtype=np.uint32)[None]


def leaf_keys(key: Array, tree: PyTree) -> PyTree:
  """Derives a key for every array of a tree, by its number."""
  leaves, structure = jax.tree.flatten(tree)
  keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
  return jax.tree.unflatten(structure, keys)


def arrived(compressor: Compressor, x: Array, key: Array) -> Array:
  """Codes and decodes an array, as it arrives.

  Args:
    compressor: of the array.
    x: what is sent.
    key: of the message.
  """
  return compressor.decode(compressor.encode(x, key), key, x.shape)


def transmit(compressor: Compressor, key: Array, tree: PyTree) -> PyTree:
  """Codes and decodes a tree of arrays, as it arrives.

  Args:
    compressor: of every array.
    key: of the message.
    tree: P.

  Returns:
    P.
  """
  return jax.tree.map(partial(arrived, compressor), tree, leaf_keys(key, tree))


def chain(first: Compressor, second: Compressor) -> Compressor:
  """Chains two: the second codes what arrives of the first, and is sent.

  Two that shrink their errors need not do so together: such a chain has no
  error feedback.
  """
  if second.lossless:
    return first
  if first.lossless:
    return second

  def encode(x, key):
    one, two = jax.random.split(key)
    return second.encode(arrived(first, x, one), two)

  def decode(code, key, shape):
    return second.decode(code, jax.random.split(key)[1], shape)

  return Compressor(
    encode,
    decode,
    second.fields,
    sparse=first.sparse or second.sparse,
    contracts=False,
  )
