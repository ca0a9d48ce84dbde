"""What TensorBoard shows of a run."""

import contextlib
import math
import pathlib

import tensorboardX
from tensorboardX.summary import hparams

from experiments import pool, records
from relief_jax import processes


@contextlib.contextmanager
def opened(folder: pathlib.Path, done: int):
  """The writer of a run directory, None in a process that writes nothing.

  Args:
    folder: the run directory.
    done: rounds so far; what was written of later ones is dropped.

  Raises:
    OSError: the folder cannot be written.
  """
  if not processes.is_main():
    yield None
    return
  with contextlib.closing(
    tensorboardX.SummaryWriter(
      str(folder / 'tb'), purge_step=done + 1, flush_secs=10
    )
  ) as writer:
    yield writer


def scalars(writer, record: dict) -> None:
  """Writes the finite numbers of an evaluation.

  Args:
    writer: from `opened`.
    record: of the evaluation.
  """
  plain = records.flatten(records.clean(record))
  for key, value in plain.items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      continue
    if key != 'round' and math.isfinite(value):
      writer.add_scalar(
        key.replace('.', '/', 1).replace('+', '_'), value, record['round']
      )
  writer.flush()


def parameters(job: pool.Job) -> None:
  """Puts what a finished run set, and its F1, on the HParams page.

  Args:
    job: complete.

  Raises:
    OSError: its folder cannot be written.
  """
  folder = pathlib.Path(job.workdir)
  f1 = records.read_json(folder / 'summary.json')['last']['f1']
  values = {
    k: v if isinstance(v, bool | int | float | str) else str(v)
    for k, v in job.values.items()
  }
  with contextlib.closing(
    tensorboardX.SummaryWriter(str(folder / 'tb' / 'hparams'))
  ) as writer:
    for part in hparams(values, {'last_f1': f1}):
      writer.file_writer.add_summary(part)
    writer.add_scalar('last_f1', f1, job.config['rounds'])
