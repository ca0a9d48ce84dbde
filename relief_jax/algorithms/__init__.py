"""Federated systems: a file NAME.py each, whose NAME is a factory.

A factory `(Task, Setting) -> Method` declares its facts (`rounds/facts.py`):
options, default fill, budget, ... A few, whose round is no parallel one, give
an Algorithm. A file in this folder is a method; nothing lists it again. Methods
of your own need no file here (`plugins.py`).
"""

import importlib
import pkgutil
from collections.abc import Callable

from relief_jax import plugins
from relief_jax.errors import InputError
from relief_jax.rounds import facts as facts_lib
from relief_jax.rounds import legality, parallel
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.rounds.records import Algorithm
from relief_jax.settings import Setting
from relief_jax.task import Task

Factory = Callable[[Task, Setting], Method | Algorithm]


def _discover() -> dict[str, Factory]:
  """Imports every file of this folder and takes the function of its name."""
  names = [m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg]
  return {
    name: getattr(importlib.import_module(f'{__name__}.{name}'), name)
    for name in sorted(names)
  }


ALGORITHMS: dict[str, Factory] = _discover()

KIND = plugins.Kind(
  'method',
  'method',
  'relief_jax.methods',
  ALGORITHMS,
  'a function (task, setting) that gives a Method',
  plugins.takes(2),
)


def find(method: str | Factory) -> Factory:
  """Looks up a method.

  Args:
    method: in `ALGORITHMS`, outside of this package (`plugins.py`), or a
      factory itself.

  Raises:
    InputError: there is none of that name.
  """
  return plugins.find(KIND, method) if isinstance(method, str) else method


def facts(method: str | Factory) -> Facts:
  """Gives what a method declares (`rounds/facts.py`).

  Args:
    method: as `find`.

  Raises:
    InputError: as `find`.
  """
  return facts_lib.of(find(method))


def known() -> dict[str, Factory]:
  """Gives all methods, those found outside so far among them, by name."""
  return {**ALGORITHMS, **plugins.outside(KIND)}


def build(method: str | Factory, task: Task, setting: Setting) -> Algorithm:
  """Builds the round of a method.

  Args:
    method: as `find`.
    task: the model.
    setting: the round.

  Raises:
    InputError: what the method cannot be combined with, or what is none.
  """
  name = method if isinstance(method, str) else 'the method'
  found = find(method)(task, setting)
  if isinstance(found, Algorithm):
    legality.drawn(setting, name, 'this method has rounds of its own')
    return found
  if not isinstance(found, Method):
    raise InputError(
      f'{name}, whose factory gives a {type(found).__name__}',
      'a rounds.method.Method, or an Algorithm',
      'return fedavg(task, setting)._replace(...), say',
    )
  return parallel.build(task, setting, found, name)


def resolve_fill(method: str, fill: str) -> str:
  """Settles what a method does with absent modalities.

  Args:
    method: as `find`.
    fill: `input`, `skip`, or '' for the method's own.

  Returns:
    `input` or `skip`.

  Raises:
    InputError: filled inputs for a method that never runs them.
  """
  declared = facts(method)
  if fill == 'input' and declared.skips:
    raise InputError(
      f'config.fill is input for {method!r}',
      "'skip': its devices never run the encoder of a sensor that they lack",
      'set --config.fill=skip',
    )
  return fill or declared.fill
