"""What this machine has; starts no backend."""

import os
import pathlib

_CGROUP = pathlib.Path('/sys/fs/cgroup/memory.max')


def memory() -> int:
  """Bytes of memory that there are, 0 where the system does not tell.

  On Linux a container's own limit counts, where that is lower.
  """
  found = []
  try:
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  except (ValueError, OSError, AttributeError):
    pass
  try:
    found.append(int(_CGROUP.read_text()))
  except (ValueError, OSError):  # 'max', or no such file
    pass
  return min((v for v in found if v > 0), default=0)
