"""Many runs in one folder: those of a comparison or of a sweep.

Every run is a run directory. What is finished is never run again, what was
interrupted goes on from its checkpoint, what failed is listed with the reason
and stops nobody. `manifest.json` lists all runs and how each stands.
"""

import contextlib
import pathlib
from collections.abc import Sequence

from relief_jax import datasets
from relief_jax.campaign import pool
from relief_jax.campaign.manifest import Manifest, data_of, status_of
from relief_jax.campaign.overview import Overview
from relief_jax.engine import machine
from relief_jax.errors import InputError
from relief_jax.report import charts, curves, gather, labels, printed, tables
from relief_jax.storage import (
  board,
  exit_codes,
  job_spec,
  locks,
  progress,
  records,
  stop,
)


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
