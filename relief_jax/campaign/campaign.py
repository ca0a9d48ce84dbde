"""Many runs in one folder: those of a comparison or of a sweep.

Every run is a run directory. What is finished is never run again, what was
interrupted goes on from its checkpoint, what failed is listed with the reason
and stops nobody. `manifest.json` lists all runs and how each stands.
"""

import contextlib
import datetime
import json
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from relief_jax import datasets
from relief_jax.campaign import pool
from relief_jax.campaign.overview import Overview
from relief_jax.engine import machine
from relief_jax.errors import InputError
from relief_jax.report import charts, curves, gather, labels, printed, tables
from relief_jax.storage import (
  board,
  directory,
  exit_codes,
  identity,
  job_spec,
  locks,
  progress,
  records,
  stop,
)

WAITING, FAILED = 'waiting', 'failed'


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
  done = found.get('round', 0)
  identity.refuse_rounds(config, stored, done)
  if found.get('status') == records.COMPLETE and done < config.rounds:
    found['status'] = records.INTERRUPTED  # it is to go on
  return found


def data_of(jobs: Sequence[job_spec.Job]) -> set[str]:
  """Names the data sets that the runs will be on.

  Raises:
    InputError: of `datasets.resolve`, before anything runs.
  """
  found: dict[str, str] = {}
  for job in jobs:
    config = job.config
    keys = 'dataset', 'data_path', 'data'
    asked = json.dumps([job.data_dir, *(config[key] for key in keys)])
    if asked not in found:
      run = records.config_from_dict(config)
      found[asked] = datasets.resolve(run, job.data_dir)[0]
  return set(found.values())


class Manifest:
  """Holds the runs and the status of each, in a file beside them."""

  def __init__(
    self, path: pathlib.Path, jobs: Sequence[job_spec.Job], **facts: str
  ):
    """Looks at every run directory.

    Args:
      path: of the file.
      jobs: the runs.
      **facts: about all of them, kept as they are.

    Raises:
      InputError: a folder holds a run of another config.
    """
    self._path = path
    self._begun = datetime.datetime.now(datetime.UTC).isoformat('T', 'seconds')
    self._rows = {job.workdir: status_of(job) for job in jobs}
    self._jobs, self._facts, self._written = list(jobs), facts, 0.0

  def with_status(self, *statuses: str) -> list[job_spec.Job]:
    """Lists the jobs that have one of these statuses."""
    return [
      j for j in self._jobs if self._rows[j.workdir]['status'] in statuses
    ]

  def left(self) -> list[job_spec.Job]:
    """Lists the jobs that are neither complete nor diverged."""
    ended = (records.COMPLETE, records.DIVERGED)
    return [
      job
      for job in self._jobs
      if self._rows[job.workdir]['status'] not in ended
    ]

  def failures(self) -> dict[str, str]:
    """Maps the name of each run that failed or diverged to the reason."""
    return {
      job.name: f'{row["status"]}: {row.get("reason", "")}'
      for job in self.with_status(FAILED, records.DIVERGED)
      for row in [self._rows[job.workdir]]
    }

  def event(self, job: job_spec.Job, message: dict) -> None:
    """Takes up a message of a worker; see `pool.Pool.run`."""
    if message['event'] != 'end':
      self._rows[job.workdir] = {
        'status': 'running',
        'round': message['round'],
      }
      return
    self._rows[job.workdir] = {
      k: v for k, v in message.items() if k in ('status', 'reason')
    }
    if message['status'] != FAILED:
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
        'command': command_line(),
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
          for job in self._jobs
        ],
      },
    )
    self._written = time.monotonic()


