"""Defines the kinds of keys of a config: type, range or choices, unit, meaning.

A row of the table in `config/table.py` is one `Key`, made by one of the
functions below. The same row serves the check of a value, the default and the
list of all keys, so a key is added in one line. So are the options of a method,
which are fields of a record beside it:

>>> @dataclasses.dataclass(frozen=True)
... class Options:
...   heads: float = option(real(0.5, 0, 1, 'probability of training'))
>>> Options().heads, rows_of(Options)['heads'].range
(0.5, 'from 0 to 1')
"""

import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LARGEST_SEED = 2**32 - 1  # JAX takes seeds modulo the next one
MANY = 10**6  # of rounds, devices, windows, ...: what no run has
LARGE = 1e6
_INT32 = 2**31 - 1
_INTEGERS = (int, np.integer)
_REALS = (*_INTEGERS, float, np.floating)
_ROW = 'row'  # of a field
_SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Key:
  """Describes a key of the config.

  Attributes:
    kind: 'whole', 'real', 'switch', 'name' or 'text'; 'wholes', 'names' or
      'labels' (either of both) for tuples of them.
    default: a value that the key takes.
    meaning: one line.
    unit: of the value, '' for none.
    least: of a number or of a tuple's numbers; -inf for none.
    most: likewise.
    above: `least` itself is left out.
    below: `most` itself is left out.
    choices: of a 'name', all that it may be; where that is a registry, its
      name in `config.registries.REGISTRIES`, which is looked up at the check.
    count: least length of a tuple.

  >>> row = real(0.5, 0, 1, 'a share')
  >>> row.takes(1), row.takes(True), row.takes(float('nan'))
  (True, False, False)
  >>> row.expected()
  'a number from 0 to 1'
  """

  kind: str
  default: Any
  meaning: str
  unit: str = ''
  least: float = -math.inf
  most: float = math.inf
  above: bool = False
  below: bool = False
  choices: tuple[str | int, ...] | str = ()
  count: int = 0

  def takes(self, value: Any, choices: Iterable[str | int] = ()) -> bool:
    """Tells whether a value has the key's type and is in its range.

    Args:
      value: anything.
      choices: what a 'name' may be, where the key's own are a registry.
    """
    if self.kind == 'whole':
      return self._whole(value)
    if self.kind == 'real':
      return self._real(value)
    if self.kind == 'switch':
      return isinstance(value, bool)
    if self.kind == 'text':
      return _text(value)
    if self.kind == 'name':
      known = choices if isinstance(self.choices, str) else self.choices
      return type(value) in (str, int) and value in tuple(known)
    if not isinstance(value, tuple | list) or len(value) < self.count:
      return False
    one = {'wholes': self._whole, 'names': _text}.get(self.kind, self._label)
    return all(one(member) for member in value)

  def expected(self, choices: Iterable[str | int] = ()) -> str:
    """Describes the values that the key takes, in words.

    Args:
      choices: as `takes`.
    """
    if self.kind == 'switch':
      return 'True or False'
    if self.kind == 'text':
      return 'text'
    if self.kind == 'name':
      known = choices if isinstance(self.choices, str) else self.choices
      return f'one of {", ".join(map(repr, known))}'
    if self.kind in ('whole', 'real'):
      noun = 'a whole number' if self.kind == 'whole' else 'a number'
      return f'{noun} {self.range}' + (f' ({self.unit})' if self.unit else '')
    noun = {
      'wholes': f'whole numbers, each {self.range}',
      'names': 'names',
      'labels': f'names or whole numbers, each {self.range}',
    }[self.kind]
    return f'{self.count} or more {noun}'

  @property
  def range(self) -> str:
    """Of a number, in words."""
    low = f'{"above" if self.above else "from"} {_plain(self.least)}'
    if self.below:
      return f'{low} and below {_plain(self.most)}'
    return f'{low} {"and at most" if self.above else "to"} {_plain(self.most)}'

  @property
  def type(self) -> str:
    """Name of the value's type in Python."""
    return type(self.default).__name__

  def _whole(self, value: Any) -> bool:
    return isinstance(value, _INTEGERS) and self._real(value)

  def _real(self, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, _REALS):
      return False
    low = self.least < value if self.above else self.least <= value
    high = value < self.most if self.below else value <= self.most
    # An integer may be too large to be a float; its range has refused it.
    return bool(low and high and math.isfinite(value))  # NaN fails both

  def _label(self, value: Any) -> bool:
    return self._whole(value) or _text(value) and bool(value)


