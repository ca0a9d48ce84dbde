"""What a process says and does once the other processes of its run are gone.

JAX answers a peer that died, or that was silent for too long, with abort(): no
exit code of ours, and a stack trace of C++. It takes a callback instead, but
cannot call one of Python: the status that it passes has no counterpart there,
so that `std::bad_cast` ends the process in `std::terminate`. That has a handler
which anybody may set; ours says one line. **Ours.**
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator

import jaxlib

CODE = 1  # the exit code
_BAD_CAST = b'St8bad_cast'
# Handlers must live as long as the process.
_alive: list[Callable] = []


def line(who: str, why: str) -> str:
  """The one line that a user sees.

  Args:
    who: the process that is left.
    why: how it noticed.
  """
  return (
    f'error: Found {who} without the others ({why}); expected all of them to '
    'the end. Usual cure: see the output of the one that ended first, then '
    'start all of them again with --resume.'
  )


def leave(text: str) -> None:
  """Ends this process at once: nothing in it may wait for the others.

  Args:
    text: its last words.
  """
  sys.stdout.flush()
  print(text, file=sys.stderr, flush=True)
  os._exit(CODE)


@contextlib.contextmanager
def noticed(who: str) -> Iterator[None]:
  """While JAX joins the others: what is to happen when they are lost.

  Where this system or this version of JAX has no such places, JAX's own way
  stands.

  Args:
    who: this process.
  """

  def end(*_):
    leave(line(who, 'no sign of life'))

  name = 'get_distributed_runtime_client'
  make = getattr(getattr(jaxlib, '_jax', None), name, None)
  if make is None or not _handle(end):
    yield
    return

  def made(*given, **options):
    try:
      return make(*given, **{'missed_heartbeat_callback': end, **options})
    except TypeError:  # a version that does not know it
      return make(*given, **options)

  setattr(jaxlib._jax, name, made)
  try:
    yield
  finally:
    setattr(jaxlib._jax, name, make)


def _handle(end: Callable[[], None]) -> bool:
  """Sets the handler of `std::terminate`, for bad casts alone.

  Args:
    end: is called there, and does not return.

  Returns:
    Whether this system has one.
  """
  plain = ctypes.CFUNCTYPE(None)
  try:
    library = ctypes.CDLL('libstdc++.so.6')
    kind = library.__cxa_current_exception_type
    settle = library._ZSt13set_terminatePFvvE
  except (OSError, AttributeError):
    return False
  kind.restype = settle.restype = ctypes.c_void_p
  kind.argtypes, settle.argtypes = (), (plain,)
  before = None

  @plain
  def handler():
    # A std::type_info is a pointer to its methods and one to its name.
    if found := kind():
      _, text = (ctypes.c_void_p * 2).from_address(found)
      if ctypes.string_at(text) == _BAD_CAST:
        end()
    if before:
      plain(before)()
    os.abort()

  before = settle(handler)
  _alive.append(handler)
  return True
