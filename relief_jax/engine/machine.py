"""Finds the cores, memory and GPUs that the process may use; starts no backend.

A job often has a part of its machine only: some cores (affinity, as Slurm and
taskset set it), a share of their time or of the memory (control groups, as
containers and systemd set them). On Linux all limits above the process count,
those of its own group and of every group around it.
"""

import contextlib
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

_ROOT = pathlib.Path('/')


def cores(root: pathlib.Path = _ROOT) -> int:
  """Counts the cores that this process may use, at least one; a part is one.

  Args:
    root: of the file system, for tests.
  """
  try:
    found = len(os.sched_getaffinity(0))
  except (AttributeError, OSError):  # macOS, Windows
    found = os.cpu_count() or 1
  shares = [math.ceil(quota) for quota in _quotas(root)]
  return max(1, min([found, *shares]))


def memory(root: pathlib.Path = _ROOT) -> int:
  """Gives the bytes of memory that this process may use, 0 where not told.

  Args:
    root: of the file system, for tests.
  """
  found = []
  with contextlib.suppress(ValueError, OSError, AttributeError):
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  for version, folder in _groups('memory', root):
    name = 'memory.max' if version == 2 else 'memory.limit_in_bytes'
    with contextlib.suppress(OSError, ValueError):  # 'max', or no such file
      found.append(int((folder / name).read_text()))
  return min((v for v in found if v > 0), default=0)


def _quotas(root: pathlib.Path) -> Iterator[float]:
  """Reads the cores' worth of time that each control group grants."""
  for version, folder in _groups('cpu', root):
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
      if version == 2:  # '150000 100000', or 'max 100000'
        quota, period = (folder / 'cpu.max').read_text().split()
      else:  # -1 for none
        quota = (folder / 'cpu.cfs_quota_us').read_text()
        period = (folder / 'cpu.cfs_period_us').read_text()
      if int(quota) > 0:
        yield int(quota) / int(period)


def _groups(
  controller: str, root: pathlib.Path
) -> Iterator[tuple[int, pathlib.Path]]:
  """Finds the folders of this process's control groups, the innermost first.

  Args:
    controller: 'cpu' or 'memory'.
    root: of the file system.

  Yields:
    Version of the interface, 1 or 2, and a folder.
  """
  try:
    own = (root / 'proc/self/cgroup').read_text().splitlines()
    mounts = (root / 'proc/self/mountinfo').read_text().splitlines()
  except (OSError, UnicodeDecodeError):  # no Linux
    return
  paths: dict[int, str] = {}
  for line in own:  # 'number:controllers:path', no controllers in version 2
    number, _, rest = line.partition(':')
    names, _, path = rest.partition(':')
    if controller in names.split(','):
      paths[1] = path
    elif number == '0' and not names:
      paths[2] = path
  for line in mounts:
    head, _, tail = line.partition(' - ')
    fields, kind = head.split(), tail.split()
    if len(fields) < 5 or len(kind) < 3 or not kind[0].startswith('cgroup'):
      continue
    version = 2 if kind[0] == 'cgroup2' else 1
    if version == 1 and controller not in kind[2].split(','):
      continue
    if version not in paths:
      continue
    top = root / _plain(fields[4]).lstrip('/')
    inside = _below(paths[version], _plain(fields[3]))
    for depth in range(len(inside), -1, -1):
      yield version, top.joinpath(*inside[:depth])


def _plain(text: str) -> str:
  """Decodes a path of mountinfo, which writes blanks as octal numbers."""
  return text.replace('\\040', ' ').replace('\\011', '\t')


def _below(path: str, mounted: str) -> tuple[str, ...]:
  """Splits a group path below a mount into parts; none where it is outside."""
  try:
    found = pathlib.PurePosixPath(path).relative_to(mounted).parts
  except ValueError:
    return ()
  return () if '..' in found else found


# Which GPUs a process sees; ROCm knows both.
VISIBLE = ('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES')

# In a process of its own: a backend once started keeps its accelerators.
_ASK = (
  'import json, jax; print(json.dumps([jax.default_backend(), '
  'len(jax.local_devices())]))'
)


def accelerators() -> list[str]:
  """Lists accelerators that JAX can use: names of GPUs; 'tpu' for all TPUs.

  JAX itself is asked, in a process of its own, where it has a plug-in for
  something else than the CPU. A GPU has the name by which
  `CUDA_VISIBLE_DEVICES` calls it.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '').lower()
  if platforms == 'cpu' or not _plugins():
    return []
  shown = next((os.environ[v] for v in VISIBLE if v in os.environ), None)
  backend, count = _ask(platforms, shown)
  if backend == 'tpu':
    return ['tpu']
  if backend == 'cpu':
    return []
  names = [one.strip() for one in (shown or '').split(',') if one.strip()]
  return (names or [str(i) for i in range(count)])[:count]


def _plugins() -> bool:
  """Tells whether JAX is installed for more than the CPU."""
  if importlib.metadata.entry_points(group='jax_plugins'):
    return True
  with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    return bool(importlib.metadata.version('libtpu'))
  return False


@functools.cache
def _ask(platforms: str, shown: str | None) -> tuple[str, int]:
  """Finds backend and number of devices; the arguments tell answers apart."""
  del platforms, shown
  env = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  try:
    said = subprocess.run(
      [sys.executable, '-P', '-c', _ASK],
      env=env,
      capture_output=True,
      text=True,
      timeout=300,
      check=True,
    ).stdout
    backend, count = json.loads(said.splitlines()[-1])
  except (OSError, ValueError, IndexError, subprocess.SubprocessError):
    return 'cpu', 0  # a JAX that does not start can use none
  return backend, count