def _text(value: Any) -> bool:
  """Tells whether a value is text that a file's name and a record can hold."""
  return isinstance(value, str) and '\0' not in value


def _plain(number: float) -> str:
  whole = float(number).is_integer()
  return str(int(number)) if whole else str(number)


def shown(value: Any) -> str:
  """Formats a value for a message, not too long.

  Args:
    value: anything.
  """
  try:
    text = repr(value)
  except ValueError:  # an integer of thousands of digits
    return 'a number of thousands of digits'
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'


def spelled(value: Any) -> str:
  """Formats a value as it follows `--config.KEY=` in a shell.

  >>> spelled(0.5), spelled((7, 8)), spelled('')
  ('0.5', '"(7,8)"', "''")

  Args:
    value: of a key.
  """
  if isinstance(value, tuple):
    return f'"{value!r}"'.replace(' ', '')
  return str(value) if value != '' else "''"


def flatten(values: Mapping[str, Any], at: str = '') -> dict[str, Any]:
  """Flattens groups of keys: dotted name -> value.

  >>> flatten({'a': {'b': 1}, 'c': 2})
  {'a.b': 1, 'c': 2}

  Args:
    values: by name; those that are dicts are groups.
    at: what every name begins with.
  """
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{at}{key}.')
    else:
      flat[at + key] = value
  return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Groups values by their dotted names, as `flatten` found them.

  >>> nested({'a.b': 1, 'c': 2})
  {'a': {'b': 1}, 'c': 2}

  Args:
    flat: dotted name -> value.
  """
  found: dict[str, Any] = {}
  for key, value in flat.items():
    *path, last = key.split('.')
    here = found
    for part in path:
      here = here.setdefault(part, {})
    here[last] = value
  return found


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
  """Lists the keys whose values are not the same in all configs, in order.

  >>> differing([{'a': 1, 'b': 2}, {'a': 1, 'b': 3, 'c': 4}])
  ['b', 'c']

  Args:
    configs: dotted name -> value.
  """
  every = dict.fromkeys(key for config in configs for key in config)
  return [
    key
    for key in every
    if any(one.get(key) != configs[0].get(key) for one in configs)
  ]


def whole(
  default: int, least: int, most: int, meaning: str, unit: str = ''
) -> Key:
  """Builds a key that takes an integer from `least` to `most`."""
  return Key('whole', default, meaning, unit, least, most)


def real(
  default: float,
  least: float,
  most: float,
  meaning: str,
  unit: str = '',
  above: bool = False,
  below: bool = False,
) -> Key:
  """Builds a key that takes a finite number from `least` to `most` (`Key`)."""
  return Key('real', default, meaning, unit, least, most, above, below)


def switch(default: bool, meaning: str) -> Key:
  """Builds a key that takes True or False."""
  return Key('switch', default, meaning)


def name(
  default: str | int, choices: tuple[str | int, ...] | str, meaning: str
) -> Key:
  """Builds a key that takes one of `choices`, or of the registry so named."""
  return Key('name', default, meaning, choices=choices)


def text(default: str, meaning: str) -> Key:
  """Builds a key that takes any text; its reader refuses wrong ones."""
  return Key('text', default, meaning)


def wholes(
  default: tuple[int, ...],
  least: int,
  meaning: str,
  count: int = 0,
  most: int = _INT32,
) -> Key:
  """Builds a key that takes `count` or more integers from `least` to `most`."""
  return Key('wholes', default, meaning, '', least, most, count=count)


def names(default: tuple[str, ...], meaning: str) -> Key:
  """Builds a key that takes a tuple of texts."""
  return Key('names', default, meaning)


def labels(
  default: tuple[str | int, ...], least: int, meaning: str, count: int = 0
) -> Key:
  """Builds a key that takes names or integers, such as those of persons."""
  return Key('labels', default, meaning, '', least, _INT32, count=count)


def option(row: Key) -> Any:
  """Declares a field of a record of options by its row.

  Args:
    row: with the default.

  Returns:
    What a dataclass takes as a field.
  """
  return dataclasses.field(default=row.default, metadata={_ROW: row})


@functools.cache
def rows_of(record: type) -> Mapping[str, Key]:
  """Gives the rows of a record of options, by field, not to be changed.

  Args:
    record: frozen dataclass whose fields are all made by `option`.
  """
  rows = {f.name: f.metadata[_ROW] for f in dataclasses.fields(record)}
  return types.MappingProxyType(rows)
