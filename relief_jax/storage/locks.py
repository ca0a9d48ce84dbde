"""Keeps two processes from writing into one folder."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from relief_jax.errors import InputError
from relief_jax.storage import records


@contextlib.contextmanager
def claim(
  folder: pathlib.Path, shared: bool = False, wait: bool = False
) -> Iterator[None]:
  """Holds a folder while the block runs; a killed process lets go of it.

  Args:
    folder: that is there.
    shared: others may hold it too, if they all say so.
    wait: for the others, instead of refusing.

  Raises:
    InputError: another process of this machine holds it.
    StorageError: the folder cannot be opened.
  """
  try:
    import fcntl
  except ImportError:  # no such locks on this system
    yield
    return
  with records.storing(folder):
    handle = os.open(folder, os.O_RDONLY)
  try:
    way = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
      fcntl.flock(handle, way if wait else way | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise InputError(
        f'{folder} in use by another process',
        'a directory of its own for every run, sweep or comparison',
        'wait for that process, or name another --workdir',
      ) from error
    except OSError:  # a file system without locks, as some network ones
      pass
    yield
  finally:
    os.close(handle)
