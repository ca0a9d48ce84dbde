"""Estimates the memory of a run before the run takes it.

On CPU this process counts: the bytes that it holds when asked plus those that
its compiled programs will reserve on each of its devices. On an accelerator it
is one device: the arrays on it and what the programs reserve there.
"""

import math
import os
import pathlib
import resource
from typing import NamedTuple

import jax

from relief_jax.engine import machine
from relief_jax.errors import InputError
from relief_jax.types import PyTree


class Estimate(NamedTuple):
  """Holds the bytes of a run, of this process on CPU, else of one accelerator.

  Attributes:
    held: before the program runs: on CPU the whole process (interpreter,
      libraries, compiler, data), else the arrays on the device.
    program: what the program reserves beside them.
    limit: what there is; 0 where the system does not tell.
  """

  held: int
  program: int
  limit: int

  @property
  def total(self) -> int:
    return self.held + self.program

  @property
  def fits(self) -> bool:
    """Tells whether it is within the limit; an unknown one refuses nothing."""
    return not self.limit or self.total <= self.limit

  def __str__(self):
    of = f' of {_human(self.limit)}' if self.limit else ''
    return (
      f'about {_human(self.total)}{of} of memory '
      f'({_human(self.held)} held, {_human(self.program)} for a call)'
    )


def size(value: PyTree) -> int:
  """Counts the bytes of all arrays (or shapes) in a pytree, each once."""
  return sum(
    math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(value)
  )


def on_device(value: PyTree) -> int:
  """Counts the bytes of arrays on one of this process's devices."""
  return sum(
    math.prod(v.sharding.shard_shape(v.shape)) * v.dtype.itemsize
    for v in jax.tree.leaves(value)
  )


def limit() -> int:
  """Gives the bytes there are: of an accelerator, else of this machine.

  0 where unknown.

  On Linux a container's own limit counts, where that is lower.
  """
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return int(stats['bytes_limit'])
  return machine.memory()


def estimate(arrays: int, program: int, most: int | None = None) -> Estimate:
  """Estimates the memory of a run on this process's devices.

  Args:
    arrays: bytes of arrays on one device; on CPU those that are still to be
      made, since what exists is counted with the process.
    program: bytes that the programs reserve on one device.
    most: stands for `limit()`.
  """
  most = limit() if most is None else most
  if jax.default_backend() != 'cpu':
    return Estimate(arrays, program, most)
  devices = jax.local_device_count()
  return Estimate(resident() + devices * arrays, devices * program, most)


def check(found: Estimate, cure: str) -> None:
  """Refuses a run that cannot fit.

  Raises:
    InputError: the estimate is above its limit.
  """
  if not found.fits:
    raise InputError(
      f'a run that takes {_human(found.total)} of memory '
      f'({_human(found.held)} held, {_human(found.program)} for a call)',
      f'at most the {_human(found.limit)} that there are',
      cure,
    )


def resident() -> int:
  """Gives the bytes that this process holds now; where not told, its peak."""
  try:
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  except (OSError, ValueError, IndexError):
    return _peak()
  return pages * os.sysconf('SC_PAGE_SIZE')


def peak() -> int:
  """Gives peak bytes: of the first accelerator, or of this process on CPU."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'peak_bytes_in_use' in stats:
    return int(stats['peak_bytes_in_use'])
  return _peak()


def _peak() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _human(size: float) -> str:
  """Formats bytes for readers, in powers of 1000.

  >>> _human(1), _human(2.5e6), _human(123456789012)
  ('1 B', '2.5 MB', '123 GB')
  """
  units = ('B', 'kB', 'MB', 'GB', 'TB', 'PB')
  power = 0
  while size >= 999.5 and power < len(units) - 1:
    size, power = size / 1000, power + 1
  return f'{size:.3g} {units[power]}'
