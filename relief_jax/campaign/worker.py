"""A worker of `pool`: reads jobs from stdin, answers on stdout, as JSON lines.

Its own process, so that threads and devices are settled before JAX starts.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback

from relief_jax import simulate
from relief_jax.campaign import pool
from relief_jax.engine import ambient
from relief_jax.errors import InputError, StorageError
from relief_jax.files import output
from relief_jax.storage import job_spec, progress, records, runner


class Channel:
  """Sends messages to the process that handed out the jobs."""

  def __init__(self, file):
    """Prepares to write.

    Args:
      file: a text file.
    """
    self._file = file

  def send(self, job: int, **message) -> None:
    """Sends one message as a line.

    Args:
      job: number of the job that it is about.
      **message: plain values.

    Raises:
      BrokenPipeError: nobody listens any more.
    """
    line = json.dumps(records.clean({'job': job, **message}))
    self._file.write(line + '\n')
    self._file.flush()


class Messages(progress.Quiet):
  """Reports on one job."""

  def __init__(self, channel: Channel, job: int):
    """Prepares the reports.

    Args:
      channel: where they go.
      job: its number.
    """
    self._channel, self._job = channel, job

  def start(self, title: str, rounds: int, done: int) -> None:
    """Reports that a run begins."""
    self._channel.send(
      self._job, event='start', title=title, rounds=rounds, round=done
    )

  def note(self, text: str) -> None:
    """Prints the line into the worker's log."""
    print(text, file=sys.stderr, flush=True)

  def update(self, record: dict) -> None:
    """Reports an evaluation."""
    self._channel.send(
      self._job, event='update', round=record['round'], f1=record['f1']
    )

  def end(self, result: str | Exception) -> None:
    """Reports how it ended: the status, or what went wrong."""
    end = {'status': result}
    if isinstance(result, InputError | StorageError):
      end = {'status': 'failed', 'reason': str(result)}
    elif isinstance(result, Exception):
      traceback.print_exception(result)
      reason = f'{type(result).__name__}: {result}'.splitlines()[0]
      end = {'status': 'failed', 'reason': reason}
    self._channel.send(self._job, event='end', **end)


class Worker:
  """Keeps what the jobs of one structure share."""

  def __init__(self, channel: Channel):
    """Prepares a worker.

    Args:
      channel: where reports go.
    """
    self._channel, self._structure = channel, ''
    self._worlds = runner.Worlds()

  def perform(self, jobs: list[dict]) -> None:
    """Runs jobs of one structure, in one program if there are several.

    A failure is a message, not the end of the worker.

    Raises:
      BrokenPipeError: nobody listens any more.
    """
    name = job_spec.structure(jobs[0]['config'])
    if self._structure and name != self._structure:
      simulate.clear()
    self._structure = name
    messages = [Messages(self._channel, i) for i in range(len(jobs))]
    runner.run_together(
      [
        runner.Member(
          job['config'],
          job['workdir'],
          job['data_dir'],
          messages[i],
          job['keep'],
        )
        for i, job in enumerate(jobs)
      ],
      self._worlds,
      lambda i, result: messages[i].end(result),
    )


class Lines:
  """Reads the lines of a file ahead, so that its end is noticed at once.

  The end in the middle of a job means that whoever handed it out was killed:
  the worker dies too, and its directory is free for the next attempt.
  """

  def __init__(self, file):
    """Starts to read.

    Args:
      file: a text file.
    """
    self._found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    self._read, self._done = 0, 0
    threading.Thread(target=self._watch, args=(file,), daemon=True).start()

  def _watch(self, file) -> None:
    for line in file:
      self._read += 1
      self._found.put(line)
    told = time.monotonic() + 1  # the last one may just have told its end
    while self._done < self._read:
      if time.monotonic() > told:
        os._exit(1)
      time.sleep(0.01)
    self._found.put(None)

  def __iter__(self):
    while (line := self._found.get()) is not None:
      yield line
      self._done += 1


def main() -> None:
  """Works until stdin ends.

  Raises:
    BrokenPipeError: nobody listens any more.
  """
  ambient.pin_process()
  with os.fdopen(os.dup(1), 'w') as channel:
    os.dup2(2, 1)  # what libraries print is no message
    output.set_up()  # a full log is no reason to lose a run
    channel.write(json.dumps(pool.READY) + '\n')
    channel.flush()
    worker, lines = Worker(Channel(channel)), Lines(sys.stdin)
    begun = False
    for line in lines:
      jobs = json.loads(line)
      if not begun:  # later it is too late, and the worker's share is fixed
        simulate.set_devices(jobs[0]['config']['devices'])
        begun = True
      worker.perform(jobs)


if __name__ == '__main__':
  main()
