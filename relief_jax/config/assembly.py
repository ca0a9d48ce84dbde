"""Assembles the configuration: the table's keys and the methods' options."""

import functools
from collections.abc import Container
from typing import Any

import ml_collections

from relief_jax import algorithms, plugins
from relief_jax.config.table import RENAMED, ROWS
from relief_jax.errors import InputError
from relief_jax.keys import Key, flatten


def rows() -> dict[str, Key]:
  """Gives the row of every key, by its dotted name.

  >>> rows()['hparams.client_lr'].range, rows()['relief.rule'].default
  ('from 0 to 1000', 'greedy')

  Raises:
    InputError: as `tree`.
  """
  return dict(_assembled(*_parts())[1])


def tree() -> dict[str, Any]:
  """Gives `ROWS` and, in a group for each method, the options of all methods.

  A method from outside has its group once it was found (`plugins.py`); its
  group has the last part of its name.

  Raises:
    InputError: it would be a group that there is already.
  """
  return dict(_assembled(*_parts())[0])


def _parts() -> tuple[tuple, tuple]:
  """Lists the table's groups and the methods, as they are now."""
  return (
    tuple((group, id(row)) for group, row in ROWS.items()),
    tuple(algorithms.known().items()),
  )


@functools.lru_cache(maxsize=4)  # asked for several times by every config
def _assembled(
  groups: tuple, methods: tuple
) -> tuple[dict[str, Any], dict[str, Key]]:
  """Builds the keys as a tree and by their dotted names.

  Args:
    groups: of `ROWS`; another one is another tree.
    methods: names and factories.
  """
  del groups
  found = dict(ROWS)
  for method, factory in methods:
    group, own = plugins.short(method), algorithms.facts(factory).rows
    there = found.get(group, {})
    if not own or there == own:  # an alias
      continue
    if set(there) & set(own) or (there and method not in algorithms.ALGORITHMS):
      raise InputError(
        f'the method {method!r}, whose options are keys config.{group}',
        'a name under which there are no other keys yet',
        'rename its function',
      )
    found[group] = {**there, **own}
  return found, flatten(found)


def default(method: str = '') -> ml_collections.ConfigDict:
  """Builds a config of every key with its default.

  >>> config = default()
  >>> config.rounds = 10
  >>> config.hparams.client_lr
  0.05

  Args:
    method: sets this one; one from outside is imported and brings its keys.

  Raises:
    InputError: no such method.
  """
  if method:
    algorithms.find(method)
  c = ml_collections.ConfigDict(_defaults(tree()))
  if method:
    c.method = plugins.absolute(method)
  c.lock()
  return c


def complete(config: ml_collections.ConfigDict, method: str) -> None:
  """Adds the options of a method from outside to a config that lacks them.

  Args:
    config: changed in place.
    method: that was found.
  """
  group = plugins.short(method)
  if group in outside() and group not in config:
    with config.unlocked():
      config[group] = _defaults(tree()[group])


def prune(config: ml_collections.ConfigDict, kept: Container[str] = ()) -> None:
  """Takes out the options of methods from outside that are not run.

  A run is then the same whatever else was found in the process.

  Args:
    config: of a run; changed in place.
    kept: groups that are left all the same.
  """
  with config.unlocked():
    for group in outside(but=config.method) & set(config):
      if group not in kept:
        del config[group]


def outside(but: str = '') -> set[str]:
  """Gives the groups of keys that methods from outside have brought so far.

  Args:
    but: a method whose group is left out.
  """
  inside = set(ROWS) | set(algorithms.ALGORITHMS)
  return set(tree()) - inside - {plugins.short(but)}


def _defaults(group: dict[str, Any]) -> dict[str, Any]:
  return {
    part: row.default if isinstance(row, Key) else _defaults(row)
    for part, row in group.items()
  }


def get(config: ml_collections.ConfigDict, key: str):
  """Gives the value under a dotted key."""
  for part in key.split('.'):
    config = config[part]
  return config


def refuse_renamed(key: str) -> None:
  """Answers a key by its old name with its new one; others pass.

  Args:
    key: with dots, without `config.`.

  Raises:
    InputError: the key has another name now.

  >>> refuse_renamed('cosines')
  Traceback (most recent call last):
    ...
  relief_jax.errors.InputError: Found config key 'cosines'; expected \
'update_similarity', its name now. Usual cure: write --config.update_similarity.
  """
  for old, new in RENAMED.items():
    if key == old or key.startswith(f'{old}.'):
      now = new + key.removeprefix(old)
      raise InputError(
        f'config key {key!r}', f'{now!r}, its name now', f'write --config.{now}'
      )
