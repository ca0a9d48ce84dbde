"""A worker of `pool`: reads jobs from stdin, answers on stdout, in JSON lines.

Its own process, so that threads and devices are settled before JAX starts.
"""

import json
import os
import sys
import traceback

from experiments import progress, records, runner
from relief_jax import simulate
from relief_jax.errors import InputError


class Messages(progress.Quiet):
  """Reports to the process that handed out the job."""

  def __init__(self, channel):
    """Args: channel: a text file."""
    self._channel = channel

  def send(self, **message) -> None:
    """Sends one line.

    Raises:
      BrokenPipeError: nobody listens any more.
    """
    self._channel.write(json.dumps(records.clean(message)) + '\n')
    self._channel.flush()

  def start(self, title: str, rounds: int, done: int) -> None:
    """Tells that a run begins."""
    self.send(event='start', title=title, rounds=rounds, round=done)

  def update(self, record: dict) -> None:
    """Tells of an evaluation."""
    self.send(event='update', round=record['round'], f1=record['f1'])


def perform(job: dict, messages: Messages) -> None:
  """Does one job; its failure is a message, not the end of the worker.

  Raises:
    BrokenPipeError: nobody listens any more.
  """
  try:
    config = records.config_from_dict(job['config'])
    status = runner.run(config, job['workdir'], job['data_dir'], True, messages)
    messages.send(event='end', status=status)
  except BrokenPipeError:
    raise
  except InputError as error:
    messages.send(event='end', status='failed', reason=str(error))
  except Exception as error:
    traceback.print_exc()
    reason = f'{type(error).__name__}: {error}'.splitlines()[0]
    messages.send(event='end', status='failed', reason=reason)


def main() -> None:
  """Works until stdin ends.

  Raises:
    BrokenPipeError: nobody listens any more.
  """
  with os.fdopen(os.dup(1), 'w') as channel:
    os.dup2(2, 1)  # what libraries print is no message
    messages = Messages(channel)
    begun = False
    for line in sys.stdin:
      job = json.loads(line)
      if not begun:  # later it is too late, and the worker's share is fixed
        simulate.set_devices(job['config']['devices'])
        begun = True
      perform(job, messages)


if __name__ == '__main__':
  main()
