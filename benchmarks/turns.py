"""Cases in processes of their own that take turns, round by round.

Every process sets its case up once and then runs a round whenever it is told
to, up the list of cases and down again: a machine that is slow for a while is
slow for all of them, and ratios are of the same turn. The processes of other
simulators import this file too: standard library and absl only.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from relief_jax.cli import arguments

_ASKED = flags.DEFINE_bool('asked', False, 'internal: rounds begin when told')


def launch(main: Callable[[list[str]], Any]) -> None:
  """Runs `main(argv)` of another simulator's side; does not return.

  Sides in our environment use `relief_jax.cli.command.launch`.

  Args:
    main: the command, which takes flags alone.
  """

  def checked(argv):
    if argv[1:]:
      found, expected, cure = arguments.stray(argv[1:], sys.argv, flags.FLAGS)
      print(
        f'error: Found {found}; expected {expected}. Usual cure: {cure}.',
        file=sys.stderr,
      )
      sys.exit(2)
    return main(argv)

  app.run(checked)


class Clock:
  """Times rounds; with `--asked` each begins when a line is read.

  Attributes:
    seconds: of every round so far.
  """

  def __init__(self) -> None:
    self.seconds: list[float] = []
    self._began = 0.0

  def start(self) -> None:
    """Starts a round, with `--asked` when a line was read."""
    if _ASKED.value and not sys.stdin.readline():
      sys.exit('nobody asks for rounds any more')
    self._began = time.perf_counter()

  def stop(self) -> None:
    """Ends a round; its seconds are printed at once if they were asked for."""
    self.seconds.append(time.perf_counter() - self._began)
    if _ASKED.value:
      print(json.dumps({'seconds': self.seconds[-1]}), flush=True)


def timed(one_round: Callable[[], Any], rounds: int) -> list[float]:
  """Times rounds, seconds of each; one before them is dropped."""
  clock = Clock()
  for _ in range(1 + rounds):
    clock.start()
    one_round()
    clock.stop()
  return clock.seconds[1:]


class Ended(Exception):
  """Raised when a process ended before its case did; holds its last words."""


class Job:
  """Runs rounds in a process, each when asked to."""

  def __init__(
    self,
    command: Sequence[str],
    timeout: float | None = None,
    **options: Any,
  ):
    """Starts the process.

    Args:
      command: of the process, which gets `--asked` too.
      timeout: seconds of one answer; None: any.
      **options: of `subprocess.Popen`.

    Raises:
      Ended: it cannot be started.
    """
    self._timeout = timeout
    self._errors = tempfile.TemporaryFile('w+')
    try:
      self._process = subprocess.Popen(
        [*command, '--asked'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
        text=True,
        **options,
      )
    except OSError as error:
      raise Ended(str(error)) from error

  def round(self) -> float:
    """Runs one more round and gives its seconds; raises `Ended`."""
    assert self._process.stdin
    try:
      self._process.stdin.write('\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # It ended; so does its output.
    return self.line()['seconds']

  def line(self) -> dict[str, Any]:
    """Reads the next JSON line of the process; raises `Ended`."""
    assert self._process.stdout
    watch = threading.Timer(self._timeout or 0, self._process.kill)
    if self._timeout:
      watch.start()
    try:
      for line in self._process.stdout:
        if line.startswith('{'):  # Libraries print to the same stream.
          return json.loads(line)
    finally:
      watch.cancel()
    self._process.wait()
    self._errors.seek(0)
    last = self._errors.read().strip().splitlines()[-1:]
    raise Ended(''.join(last) or f'exit code {self._process.returncode}')

  def end(self) -> None:
    """Ends the process, if it has not ended."""
    self._process.kill()
    self._process.communicate()
    self._errors.close()


class Ratio(NamedTuple):
  """Holds one case's times over another's, turn by turn.

  Attributes:
    median: of the turns.
    least: of them.
    most: of them.
  """

  median: float
  least: float
  most: float


def ratio(
  ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> Ratio:
  """Divides seconds of a round by those of another case in the same turn.

  >>> ratio([[2.0, 4.0], [9.0]], [[1.0], [3.0, 3.0]])
  Ratio(median=3.0, least=3.0, most=3.0)

  Args:
    ours: [turn][round] seconds, in every turn at least one.
    theirs: the same turns.
  """
  found = [
    statistics.mean(a) / statistics.mean(b)
    for a, b in zip(ours, theirs, strict=True)
  ]
  return Ratio(statistics.median(found), min(found), max(found))


def order(cases: Sequence[Any], turn: int) -> list[Any]:
  """Orders the cases, backwards in every second turn.

  Args:
    cases: any.
    turn: its number from 0.
  """
  return list(cases)[:: -1 if turn % 2 else 1]
