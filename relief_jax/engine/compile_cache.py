"""Keeps compiled programs on disk between processes; opt-in.

Entries are native code. One directory for every kind of machine and version
of JAX, so that a home folder that several machines share never hands one of
them the code of another.
"""

import hashlib
import os
import pathlib
import platform
import re

import jax

from relief_jax.errors import InputError
from relief_jax.files import paths

_SKIPPED = 0.1  # seconds: what compiles faster than this is not kept


def enable(folder: str | os.PathLike) -> pathlib.Path:
  """Keeps compiled programs under a folder, made where it is not there.

  Starts the backend, so devices and processes must be set up before.

  Args:
    folder: for this user alone: what lies in it is run.

  Returns:
    The folder of this kind of machine and version of JAX.

  Raises:
    InputError: it cannot be written.
  """
  path = pathlib.Path(paths.expand(folder, 'compile_cache')).absolute() / kind()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(
      f'--compile_cache={folder} ({error.strerror})',
      'a folder that can be written',
      'name another folder, or leave the flag out',
    ) from error
  jax.config.update('jax_compilation_cache_dir', str(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _SKIPPED)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  return path


def kind() -> str:
  """Names the machine's kind and JAX's version, as a folder.

  Processors of one name can differ in what they are able to do (virtual
  machines hide features), so their features are in the name too.
  """
  device = jax.local_devices()[0].device_kind
  parts = [f'jax{jax.__version__}', platform.machine(), device]
  if jax.default_backend() == 'cpu':
    parts.append(hashlib.sha256(_features().encode()).hexdigest()[:12])
  return re.sub(r'[^A-Za-z0-9.-]+', '_', '-'.join(parts))


def _features() -> str:
  """Reads model and features of the processor."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return platform.processor() + platform.platform()
  found = re.findall(
    r'^(?:model name|flags|Features|CPU part)\s*:\s*(.*)$', text, re.M
  )
  return '\n'.join(sorted(set(found)))
