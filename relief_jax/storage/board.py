"""TensorBoard's file, written in the thread that calls.

tensorboardX's own `SummaryWriter` hands events to a thread; on a full disk that
thread dies and whoever fills its queue waits for ever. Its synchronous half is
used here, so that a disk's error is an error. **Ours.**
"""

import contextlib
import pathlib
import time

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from relief_jax.keys import flatten
from relief_jax.scoring import metrics
from relief_jax.storage import job_spec, records


class Board:
  """Writes a TensorBoard event file; use it in a `with` statement."""

  def __init__(self, folder: pathlib.Path, purge: int | None = None):
    """Opens a new file.

    Args:
      folder: of the files, made where it is not there.
      purge: step from which what older files say no longer counts.

    Raises:
      StorageError: the folder cannot be written.
    """
    self._folder = folder
    with records.storing(folder):
      folder.mkdir(parents=True, exist_ok=True)
      self._file = EventsWriter(str(folder / 'events'))
    if purge is not None:
      self._add(Event(step=purge, file_version='brain.Event:2'))
      start = SessionLog(status=SessionLog.START)
      self._add(Event(step=purge, session_log=start))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    with contextlib.suppress(OSError):  # `write` has told, if it matters
      self._file.close()

  def write(self, values: dict[str, float], step: int) -> None:
    """Adds scalars and waits until the disk has them.

    Args:
      values: by tag.
      step: of all of them.

    Raises:
      StorageError: the folder cannot be written.
    """
    for tag, value in values.items():
      self._add(Event(summary=summary.scalar(tag, value), step=step))
    self._flush()

  def write_summaries(self, summaries) -> None:
    """Adds summaries without a step, such as those of the page HParams.

    Args:
      summaries: from `tensorboardX.summary`.

    Raises:
      StorageError: the folder cannot be written.
    """
    for one in summaries:
      self._add(Event(summary=one))
    self._flush()

  def _add(self, event: Event) -> None:
    event.wall_time = time.time()
    with records.storing(self._folder):
      self._file.write_event(event)

  def _flush(self) -> None:
    with records.storing(self._folder):
      self._file.flush()


def scalars(record: dict) -> dict[str, float]:
  """Picks the finite numbers of an evaluation, by their tag.

  Args:
    record: of the evaluation.
  """
  found = {}
  for key, value in flatten(records.clean(record)).items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      continue
    if key != 'round':
      found[key.replace('.', '/', 1).replace('+', '_')] = value
  return found


def parameters(job: job_spec.Job) -> None:
  """Writes the values that a finished run set, and its score, for HParams.

  A score that is no finite number is left out.

  Args:
    job: complete.

  Raises:
    StorageError: its folder cannot be written.
  """
  folder = pathlib.Path(job.workdir)
  found = records.read_json(folder / 'summary.json')['last']
  name = metrics.of(found).name
  last = scalars({f'last_{name}': found[name]})
  values = {
    k: v if isinstance(v, bool | int | float | str) else str(v)
    for k, v in job.values.items()
  }
  with Board(folder / 'tb' / 'hparams') as file:
    file.write_summaries(summary.hparams(values, last))
    file.write(last, job.config['rounds'])
