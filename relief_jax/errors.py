"""Defines errors that a user can mend: found, expected, and the cure."""

import errno
import os


def _text(found: str, expected: str, cure: str) -> str:
  text = f'Found {found}; expected {expected}. Usual cure: {cure}'
  return text if text.endswith(('.', '?', '!')) else f'{text}.'


class Portable(BaseException):
  """Reaches another process as it was raised.

  Python would call `__init__` again with the finished message, which is not
  what an exception with arguments of its own takes.
  """

  def __reduce__(self):
    return _again, (type(self), self.args, vars(self))


def _again(kind: type[BaseException], args: tuple, attributes: dict):
  error = kind.__new__(kind)
  error.args = args
  vars(error).update(attributes)
  return error


class InputError(Portable, ValueError):
  """Raised before any long work starts, where input cannot be used.

  >>> raise InputError('3 windows', 'at least 8', 'lower --config.clients')
  Traceback (most recent call last):
    ...
  relief_jax.errors.InputError: Found 3 windows; expected at least 8. \
Usual cure: lower --config.clients.
  """

  def __init__(self, found: str, expected: str, cure: str):
    super().__init__(_text(found, expected, cure))


class StorageError(Portable, OSError):
  """Raised when a disk or folder cannot be used.

  A disk that is full, read-only or broken, or a folder of somebody else's.

  Attributes:
    number: the system's error number, as in `errno`.

  >>> raise StorageError('runs/a/metrics.jsonl', errno.ENOSPC)
  Traceback (most recent call last):
    ...
  relief_jax.errors.StorageError: Found runs/a/metrics.jsonl: No space left \
on device; expected a folder that can be written. Usual cure: make room, \
then the same command goes on (that of a single run with --resume).
  """

  def __init__(self, path: str | os.PathLike, number: int):
    """Builds the message.

    Args: path: what was written. number: of the system's error.
    """
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    cure = 'make room' if full else 'mend that, or name another folder'
    super().__init__(
      _text(
        f'{os.fspath(path)}: {os.strerror(number)}',
        'a folder that can be written',
        f'{cure}, then the same command goes on (that of a single run with '
        '--resume)',
      )
    )
    self.number = number


def unknown(kind: str, name: str, known) -> InputError:
  """Builds the error for a name that a registry does not hold."""
  return InputError(
    f'unknown {kind} {name!r}',
    f'one of {", ".join(sorted(known))}',
    'check the spelling',
  )