def command_line() -> str:
  """Gives the command that this process was started with."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  name, *sub = sys.argv[0].split(' ')
  if pathlib.PurePath(name).stem == 'relief' and sub:  # see `cli`
    head = ['relief', *sub]
  else:
    head = ['python', '-m', spec.name] if spec else ['python', sys.argv[0]]
  return shlex.join(head + sys.argv[1:])


class Stop(stop.Stop):
  """Tells the pool to stop at the first signal."""

  def __init__(self, crew: pool.Pool):
    """Prepares to stop a pool.

    Args:
      crew: told to stop.
    """
    super().__init__()
    self._crew = crew

  def _handle(self, number, frame):
    super()._handle(number, frame)
    self._crew.stop()


class Campaign:
  """Runs the jobs of a folder and reports them.

  Args:
    jobs: all of them; their order is that of the tables.
    folder: theirs.
    config: what they came from, kept as `config.json`.
    baseline: label that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
    part: (i, n) runs part i of n only, counted from 1.
    together: runs in one program; 0: one on CPU, 16 on accelerators.
    note: about all runs, for below the tables.
  """

  def __init__(
    self,
    jobs: Sequence[job_spec.Job],
    folder: pathlib.Path,
    config,
    baseline: str,
    numbers: str = 'seeds',
    part: tuple[int, int] = (1, 1),
    together: int = 0,
    note: str = '',
  ):
    self._jobs, self._folder, self._config = list(jobs), folder, config
    self._baseline, self._numbers, self._part = baseline, numbers, part
    self._together = together or (16 if machine.accelerators() else 1)
    self._note = note

  def run(self, workers: int = 0) -> int:
    """Runs the jobs that are not done and reports; returns the exit code.

    Args:
      workers: processes; 0: one per core or accelerator.

    Raises:
      InputError: a folder with other runs in it, or in use by another process;
        data that were asked for by name and are not there.
      StorageError: the folder cannot be written.
    """
    folder = self._folder
    if (folder / 'metrics.jsonl').exists():
      raise InputError(
        f'a single run in {folder}',
        'a new folder, or one of a campaign',
        'use another --workdir',
      )
    number, parts = self._part
    logs = folder / 'logs'
    if parts > 1:
      logs /= f'{number}of{parts}'
    with records.storing(folder):
      logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
      # Parts run beside each other, each of them once; the whole runs alone.
      held.enter_context(locks.claim(folder, shared=parts > 1))
      held.enter_context(locks.claim(logs))
      return self._run(workers, logs)

  def _run(self, workers: int, logs: pathlib.Path) -> int:
    """Runs and reports like `run`, in a folder that is claimed."""
    console, folder = progress.console(), self._folder
    number, parts = self._part
    mine = self._jobs[number - 1 :: parts]
    if parts > 1:  # of the other parts too: one table is made of all
      for job in self._jobs:
        status_of(job)
    name = f'manifest-{number}of{parts}' if parts > 1 else 'manifest'
    manifest = Manifest(
      folder / f'{name}.json',
      mine,
      baseline=self._baseline,
      numbers=self._numbers,
      note=self._note,
    )
    left = manifest.left()
    wanted = data_of(left)
    stored = folder / 'config.json'
    new = records.clean(self._config)
    if not stored.exists() or records.read_json(stored) != new:
      records.write_json(stored, new)
    manifest.write()
    workers = workers or pool.default_workers()
    console.print(
      f'{len(mine)} runs, {len(mine) - len(left)} of them done, '
      f'{workers} worker processes'
    )
    if wanted:
      console.print(datasets.remark(wanted), soft_wrap=True)
    if self._note:
      console.print(self._note, soft_wrap=True)
    crew = pool.Pool(left, workers, logs, self._together)
    with Overview(console, left, len(mine) - len(left)) as overview, Stop(crew):

      def event(job, message):
        manifest.event(job, message)
        if job.values and message.get('status') == records.COMPLETE:
          board.parameters(job)
        overview.event(job, message)

      crew.run(event)
    manifest.write(crew.spent)
    with contextlib.ExitStack() as held:
      held.enter_context(records.storing(folder))
      if parts > 1:  # they write the same tables and figures
        held.enter_context(locks.claim(folder / 'logs', wait=True))
      self.report(console)
    failures = manifest.failures()
    for who, reason in failures.items():
      console.print(f'failed: {who}: {reason}', soft_wrap=True)
    if crew.stopped or manifest.with_status(records.INTERRUPTED):
      console.print('interrupted; the same command goes on')
      return exit_codes.INTERRUPTED
    return exit_codes.FAILED if failures else 0

  def report(self, console) -> None:
    """Writes tables and figures of the finished runs, of every part.

    Args:
      console: to print on.

    Raises:
      InputError: a file of a run that cannot be read.
      OSError: the folder cannot be written.
    """
    loaded = [
      gather.load(pathlib.Path(job.workdir), job.label, job.values)
      for job in self._jobs
    ]
    runs = [
      run
      for run, job in zip(loaded, self._jobs, strict=True)
      # One that cannot grow longer stays out of a table of longer ones.
      if run and run.summary['rounds'] == job.config['rounds']
    ]
    if not runs:
      return
    found = gather.Collection(
      runs, self._baseline, self._numbers, notes=[self._note]
    )
    used = {run.summary['dataset'] for run in runs}
    console.print(datasets.remark(used), soft_wrap=True)
    printed.save(found, self._folder)
    shown = printed.foremost(found.f1, self._baseline)
    printed.show(found, console, shown)
    if len(shown) < len(found.f1):
      console.print(
        f'The best of {len(found.f1)} labels, with their baselines; all are in '
        'table.md.'
      )
    curves.save(found, self._folder / 'figures')
    groups = found.groups(charts.GROUPS)
    if len(used) > 1:
      console.print(
        f'warning: runs on different data sets, {tables.data_sets(runs)}: set '
        '--config.dataset, in another --workdir'
      )
    every = labels.grouped(found.f1)
    console.print(
      f'Wrote {self._folder}/table.csv, table.md and figures/'
      + (
        f' of the best {len(groups)} of {len(every)} groups'
        if len(groups) < len(every)
        else ''
      )
      + f'; relief report {self._folder} makes the report',
      soft_wrap=True,
    )
