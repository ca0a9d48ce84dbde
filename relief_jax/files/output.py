"""Sets up standard output and error so that printing never ends the work.

A terminal or log that is not UTF-8, a reader that has gone (`| head`), a
terminal that was closed and a full disk are no reason to lose a run: what
cannot be shown is replaced, what cannot be written is dropped. **Ours.**
"""

import io
import logging
import os
import sys
from typing import TextIO

_MARK = '_relief_jax_forgiving'


class _Forgiving(io.RawIOBase):
  """Wraps a file descriptor; its errors are reported once, else dropped."""

  def __init__(self, handle: int, name: str, told: TextIO | None):
    """Wraps a descriptor.

    Args: handle: of the file. name: for people. told: receives the errors.
    """
    self._handle, self._name, self._told = handle, name, told

  def writable(self) -> bool:
    return True

  def fileno(self) -> int:
    return self._handle

  def isatty(self) -> bool:
    try:
      return os.isatty(self._handle)
    except OSError:
      return False

  def write(self, data) -> int:
    try:
      return os.write(self._handle, data)
    except BrokenPipeError:  # a reader that has seen enough
      pass
    except OSError as error:
      if self._told:
        told, self._told = self._told, None
        print(
          f'warning: {self._name} cannot be written ({error.strerror}); the '
          'work goes on without it',
          file=told,
        )
    return len(data)


def _forgiving(stream: TextIO | None, name: str, told: TextIO | None) -> TextIO:
  """Wraps a stream so that errors of writing are dropped."""
  if stream is None:  # closed before Python started
    return open(os.devnull, 'w', encoding='utf-8')
  if getattr(stream, _MARK, False):
    return stream
  try:
    handle = stream.fileno()
  except (OSError, ValueError, AttributeError):
    return stream  # of a notebook or a test: no file
  stream.flush()
  made = io.TextIOWrapper(
    io.BufferedWriter(_Forgiving(handle, name, told)),
    encoding=stream.encoding,
    errors='replace',
    line_buffering=getattr(stream, 'line_buffering', False)
    or name == 'standard error',
    write_through=getattr(stream, 'write_through', False),
  )
  setattr(made, _MARK, True)
  return made


def set_up() -> None:
  """Makes `sys.stdout` and `sys.stderr` forgiving; for commands alone.

  What cannot be encoded is shown as `?`.
  """
  sys.stderr = _forgiving(sys.stderr, 'standard error', None)
  sys.stdout = _forgiving(sys.stdout, 'standard output', sys.stderr)


def plain_hints() -> None:
  """Lets what this package has to tell stand on stderr as it is.

  Without level, time and line of the source, also while flags are read.
  """
  ours = logging.getLogger('relief_jax')
  ours.addHandler(logging.StreamHandler())
  ours.propagate = False  # to absl's handler, which would repeat it
