"""Works on a bundle of runs: python -m relief_jax.campaign.worker BUNDLE LOG.

Its own process, so that threads and devices are settled before JAX starts.
What it does stands in the log (`bundle.Log`), what it prints is for people.
It dies with the process that started it, which holds the other end of stdin.
"""

import os
import pathlib
import sys
import threading
import traceback

from relief_jax import simulate
from relief_jax.campaign import bundle
from relief_jax.engine import ambient
from relief_jax.errors import InputError, StorageError
from relief_jax.files import output
from relief_jax.scoring import metrics
from relief_jax.storage import progress, records, runner


class Reporter(progress.Quiet):
  """Reports on one run."""

  def __init__(self, log: bundle.Log, job: int):
    """Prepares the reports.

    Args:
      log: where they go.
      job: number of the run.
    """
    self._log, self._job = log, job

  def start(self, title: str, rounds: int, done: int) -> None:
    """Reports that a run begins."""
    self._log.tell('start', self._job, title=title, rounds=rounds, round=done)

  def note(self, text: str) -> None:
    """Prints the line."""
    print(text, file=sys.stderr, flush=True)

  def compiling(self, before: float | None) -> None:
    """Reports that programs are being compiled."""
    self._log.tell('compile', self._job, before=before)

  def update(self, record: dict) -> None:
    """Reports an evaluation."""
    name = metrics.of(record).name
    told = {'round': record['round'], name: record[name]}
    self._log.tell('update', self._job, **told)

  def end(self, result: str | Exception) -> None:
    """Reports how it ended: the status, or what went wrong."""
    end = {'status': result}
    if isinstance(result, InputError | StorageError):
      end = {'status': bundle.FAILED, 'reason': str(result)}
    elif isinstance(result, Exception):
      traceback.print_exception(result)
      reason = f'{type(result).__name__}: {result}'.splitlines()[0]
      end = {'status': bundle.FAILED, 'reason': reason}
    self._log.tell('end', self._job, **end)


def work(mine: bundle.Bundle, log: bundle.Log) -> None:
  """Performs the runs of a bundle that nobody has taken, until asked to stop.

  A failure is a message, not the end of the worker.

  Args:
    mine: the bundle.
    log: where reports go.
  """
  worlds, ends = runner.Worlds(), set[str | Exception]()
  while records.INTERRUPTED not in ends and (taken := mine.take()):
    log.tell('take', jobs=taken)
    reporters = [Reporter(log, number) for number in taken]
    ends = set()

    def end(i, result, reporters=reporters, ends=ends):
      ends.add(result)
      reporters[i].end(result)

    runner.run_together(
      [
        runner.Member(job.config, job.workdir, job.data_dir, reporter, job.keep)
        for reporter, job in zip(
          reporters, [mine.jobs[number] for number in taken], strict=True
        )
      ],
      worlds,
      end,
    )


def _die_with_parent() -> None:
  """Ends this process when stdin ends: its run directories are free again."""

  def watch():
    sys.stdin.read()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def main() -> None:
  """Works on the bundle that the command line names."""
  ambient.pin_process()
  os.dup2(2, 1)  # one log for all that libraries print
  output.set_up()  # a full log is no reason to lose a run
  output.plain_hints()
  _die_with_parent()
  mine = bundle.Bundle(pathlib.Path(sys.argv[1]))
  log = bundle.Log(pathlib.Path(sys.argv[2]))
  simulate.set_devices(mine.jobs[0].config['devices'])
  log.tell('ready')
  work(mine, log)


if __name__ == '__main__':
  main()
