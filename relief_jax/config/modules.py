"""Imports what a config names in `modules`: Python of the user's own.

A method, model, data set, fleet, device, codec or key that a module adds to its
registry is there in the process that imported it. Other processes of a sweep
and later runs know it by `config.modules`, which a run's config.json keeps. One
method, model, data set, fleet or codec needs no module here: it can be named
where it is (`plugins.py`).

To import a module is to run it. Only what the config names is imported, and the
log says so once: read the `modules` of a config.json that somebody else wrote
before you run it.
"""

import logging
from collections.abc import Iterable

from relief_jax import plugins
from relief_jax.errors import InputError

_log = logging.getLogger(__name__)
_loaded: set[str] = set()


def load(names: Iterable[str]) -> None:
  """Imports modules, each once in a process.

  Args:
    names: of modules, such as `package.module`, or paths that end in .py.

  Raises:
    InputError: no such module or file.
  """
  for name in names:
    key = identity(name)
    if key in _loaded:
      continue
    _log.warning('importing %s, as config.modules says', name)
    _import(name)
    _loaded.add(key)


def identity(name: str) -> str:
  """Gives one name for all spellings of a file's path; a module's own name."""
  return plugins.absolute(name)


def note(name: str) -> None:
  """Records a module that was imported already, by other means.

  Args:
    name: as in `load`.
  """
  _loaded.add(identity(name))


def _import(name: str) -> None:
  try:
    plugins.load_module(name)
  except InputError:
    raise
  except Exception as error:  # whatever is wrong there
    raise InputError(
      f'config.modules with {name!r} ({type(error).__name__}: {error})',
      'modules that can be imported, or paths of .py files',
      'correct --config.modules (in a config.json: "modules"), and start '
      'where Python finds them',
    ) from error
