"""Keeps copies in the user's cache, for all loaders. **Ours.**

A copy is named by the checksum of its source and by the options that made it,
so that a changed file or option never meets an old copy. It is put in place in
one step: two processes may build it at once. A cache that cannot be written, or
a damaged copy, costs time and nothing else.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import npy

_VERSION = 2  # raise it when parsing changes what comes out
_DAMAGED = (
  zipfile.BadZipFile,
  zlib.error,
  EOFError,
  KeyError,
  OSError,
  ValueError,
)


def user_cache() -> Path | None:
  """Finds this program's folder in the user's cache; None without a home.

  `$XDG_CACHE_HOME/relief_jax`, else `~/.cache/relief_jax`. May not exist.
  """
  base = os.environ.get('XDG_CACHE_HOME')
  if base:
    return Path(os.path.expanduser(base)) / 'relief_jax'
  try:
    return Path.home() / '.cache' / 'relief_jax'
  except RuntimeError:
    return None


def key(data: Iterable[bytes], options: Mapping[str, Any]) -> str:
  """Computes a name for all that comes of sources under given options.

  >>> key([b'1 2'], {'rate': 25.0}) == key([b'1 2'], {'rate': 50.0})
  False

  Args:
    data: the bytes of every source, in order.
    options: plain values that change what is made of them.
  """
  made_by = json.dumps({'version': _VERSION, **options}, sort_keys=True)
  found = hashlib.sha256(made_by.encode())
  for source in data:
    found.update(len(source).to_bytes(8))
    found.update(source)
  return found.hexdigest()[:32]


def arrays(
  name: str, build: Callable[[], dict[str, NDArray]]
) -> dict[str, NDArray]:
  """Reads arrays from the cache if they are there and whole, else builds them.

  Args:
    name: of the copy, unique for source and options: see `key`.
    build: makes the arrays; none of them holds objects.

  Raises:
    InputError: what `build` raises; nothing is kept then.
  """
  home = user_cache()
  copy = home and home / 'parsed' / f'{name}.npz'
  if copy:
    with contextlib.suppress(*_DAMAGED):
      return npy.arrays(copy)
  found = build()
  if copy:
    keep(copy, lambda file: _savez(file, found))
  return found


def member(path: Path, name: str, label: str) -> NDArray:
  """Reads a slowly unpacked array of an `.npz`, from an unpacked copy if whole.

  The copy is named by the checksum that the zip file itself holds, and is
  checked against it.

  Args:
    path: of the `.npz`.
    name: of the array in it.
    label: of the data set, for the copy's name.

  Raises:
    OSError, KeyError, ValueError, zipfile.BadZipFile, ...: a damaged source;
      whatever zipfile, lzma and numpy raise.
  """
  with zipfile.ZipFile(path) as archive:
    found = archive.getinfo(f'{name}.npy')
    npy.fits(found.file_size, found.filename)
    home = user_cache()
    copy = home and home / 'unpacked' / f'{label}-{found.CRC:08x}.npy'
    if copy:
      with contextlib.suppress(OSError):
        data = bytearray(copy.read_bytes())
        if zlib.crc32(data) == found.CRC and len(data) == found.file_size:
          return npy.parse(data)
    data = npy.content(archive, found)
  if copy:
    keep(copy, lambda file: file.write(data))
  return npy.parse(data)


def _savez(file: Any, found: dict[str, Any]) -> None:
  np.savez(file, **found)


def keep(copy: Path, write: Callable[[Any], Any]) -> None:
  """Writes a file in one step, or not at all where that is not possible.

  Args:
    copy: the file; its folder is made where it is not there.
    write: (open binary file) -> anything.
  """
  temporary = None
  try:
    copy.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=copy.parent)
    with os.fdopen(handle, 'wb') as file:
      write(file)
    os.replace(temporary, copy)
  except OSError:  # read-only or full: go on without
    if temporary:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
