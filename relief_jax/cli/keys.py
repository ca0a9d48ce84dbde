"""Lists the keys of a config: default, what it takes, unit, meaning.

    relief keys
    relief keys rate
    relief keys 'hparams.*'

PATTERN is part of a key or of its meaning, or a pattern with * for whole keys.
A key is set by --config.KEY=VALUE. Those of a comparison are among them.
"""

import fnmatch

from relief_jax.cli import config_flags
from relief_jax.config.registries import REGISTRIES
from relief_jax.errors import InputError
from relief_jax.keys import Key, spelled


def define() -> None:
  """Defines no flags."""


def line(key: str, row: Key, wide: int) -> str:
  """Describes a key in one line.

  Args:
    key: dotted name.
    row: of the key.
    wide: characters that names take.

  >>> from relief_jax.keys import real
  >>> line('lr', real(0.1, 0, 1, 'step size'), 4)
  'lr    0.1  a number from 0 to 1  step size'
  """
  named = REGISTRIES[row.choices] if isinstance(row.choices, str) else None
  takes = row.expected(tuple(named.names()) if named else ())
  if named and named.others:
    takes += f', {named.others}'
  return f'{key:{wide}}  {spelled(row.default)}  {takes}  {row.meaning}'


def find(pattern: str) -> dict[str, Key]:
  """Gives the rows that a pattern is about, by key.

  Args:
    pattern: as the user wrote it, '' for all.

  Raises:
    InputError: none.
  """
  text = pattern.lower().removeprefix('--').removeprefix('config.')
  rows = config_flags.rows()
  if any(letter in text for letter in '*?['):
    found = [key for key in rows if fnmatch.fnmatch(key, text)]
  else:
    found = [key for key in rows if text in key.lower()] or [
      key for key, row in rows.items() if text in row.meaning.lower()
    ]
  if not found:
    raise InputError(
      f'no key with {pattern!r}',
      'part of a key or of its meaning, or a pattern such as hparams.*',
      'see relief keys for all of them',
    )
  return {key: rows[key] for key in found}


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: several patterns, or one that matches nothing.
  """
  if len(argv) > 2:
    raise InputError(
      f'{len(argv) - 1} patterns', 'one', 'put it in quotes, as the shell has *'
    )
  found = find(argv[1] if len(argv) > 1 else '')
  wide = max(map(len, found))
  for key, row in found.items():
    print(line(key, row, wide))
  return 0
