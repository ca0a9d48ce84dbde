"""Where a run is: a live bar on a terminal, plain lines elsewhere."""

import sys
import time

import rich.console
import rich.progress

from relief_jax.scoring import metrics


def duration(seconds: float | None) -> str:
  """Formats a time.

  >>> duration(0.01234), duration(75), duration(7260), duration(None)
  ('0.0123 s', '1 min 15 s', '2 h 01 min', '–')
  """
  if seconds is None:
    return '–'
  if seconds < 59.95:
    return f'{seconds:.3g} s'
  if seconds < 3600:
    return f'{seconds // 60:.0f} min {seconds % 60:02.0f} s'
  return f'{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min'


def best_so_far(
  record: dict, before: float | None
) -> tuple[str, str, float | None]:
  """Formats the main metric of a record: its name, its value, and the best.

  Args:
    record: of an evaluation.
    before: the best of those before it, None of none.

  Returns:
    The name, the value with the best behind it, and the best.
  """
  metric = metrics.of(record)
  value = record[metric.name]
  best = metric.best(v for v in (before, value) if v is not None)
  text = f'{metric.text(value)} (best {metric.text(best)})'
  return metric.short, text, best


def compiling(before: float | None) -> str:
  """Describes what a run waits for before its first round.

  Args:
    before: seconds that it took the last time, None where that is not known.

  >>> compiling(None), compiling(8.21)
  ('compiling', 'compiling, 8.21 s the last time')
  """
  return 'compiling' + (
    '' if before is None else f', {duration(before)} the last time'
  )


def closing(summary: dict) -> str:
  """Describes from its summary how a run ended and what came out."""
  metric = metrics.of(summary['last'])
  scores = ', '.join(
    f'{name} {metric.text(value)}'
    for name, value in summary['last'].items()
    if value is not None and name.startswith(metric.name)
  )
  return (
    f'{summary["status"]} after round {summary["round"]}: {scores}; simulated '
    f'{duration(summary["sim_seconds_total"])}, '
    f'{summary["joules_total"]:.3g} J, '
    f'{summary["up_bytes_total"] / 1e6:.3g} MB up'
  )


def console() -> rich.console.Console:
  """Builds a console on the terminal or its stand-in; texts stay as they are.

  Names of users may hold brackets and colons, which rich would interpret.
  """
  return rich.console.Console(
    width=None if sys.stdout.isatty() else 140,
    soft_wrap=False,
    markup=False,
    emoji=False,
    highlight=False,
  )


class Quiet:
  """Reports nothing; the interface of all reporters."""

  def start(self, title: str, rounds: int, done: int) -> None:
    """Reports that a run begins, or goes on, after `done` of `rounds`."""

  def note(self, text: str) -> None:
    """Reports something worth a line in the log."""

  def compiling(self, before: float | None) -> None:
    """Reports that programs are being compiled.

    Args:
      before: seconds that it took the last time, None where it is not known.
    """

  def update(self, record: dict) -> None:
    """Reports an evaluation."""

  def finish(self, summary: dict) -> None:
    """Reports that the run ended, whatever way."""


class Lines(Quiet):
  """Prints one line per evaluation, for logs and pipes."""

  def start(self, title: str, rounds: int, done: int) -> None:
    """Prints the title and starts the clock."""
    print(title, flush=True)
    self._rounds, self._first, self._start = rounds, None, 0.0
    self._best: float | None = None

  def note(self, text: str) -> None:
    """Prints the line."""
    print(text, flush=True)

  def compiling(self, before: float | None) -> None:
    """Prints a line."""
    print(compiling(before), flush=True)

  def update(self, record: dict) -> None:
    """Prints one line."""
    now, at = time.monotonic(), record['round']
    eta, rate = None, '–'
    name, score, self._best = best_so_far(record, self._best)
    if self._first is None:  # the clock starts after compilation
      self._first, self._start = at, now
    elif at > self._first:
      speed = (now - self._start) / (at - self._first)
      eta, rate = (self._rounds - at) * speed, f'{1 / speed:.3g}'
    print(
      f'round {at}/{self._rounds}  {name} {score}  simulated '
      f'{duration(record["sim_seconds"])}  {rate} rounds/s  '
      f'ETA {duration(eta)}',
      flush=True,
    )

  def finish(self, summary: dict) -> None:
    """Prints how it ended."""
    print(closing(summary), flush=True)


class Bar(Quiet):
  """Shows a live bar: round, score, simulated time, time left."""

  def __init__(self, shown: rich.console.Console | None = None):
    """Prepares the bar.

    Args:
      shown: where it is drawn; the terminal if not given.
    """
    self._console = shown or console()
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('round'),
      rich.progress.MofNCompleteColumn(),
      rich.progress.BarColumn(),
      rich.progress.TextColumn('{task.fields[score]}'),
      rich.progress.TextColumn('simulated {task.fields[simulated]}'),
      rich.progress.TextColumn('{task.fields[rate]} rounds/s'),
      rich.progress.TextColumn('ETA'),
      rich.progress.TimeRemainingColumn(compact=True),
      console=self._console,
    )

  def start(self, title: str, rounds: int, done: int) -> None:
    """Shows the bar."""
    self._console.print(title)
    self._task = self._bar.add_task(
      '',
      total=rounds,
      completed=done,
      score='–',
      simulated='–',
      rate='–',
    )
    self._best: float | None = None
    self._first = (done, time.monotonic())
    self._bar.start()

  def note(self, text: str) -> None:
    """Prints the line above the bar."""
    self._bar.console.print(text)

  def compiling(self, before: float | None) -> None:
    """Prints a line above the bar."""
    self.note(compiling(before))

  def update(self, record: dict) -> None:
    """Moves the bar."""
    name, score, self._best = best_so_far(record, self._best)
    at, now = record['round'], time.monotonic()
    first, start = self._first
    if at == first:  # the clock starts after compilation
      self._first = at, now
    rate = f'{(at - first) / (now - start):.3g}' if at > first else '–'
    self._bar.update(
      self._task,
      completed=at,
      score=f'{name} {score}',
      simulated=duration(record['sim_seconds']),
      rate=rate,
    )

  def finish(self, summary: dict) -> None:
    """Takes the bar away and says how it ended."""
    self._bar.stop()
    self._console.print(closing(summary))


def reporter() -> Quiet:
  """Chooses a bar if somebody is watching, else lines."""
  return Bar() if sys.stdout.isatty() else Lines()
