"""What a run leaves behind: config.json, metrics.jsonl, summary.json.

Everything here is plain JSON. Numbers that JSON does not know (NaN, infinity)
are written as `null`, so that any reader can parse the files.
"""

import contextlib
import errno
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator, Mapping

import jax
import ml_collections
import numpy as np

from relief_jax import config as config_lib
from relief_jax.config import modules, registries
from relief_jax.config.validation import check
from relief_jax.engine import machine
from relief_jax.errors import InputError, StorageError
from relief_jax.files import text_files
from relief_jax.keys import Key, flatten, shown

SCHEMA = 1
COMPLETE, INTERRUPTED, DIVERGED = 'complete', 'interrupted', 'diverged'
STOPPED = 'stopped'  # by a callback; it can go on
FINISHED = (COMPLETE, STOPPED)  # with a result
ENDED = (COMPLETE, DIVERGED)  # nothing is left to do
RUNNING = 'running'  # of a run that is looked at on its way
PACKAGES = ('jax', 'jaxlib', 'numpy', 'optax', 'flax', 'relief_jax')


def clean(value):
  """Makes plain JSON values: no arrays or tuples, `None` for NaN, infinity.

  >>> clean({'a': (1, float('nan'))})
  {'a': [1, None]}

  Raises:
    TypeError: a value that has no plain counterpart.
  """
  if isinstance(value, dict | ml_collections.ConfigDict):
    return {str(k): clean(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [clean(v) for v in value]
  if isinstance(value, np.ndarray | np.generic | jax.Array):
    return clean(np.asarray(value).tolist())
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, bool | int | str):
    return value
  raise TypeError(f'{type(value).__name__} has no place in a record: {value!r}')


@contextlib.contextmanager
def storing(path: pathlib.Path) -> Iterator[None]:
  """Turns the system's errors while a file is written into one clear line.

  Args:
    path: what the block writes.

  Raises:
    StorageError: the block raised an `OSError`.
  """
  try:
    yield
  except StorageError:
    raise
  except OSError as error:
    raise StorageError(path, error.errno or errno.EIO) from error


def write_json(path: pathlib.Path, value) -> None:
  """Writes a JSON file as `write_bytes` does.

  Raises:
    StorageError: the folder cannot be written.
    TypeError: a value that `clean` refuses.
  """
  text = json.dumps(clean(value), indent=2, allow_nan=False) + '\n'
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes a whole file or nothing: a reader never sees half of it.

  Raises:
    StorageError: the folder cannot be written.
  """
  draft = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  with storing(path):
    try:
      with open(draft, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(draft, path)
    except OSError:
      draft.unlink(missing_ok=True)
      raise


def remove_drafts(folder: pathlib.Path) -> None:
  """Takes away what a killed `write_json` left, of a folder that is claimed.

  Raises:
    StorageError: the folder cannot be written.
  """
  for draft in folder.glob('*.json.*.tmp'):
    with storing(draft):
      draft.unlink(missing_ok=True)


def read_json(path: pathlib.Path) -> dict:
  """Reads the object in a JSON file.

  Raises:
    InputError: no such file, or no JSON object in it.
  """
  try:
    value = json.loads(text_files.read(path))
    if not isinstance(value, dict):
      raise ValueError(f'a {type(value).__name__}')
  except InputError:
    raise
  except (ValueError, RecursionError) as error:
    raise InputError(
      f'{path}: {error}', 'a JSON object', 'check the path, or start anew'
    ) from error
  return value


def append_line(path: pathlib.Path, record: dict) -> None:
  """Adds one line and waits until the disk has it.

  Raises:
    StorageError: the file cannot be written.
    TypeError: a value that `clean` refuses.
  """
  line = json.dumps(clean(record), allow_nan=False) + '\n'
  with storing(path), open(path, 'a', encoding='utf-8') as file:
    file.write(line)
    file.flush()
    os.fsync(file.fileno())


def read_metrics(path: pathlib.Path) -> list[dict]:
  """Reads the evaluations of a run, without a last line that was cut off.

  Raises:
    InputError: a line inside the file that is not a record.
  """
  return [record for record, _ in _lines(path)]


def half_a_line(path: pathlib.Path) -> int:
  """Counts the bytes of a last line that a killed process left unfinished.

  Raises:
    InputError: a line inside the file that is not a record.
  """
  found = _lines(path)
  whole = found[-1][1] if found else 0
  return path.stat().st_size - whole if path.exists() else 0


def truncate_metrics(path: pathlib.Path, last_round: int) -> list[dict]:
  """Cuts off half a line and everything after `last_round`; returns the rest.

  Raises:
    InputError: a line inside the file that is not a record.
    StorageError: the file cannot be written.
  """
  kept = [(r, end) for r, end in _lines(path) if r['round'] <= last_round]
  if path.exists():
    with storing(path):
      os.truncate(path, kept[-1][1] if kept else 0)
  return [record for record, _ in kept]


def _lines(path: pathlib.Path) -> list[tuple[dict, int]]:
  """Reads the records, each with the offset of the byte after it."""
  if not path.exists():
    return []
  found, end = [], 0
  for number, line in enumerate(path.read_bytes().splitlines(True), 1):
    end += len(line)
    if not line.endswith(b'\n'):
      break  # the process was killed while it wrote
    try:
      record = json.loads(line)
      record['round'] + 0
    except (ValueError, TypeError, KeyError, RecursionError) as error:
      raise InputError(
        f'{path}, line {number}: {line[:60]!r}',
        'a JSON object with a round',
        'restore the file, or start anew in another --workdir',
      ) from error
    found.append((record, end))
  return found


def config_from_dict(values: dict) -> ml_collections.ConfigDict:
  """Builds a locked config from the content of `config.json`.

  What it names outside of this package is imported first: it may add keys and
  names.

  Raises:
    InputError: a key that no config has, or a value that it does not take.
  """
  own = values.get('modules', ())
  check('modules', own, config_lib.rows()['modules'])
  modules.load(own)
  registries.meet(flatten(values))
  config = config_lib.default()
  _update(config, values, config_lib.rows())
  registries.settle(config)
  config_lib.prune(config, kept=values)
  return config


def override(config: ml_collections.ConfigDict, values: dict) -> None:
  """Sets nested keys of a locked config.

  Names that lead outside of this package may bring keys of their own.

  Raises:
    InputError: a key that the config does not have, or a value that it does
      not take.
  """
  found = registries.meet(flatten(values))
  config_lib.complete(config, found.get('method', config.method))
  _update(config, values, config_lib.rows())
  registries.settle(config)


def _update(
  config: ml_collections.ConfigDict,
  values: dict,
  known: Mapping[str, Key],
  at: str = '',
) -> None:
  for key, value in values.items():
    name = at + key
    if key not in config:
      config_lib.refuse_renamed(name)
      raise InputError(
        f'unknown config key {name!r}',
        f'one of {", ".join(sorted(config.keys()))}',
        'check the spelling',
      )
    here = config[key]
    if isinstance(here, ml_collections.ConfigDict):
      if not isinstance(value, dict | ml_collections.ConfigDict):
        raise InputError(
          f'config.{name} is {shown(value)}',
          'a group of keys',
          f'set {name}.KEY',
        )
      _update(here, dict(value.items()), known, name + '.')
      continue
    check(name, value, known[name])
    config[key] = tuple(value) if isinstance(here, tuple) else value


@functools.cache
def versions() -> dict:
  """Lists the versions of Python and of packages that can change results."""
  found: dict[str, str | None] = {}
  for name in PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = None
  return {**found, 'python': platform.python_version()}


@functools.cache
def git_revision() -> str | None:
  """Finds the commit of the source tree, '+' if files differ; None outside.

  Of the first call: what was imported does not change with the files.
  """
  root = pathlib.Path(__file__).resolve().parents[2]

  def git(*args):
    return subprocess.run(
      ['git', '-C', str(root), *args],
      capture_output=True,
      text=True,
      check=True,
      timeout=20,
    ).stdout.strip()

  try:
    if pathlib.Path(git('rev-parse', '--show-toplevel')).resolve() != root:
      return None
    changed = git('status', '--porcelain', '--untracked-files=no')
    return git('rev-parse', 'HEAD') + ('+' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return None


def environment() -> dict:
  """Describes where a run took place: versions, device kind, git revision."""
  devices = jax.devices()
  return {
    'versions': versions(),
    'device_kind': devices[0].device_kind,
    'device_count': len(devices),
    'cpu_count': machine.cores(),
    'git_revision': git_revision(),
  }
