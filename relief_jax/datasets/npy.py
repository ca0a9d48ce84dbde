"""Reads arrays out of `.npz` files from unknown writers. **Ours.**

What a file announces is compared with what it holds, and with this machine's
memory, before any memory is taken: a small file may unpack to any size, and a
header may announce an array that is not there. Nothing is unpickled.
"""

import io
import math
import warnings
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relief_jax.engine import machine

_UNKNOWN = 1 << 34  # bytes, where the system does not tell its memory
_PIECE = 1 << 16  # compressed data is unpacked in pieces of so many bytes


def limit() -> int:
  """Gives the bytes that arrays of one file may take: half of the memory."""
  return (machine.memory() or _UNKNOWN) // 2


def arrays(path: Path, but: tuple[str, ...] = ()) -> dict[str, NDArray]:
  """Reads all arrays of an `.npz`, by name.

  Args:
    path: of the file.
    but: names of those that are left out.

  Raises:
    ValueError: an array that is not whole, too large, or not of plain numbers
      and names.
    OSError, zipfile.BadZipFile, zlib.error, ...: whatever zipfile raises for a
      damaged file (`packed.DAMAGED`).
  """
  found = {}
  with zipfile.ZipFile(path) as archive:
    members = {
      info.filename.removesuffix('.npy'): info
      for info in archive.infolist()
      if info.filename.endswith('.npy')
    }
    wanted = {k: v for k, v in members.items() if k not in but}
    fits(sum(info.file_size for info in wanted.values()), str(path))
    for name, info in wanted.items():
      found[name] = parse(content(archive, info))
  return found


def fits(size: int, what: str) -> None:
  """Refuses a size that this machine cannot hold.

  Args:
    size: bytes.
    what: for the message.

  Raises:
    ValueError: more than `limit`.
  """
  if size > limit():
    raise ValueError(
      f'{what} announces {size:,} bytes, more than half of the memory of this '
      'machine'
    )


def content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
  """Reads a member's bytes, never more than it announces.

  Args:
    archive: open.
    info: of the member.

  Raises:
    ValueError: it announces too much, or holds less than it announces.
    OSError, zipfile.BadZipFile, zlib.error, ...: whatever zipfile raises.
  """
  fits(info.file_size, info.filename)
  data = bytearray()
  with archive.open(info) as file:
    while piece := file.read(_PIECE):
      data += piece
  if len(data) != info.file_size:
    raise ValueError(f'{info.filename} ends after {len(data):,} bytes')
  return data


def parse(data: bytes | bytearray) -> NDArray:
  """Parses the bytes of an `.npy` file; the array is writable if they are.

  >>> file = io.BytesIO()
  >>> np.save(file, np.arange(3))
  >>> parse(file.getvalue())
  array([0, 1, 2])

  Raises:
    ValueError: no such file, or one that holds another number of bytes than
      its header announces.
  """
  file = io.BytesIO(data)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of Python 2's headers
      version = np.lib.format.read_magic(file)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }[version]
      shape, fortran, dtype = read(file)
  except Exception as error:  # its parser raises much for broken bytes
    raise ValueError(f'no header of an array ({error})') from error
  if dtype.hasobject or dtype.names:
    raise ValueError(
      f'Object arrays or records ({dtype}), neither numbers nor names'
    )
  expected, found = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
  if min(shape, default=0) < 0 or expected != found or not dtype.itemsize:
    raise ValueError(
      f'{dtype} of shape {shape} announced, {found:,} bytes there'
    )
  flat = np.frombuffer(data, dtype, offset=file.tell())
  return flat.reshape(shape, order='F' if fortran else 'C')
