"""The signals by which a run is asked to end."""

import contextlib
import signal

# Ctrl-C and kill always count; the others where nobody chose to ignore them
# (nohup): a closed terminal, Ctrl-\, what batch systems send ahead of the end
# and at a limit of processor time, Ctrl-Break. Not every system has all.
_ALWAYS = ('SIGINT', 'SIGTERM')
_OTHERS = ('SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGXCPU', 'SIGBREAK')
# Ignored, or handled by something that is not Python.
_NOT_OURS = (signal.SIG_IGN, None)


def signals() -> list[signal.Signals]:
  """Lists the signals that mean a stop to this process, on this system."""
  found = [getattr(signal, name, None) for name in _ALWAYS + _OTHERS]
  return [
    one
    for one in found
    if one is not None
    and (one.name in _ALWAYS or signal.getsignal(one) not in _NOT_OURS)
  ]


def interrupt() -> None:
  """Makes every one of them act as Ctrl-C, where nothing else is arranged."""
  for one in signals():
    if one.name != 'SIGINT':
      with contextlib.suppress(ValueError, OSError):
        signal.signal(one, signal.default_int_handler)


class Stop:
  """Notes the first signal to stop; a second one acts as it always did."""

  requested = False

  def __init__(self):
    """Changes nothing until it is entered."""
    self._before: dict = {}

  def __enter__(self):
    for one in signals():
      with contextlib.suppress(ValueError, OSError):  # not in the main thread
        self._before[one] = signal.signal(one, self._handle)
    return self

  def __exit__(self, *_):
    while self._before:
      signal.signal(*self._before.popitem())

  def _handle(self, number, frame):
    del number, frame
    self.requested = True
    self.__exit__()
