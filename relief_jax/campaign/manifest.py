"""Lists many runs in one folder, and how each stands: `manifest.json`."""

import datetime
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from relief_jax import datasets
from relief_jax.campaign import bundle, pool
from relief_jax.files import invocation
from relief_jax.storage import (
  directory,
  identity,
  job_spec,
  records,
)

WAITING = 'waiting'


class Begun(NamedTuple):
  """Holds a run that is listed and not run.

  Attributes:
    job: the run.
    row: how it stands, as of `status_of`.
  """

  job: job_spec.Job
  row: dict[str, Any]


def status_of(job: job_spec.Job) -> dict[str, Any]:
  """Reads the state of a run from its directory: `status`, `round`, `reason`.

  Raises:
    InputError: the folder holds a run of another config, or on other files.
  """
  folder = pathlib.Path(job.workdir)
  if not (folder / 'config.json').exists():
    return {'status': WAITING}
  stored = directory.read_config(folder)
  config = records.config_from_dict(job.config)
  identity.adopt(config, stored)
  config = identity.resolved(config)
  identity.refuse_other(folder, config, job.data_dir, stored)
  if not (folder / 'summary.json').exists():
    return {'status': records.INTERRUPTED}
  summary = records.read_json(folder / 'summary.json')
  kept = ('status', 'round', 'reason')
  found = {key: summary[key] for key in kept if key in summary}
  identity.refuse_rounds(config, stored, found.get('round', 0))
  complete = found.get('status') == records.COMPLETE
  if complete and not directory.is_over(found, config.rounds):
    found['status'] = records.INTERRUPTED  # it is to go on
  return found


def begun(jobs: Sequence[job_spec.Job]) -> list[Begun]:
  """Lists the jobs whose run directory is there, finished or not.

  Raises:
    InputError: of `status_of`.
  """
  found = [Begun(job, status_of(job)) for job in jobs]
  return [one for one in found if one.row['status'] != WAITING]


def data_of(jobs: Sequence[job_spec.Job]) -> set[str]:
  """Names the data sets that the runs will be on; reads none of them.

  Raises:
    InputError: of `datasets.resolve`.
  """
  return {name for name, _, _ in _data(jobs).values()}


def check_data(jobs: Sequence[job_spec.Job]) -> set[str]:
  """Reads every data set once, so that a bad file is said once, before runs.

  Args:
    jobs: those that are left.

  Returns:
    The names of the data sets.

  Raises:
    InputError: of `datasets.load`.
  """
  found = _data(jobs)
  read = set()
  for name, root, job in found.values():
    place = name, root, job.config['data_path']
    if place not in read and datasets.in_files(name):
      read.add(place)
      datasets.load(records.config_from_dict(job.config), job.data_dir)
  return {name for name, _, _ in found.values()}


def _data(
  jobs: Sequence[job_spec.Job],
) -> dict[str, tuple[str, pathlib.Path | None, job_spec.Job]]:
  """Resolves every way in which jobs ask for data, with the first such job."""
  found: dict[str, tuple[str, pathlib.Path | None, job_spec.Job]] = {}
  for job in jobs:
    config = job.config
    keys = 'dataset', 'data_path', 'data'
    asked = json.dumps([job.data_dir, *(config[key] for key in keys)])
    if asked not in found:
      run = records.config_from_dict(config)
      found[asked] = *datasets.resolve(run, job.data_dir), job
  return found


class Manifest:
  """Holds the runs and the status of each, in a file beside them.

  Attributes:
    jobs: the runs.
  """

  def __init__(
    self,
    path: pathlib.Path,
    jobs: Sequence[job_spec.Job],
    listed: Sequence[job_spec.Job] = (),
    beside: Sequence[Begun] = (),
    **facts: str,
  ):
    """Looks at every run directory.

    Args:
      path: of the file.
      jobs: the runs.
      listed: they and those beside them, in the order of the file; () for
        them alone.
      beside: runs that are listed and not run.
      **facts: about all of them, kept as they are.

    Raises:
      InputError: a folder holds a run of another config.
    """
    self._path = path
    self._begun = datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds')
    self._rows = {job.workdir: status_of(job) for job in jobs}
    self._rows |= {job.workdir: row for job, row in beside}
    self.jobs, self._listed = list(jobs), listed or jobs
    self._facts, self._written = facts, 0.0

  def with_status(self, *statuses: str) -> list[job_spec.Job]:
    """Lists the jobs that have one of these statuses."""
    return [j for j in self.jobs if self._rows[j.workdir]['status'] in statuses]

  def left(self) -> list[job_spec.Job]:
    """Lists the jobs that are neither complete nor diverged."""
    return [
      job
      for job in self.jobs
      if self._rows[job.workdir]['status'] not in records.ENDED
    ]

  def failures(self) -> dict[str, list[str]]:
    """Maps each reason to the names of the runs that failed or diverged."""
    found: dict[str, list[str]] = {}
    for job in self.with_status(bundle.FAILED, records.DIVERGED):
      row = self._rows[job.workdir]
      reason = f'{row["status"]}: {row.get("reason", "")}'
      found.setdefault(reason, []).append(job.name)
    return found

  def event(self, job: job_spec.Job, message: dict) -> None:
    """Takes up a message of a worker; see `pool.Pool.run`."""
    if message['event'] in ('take', 'compile'):
      return
    if message['event'] != 'end':
      self._rows[job.workdir] = {
        'status': records.RUNNING,
        'round': message['round'],
      }
      return
    self._rows[job.workdir] = {
      k: v for k, v in message.items() if k in ('status', 'reason')
    }
    if message['status'] != bundle.FAILED:
      self._rows[job.workdir] = status_of(job)
    if time.monotonic() > self._written + 2:  # it may be long
      self.write()

  def write(self, spent: pool.Spent | None = None) -> None:
    """Writes the file.

    Args:
      spent: by the workers, when they are done.

    Raises:
      OSError: the folder cannot be written.
    """
    folder = self._path.parent
    records.write_json(
      self._path,
      {
        'schema': records.SCHEMA,
        'command': invocation.command_line(),
        'begun': self._begun,
        **self._facts,
        'versions': records.versions(),
        'git_revision': records.git_revision(),
        'worker_seconds': spent and spent._asdict(),
        'points': [
          {
            'label': job.label,
            'seed': job.seed,
            'folder': os.path.relpath(job.workdir, folder),
            'values': job.values,
            **self._rows[job.workdir],
          }
          for job in self._listed
        ],
      },
    )
    self._written = time.monotonic()
