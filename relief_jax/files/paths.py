"""Reads paths as users write them, from flags and config keys alike."""

import os

from relief_jax.errors import InputError


def expand(path: str | os.PathLike, name: str) -> str:
  """Puts the home folder in place of a leading `~`, as a shell does.

  Args:
    path: as given.
    name: of the flag or key, for the message.

  >>> expand('runs/a', '--workdir')
  'runs/a'

  Raises:
    InputError: an empty path (a variable that is not set), or the home of
      somebody whom the system does not know.
  """
  text = os.fspath(path)
  if not text.strip():
    raise InputError(
      f'{name}={text!r}', 'a path', 'check the variable that it came from'
    )
  found = os.path.expanduser(text)
  if found.startswith('~'):
    raise InputError(
      f'{name}={text!r}, the home of nobody known',
      'a path',
      f'write ./{text} for a file of that name',
    )
  return found
