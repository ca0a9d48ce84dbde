"""Many runs in one folder: those of a comparison or of a sweep.

Every run is a run directory. What is finished is never run again, what was
interrupted goes on from its checkpoint, what failed is listed with the reason
and stops nobody. `manifest.json` lists all runs and how each stands.
"""

import datetime
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console

from experiments import (
  board,
  command,
  identity,
  plots,
  pool,
  records,
  runner,
  tables,
)
from experiments.overview import Overview
from relief_jax.errors import InputError

WAITING, FAILED = 'waiting', 'failed'


def status_of(job: pool.Job) -> dict[str, Any]:
  """How a run stands by its directory: `status`, `round`, `reason`.

  Raises:
    InputError: the folder holds a run of another config, or on other files.
  """
  folder = pathlib.Path(job.workdir)
  if not (folder / 'config.json').exists():
    return {'status': WAITING}
  stored = records.read_json(folder / 'config.json')
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


class Manifest:
  """What the runs are and how each stands, in a file beside them."""

  def __init__(
    self, path: pathlib.Path, jobs: Sequence[pool.Job], **facts: str
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

  def with_status(self, *statuses: str) -> list[pool.Job]:
    """Jobs that stand so."""
    return [
      j for j in self._jobs if self._rows[j.workdir]['status'] in statuses
    ]

  def left(self) -> list[pool.Job]:
    """Jobs that are neither complete nor diverged."""
    ended = (records.COMPLETE, records.DIVERGED)
    return [
      job
      for job in self._jobs
      if self._rows[job.workdir]['status'] not in ended
    ]

  def failures(self) -> dict[str, str]:
    """Name of each run that failed or diverged -> why."""
    return {
      job.name: f'{row["status"]}: {row.get("reason", "")}'
      for job in self.with_status(FAILED, records.DIVERGED)
      for row in [self._rows[job.workdir]]
    }

  def event(self, job: pool.Job, message: dict) -> None:
    """What a worker tells; see `pool.Pool.run`."""
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
  """The command that this process was started with."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  head = ['python', '-m', spec.name] if spec else ['python', sys.argv[0]]
  return shlex.join(head + sys.argv[1:])


def foremost(cells, baseline: str, most: int = 24, kept: int = 8):
  """The rows of a table that fit on a screen.

  Args:
    cells: from `tables.table`.
    baseline: label within a group, kept with those that it is the base of.
    most: labels that are all shown.
    kept: of more than that, the best by F1.
  """
  if len(cells) <= most:
    return cells

  def rank(label):
    return -cells[label]['f1'].mean

  best = sorted(cells, key=rank)[:kept]
  best += [tables.baseline_of(label, baseline) for label in best]
  return {label: row for label, row in cells.items() if label in best}


class Stop(runner.Stop):
  """Tells the pool to stop at the first SIGINT or SIGTERM."""

  def __init__(self, crew: pool.Pool):
    """Args: crew: told to stop."""
    super().__init__()
    self._crew = crew

  def _handle(self, number, frame):
    super()._handle(number, frame)
    self._crew.stop()


class Campaign:
  """Jobs in a folder, to be run and reported.

  Args:
    jobs: all of them; their order is that of the tables.
    folder: theirs.
    config: what they came from, kept as `config.json`.
    baseline: label that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
    part: (i, n) runs part i of n only, counted from 1.
    together: runs in one program; 0: one on CPU, 16 on accelerators.
  """

  def __init__(
    self,
    jobs: Sequence[pool.Job],
    folder: pathlib.Path,
    config,
    baseline: str,
    numbers: str = 'seeds',
    part: tuple[int, int] = (1, 1),
    together: int = 0,
  ):
    self._jobs, self._folder, self._config = list(jobs), folder, config
    self._baseline, self._numbers, self._part = baseline, numbers, part
    self._together = together or (16 if pool.accelerators() else 1)

  def run(self, workers: int = 0) -> int:
    """Runs what is not done yet and reports; returns the exit code.

    Args:
      workers: processes; 0: one per core or accelerator.

    Raises:
      InputError: a folder with other runs in it.
      OSError: the folder cannot be written.
    """
    console = rich.console.Console(
      width=None if sys.stdout.isatty() else 140, soft_wrap=False
    )
    folder = self._folder
    if (folder / 'metrics.jsonl').exists():
      raise InputError(
        f'a single run in {folder}',
        'a new folder, or one of a campaign',
        'use another --workdir',
      )
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
    )
    logs = folder / 'logs'
    logs.mkdir(parents=True, exist_ok=True)
    stored = folder / 'config.json'
    new = records.clean(self._config)
    if not stored.exists() or records.read_json(stored) != new:
      records.write_json(stored, new)
    manifest.write()
    left = manifest.left()
    workers = workers or pool.default_workers()
    console.print(
      f'{len(mine)} runs, {len(mine) - len(left)} of them done, '
      f'{workers} worker processes',
      highlight=False,
    )
    crew = pool.Pool(left, workers, logs, self._together)
    with Overview(console, left, len(mine) - len(left)) as overview, Stop(crew):

      def event(job, message):
        manifest.event(job, message)
        if job.values and message.get('status') == records.COMPLETE:
          board.parameters(job)
        overview.event(job, message)

      crew.run(event)
    manifest.write(crew.spent)
    self.report(console)
    failures = manifest.failures()
    for who, reason in failures.items():
      console.print(f'failed: {who}: {reason}', markup=False, highlight=False)
    if crew.stopped or manifest.with_status(records.INTERRUPTED):
      console.print('interrupted; the same command goes on', highlight=False)
      return command.INTERRUPTED
    return command.FAILED if failures else 0

  def report(self, console) -> None:
    """Tables and figures of what is finished, in whatever part.

    Args:
      console: to print on.

    Raises:
      InputError: a file of a run that cannot be read.
      OSError: the folder cannot be written.
    """
    loaded = [
      tables.load(pathlib.Path(job.workdir), job.label, job.seed)
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
    cells = tables.table(runs, self._baseline)
    tables.save(cells, self._folder, self._numbers)
    shown = foremost(cells, self._baseline)
    tables.show(shown, console, self._baseline, self._numbers)
    if len(shown) < len(cells):
      console.print(
        f'The best of {len(cells)} labels, with their baselines; all are in '
        'table.md.',
        highlight=False,
      )
    groups = tables.best_groups(
      {label: row['f1'].mean for label, row in shown.items()}, 3
    )
    plots.figures(
      [
        run
        for run in runs
        if run.label in shown and tables.group_of(run.label) in groups
      ],
      self._folder / 'figures',
      self._baseline,
      self._numbers,
    )
    datasets = {run.summary['dataset'] for run in runs}
    if len(datasets) > 1:
      console.print(
        f'warning: runs on different data sets, {", ".join(sorted(datasets))}: '
        'set --config.dataset, in another --workdir',
        highlight=False,
      )
    every = {tables.group_of(run.label) for run in runs}
    console.print(
      f'Wrote {self._folder}/table.csv, table.md and figures/'
      + (
        f' of the best {len(groups)} of {len(every)} groups'
        if len(groups) < len(every)
        else ''
      )
      + f'; python -m experiments.report {self._folder} makes the report',
      highlight=False,
      soft_wrap=True,
    )
