"""Names of a config that lead out of this package: Python of the user's own.

Where a config names a method, model, data set, fleet or compressor, it may name

- one of this package, or what a module put into its dict (`ALGORITHMS`, ...);
- `package.module:attribute`, or `path/of/file.py:attribute`;
- an entry point of an installed package, in the group of the kind:

      [project.entry-points.'relief_jax.methods']
      mine = 'my_package.my_module:my_method'

The name stands in `config.json`, so that every process that reads it finds the
same again. To look a name up is to run the module it is in, and the log says
so: read a config.json that somebody else wrote before you run it.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import pathlib
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from relief_jax.errors import InputError, unknown

_log = logging.getLogger(__name__)
_REFERENCE = re.compile(r'(.+):([^\W\d]\w*(?:\.[^\W\d]\w*)*)')


class Kind(NamedTuple):
  """Describes what can be named.

  Attributes:
    title: 'method', for messages.
    key: of the config that names it, for messages.
    group: of entry points.
    own: name -> what this package, or a module of the user's, brings.
    expected: what it must be, in words.
    fits: whether something is that.
  """

  title: str
  key: str
  group: str
  own: Mapping[str, Any]
  expected: str
  fits: Callable[[Any], bool]


# (title of the kind, name) -> what was found outside.
_found: dict[tuple[str, str], Any] = {}
_files: dict[str, types.ModuleType] = {}
_told: set[str] = set()  # modules that the log has named


def find(kind: Kind, name: str) -> Any:
  """Looks up a name; what is outside of this package is imported, once.

  Args:
    kind: of what is named.
    name: in `kind.own`, a reference or an entry point.

  Raises:
    InputError: no such name, module, file or attribute, or it is something
      else than expected.
  """
  if name in kind.own:
    return kind.own[name]
  name = absolute(name)
  place = kind.title, name
  if place not in _found:
    _found[place] = _load(kind, name)
  return _found[place]


def names(kind: Kind) -> tuple[str, ...]:
  """Lists what can be named without a colon; imports nothing."""
  return (*kind.own, *(n for n in _entries(kind.group) if n not in kind.own))


def outside(kind: Kind) -> dict[str, Any]:
  """Gives what this process has found outside so far, by name."""
  return {name: v for (title, name), v in _found.items() if title == kind.title}


def forget(kind: Kind, name: str) -> None:
  """Takes back that something was found outside."""
  _found.pop((kind.title, absolute(name)), None)


def is_reference(text: Any) -> bool:
  """Tells whether a name has the form MODULE:ATTRIBUTE.

  >>> is_reference('my_package.my_module:mine'), is_reference('fedavg')
  (True, False)
  """
  return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def short(name: str) -> str:
  """Gives the name for folders and groups of keys: a reference's last part.

  >>> short('my_package.my_module:mine'), short('fedavg')
  ('mine', 'fedavg')
  """
  found = _REFERENCE.fullmatch(name)
  return found[2].rpartition('.')[2] if found else name


def absolute(name: str) -> str:
  """Makes the path in a reference, or of a .py file, absolute.

  Later runs and other processes may start elsewhere.
  """
  found = _REFERENCE.fullmatch(name)
  path, attribute = found.groups() if found else (name, '')
  if not path.endswith('.py'):
    return name
  path = str(pathlib.Path(path).resolve())
  return f'{path}:{attribute}' if attribute else path


def takes(count: int) -> Callable[[Any], bool]:
  """Makes a check: whether something can be called with so many arguments."""

  def fits(value):
    if not callable(value):
      return False
    try:
      inspect.signature(value).bind(*[None] * count)
    except TypeError:
      return False
    except ValueError:  # a function in C that does not tell
      pass
    return True

  return fits


def load_module(name: str) -> types.ModuleType:
  """Imports a module, or the file at a path that ends in .py, once.

  Args:
    name: of the module, or path.

  Raises:
    Exception: whatever is wrong there.
  """
  if not name.endswith('.py'):
    return importlib.import_module(name)
  path = absolute(name)
  if path not in _files:
    stem = f'relief_jax_own_{pathlib.Path(path).stem}_{len(_files)}'
    spec = importlib.util.spec_from_file_location(stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module  # as of any import, while it runs
    spec.loader.exec_module(module)
    _files[path] = module
  return _files[path]


def _load(kind: Kind, name: str) -> Any:
  where, reference = f'config.{kind.key}={name}', name
  if not is_reference(name):
    entries = _entries(kind.group).get(name, ())
    if not entries:
      raise unknown(kind.title, name, names(kind))
    if len(entries) > 1:
      raise InputError(
        f'{where}, an entry point of {len(entries)} installed packages',
        'one of that name',
        f'name the {kind.title} by MODULE:ATTRIBUTE: {" or ".join(entries)}',
      )
    reference = entries[0]
    where += f' (entry point {reference})'
  found = _REFERENCE.fullmatch(reference)
  if not found:
    raise InputError(where, 'an entry point MODULE:ATTRIBUTE', 'correct it')
  module, attribute = found.groups()
  if module not in _told:
    _log.warning('importing %s, as config.%s says', module, kind.key)
    _told.add(module)
  try:
    value = functools.reduce(getattr, attribute.split('.'), load_module(module))
  except InputError:
    raise
  except Exception as error:  # whatever is wrong there
    raise InputError(
      f'{where} ({type(error).__name__}: {error})',
      f'MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE of {kind.expected}',
      'correct the name, and start where Python finds the module',
    ) from error
  if not kind.fits(value):
    raise InputError(
      f'{where}, a {type(value).__name__}',
      kind.expected,
      f'name the attribute of the module that is the {kind.title}',
    )
  return value


@functools.cache
def _entries(group: str) -> dict[str, tuple[str, ...]]:
  """Lists a group's entry points, name -> references, one package's first."""
  found: dict[str, dict[str, None]] = {}
  for point in importlib.metadata.entry_points(group=group):
    found.setdefault(point.name, {})[point.value] = None
  return {name: tuple(values) for name, values in found.items()}
