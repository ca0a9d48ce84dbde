"""Runs of one structure for worker processes, as files. **Ours.**

A bundle lists runs, in the order in which they are begun. A worker takes the
next ones by creating a mark, which only one process can, so several may work
on the same bundle. What it does it appends to a log of its own, a JSON value
a line: nothing is lost when a process dies, and nobody waits for a reader.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from relief_jax.storage import job_spec, records

Message = dict[str, Any]
FAILED = 'failed'  # status of an end, beside those of runs that began


class Bundle:
  """Holds runs of one structure, some of which are taken.

  Attributes:
    path: of the file.
    jobs: the runs.
    together: of them in one program.
  """

  def __init__(self, path: pathlib.Path):
    """Opens a bundle.

    Args:
      path: of the file.
    """
    found = records.read_json(path)
    self.path, self.together = path, found['together']
    self.jobs = [job_spec.Job(**job) for job in found['jobs']]

  @classmethod
  def write(
    cls, path: pathlib.Path, jobs: Sequence[job_spec.Job], together: int
  ) -> 'Bundle':
    """Writes a bundle that nothing is taken of.

    Args:
      path: of the file.
      jobs: the runs.
      together: of them in one program.
    """
    listed = [job._asdict() for job in jobs]
    path.write_text(json.dumps({'together': together, 'jobs': listed}))
    return cls(path)

  def _mark(self, number: int) -> pathlib.Path:
    return self.path.with_suffix(f'.{number}')

  def left(self) -> list[int]:
    """Lists the runs that nobody has taken."""
    return [i for i in range(len(self.jobs)) if not self._mark(i).exists()]

  def take(self, most: int = 0) -> list[int]:
    """Takes the next runs; none when all are taken.

    Args:
      most: of them; 0: as many as go together.
    """
    found: list[int] = []
    for number in self.left():
      try:
        os.close(os.open(self._mark(number), os.O_CREAT | os.O_EXCL))
      except FileExistsError:  # another worker was faster
        continue
      found.append(number)
      if len(found) == (most or self.together):
        break
    return found


class Log:
  """Tells what a worker does, for `follow`."""

  def __init__(self, path: pathlib.Path):
    """Prepares to append.

    Args:
      path: of the file.
    """
    self._path = path

  def tell(self, event: str, job: int = -1, **facts) -> None:
    """Appends a message.

    Args:
      event: 'ready', 'take', 'start', 'compile', 'update' or 'end'.
      job: number of the run in the bundle that it is about.
      **facts: plain values.
    """
    message = {'event': event, 'job': job, **facts}
    with open(self._path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(records.clean(message)) + '\n')


class Follower:
  """Reads a log while it grows."""

  def __init__(self, path: pathlib.Path):
    """Prepares to read.

    Args:
      path: of the file; it may not be there yet.
    """
    self._path, self._read = path, 0

  def news(self) -> Iterator[Message]:
    """Gives the messages since the last call; half a line is left for later."""
    if not self._path.exists():
      return
    with open(self._path, 'rb') as file:
      file.seek(self._read)
      for line in file:
        if not line.endswith(b'\n'):
          break
        self._read += len(line)
        yield json.loads(line)
