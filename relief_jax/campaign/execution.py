"""Runs the runs of a campaign in one folder, and reports them.

Every run is a run directory. What is finished is never run again, what was
interrupted goes on from its checkpoint, what failed is listed with the reason
and stops nobody. `manifest.json` lists all runs and how each stands.
"""

import contextlib
import pathlib
from collections.abc import Collection, Sequence

import rich.console

from relief_jax import datasets
from relief_jax.campaign import pool
from relief_jax.campaign.campaign import Campaign
from relief_jax.campaign.manifest import Manifest, check_data, status_of
from relief_jax.campaign.overview import Overview
from relief_jax.engine import machine
from relief_jax.errors import InputError
from relief_jax.files import invocation
from relief_jax.report import charts, curves, gather, labels, printed, tables
from relief_jax.scoring import metrics
from relief_jax.storage import (
  board,
  exit_codes,
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


def run(
  campaign: Campaign,
  folder: pathlib.Path,
  workers: int = 0,
  part: tuple[int, int] = (1, 1),
  together: int = 0,
) -> int:
  """Runs the jobs that are not done and reports; returns the exit code.

  Args:
    campaign: the runs.
    folder: theirs.
    workers: processes; 0: one per core or accelerator.
    part: (i, n) runs part i of n only, counted from 1.
    together: runs in one program; 0: one on CPU, 16 on accelerators.

  Raises:
    InputError: a folder with other runs in it, or in use by another process;
      data that were asked for by name and are not there, or cannot be read.
    StorageError: the folder cannot be written.
  """
  if (folder / 'metrics.jsonl').exists():
    raise InputError(
      f'a single run in {folder}',
      'a new folder, or one of a campaign',
      'use another --workdir',
    )
  number, parts = part
  logs = folder / 'logs'
  if parts > 1:
    logs /= f'{number}of{parts}'
  # Nothing is made for what is refused.
  wanted = check_data(_manifest(campaign, folder, part).left())
  with records.storing(folder):
    logs.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as held:
    # Parts run beside each other, each of them once; the whole runs alone.
    held.enter_context(locks.claim(folder, shared=parts > 1))
    held.enter_context(locks.claim(logs))
    # Again: who held the folder until now may have finished runs.
    manifest = _manifest(campaign, folder, part)
    crew = pool.Pool(
      manifest.left(),
      workers or pool.default_workers(),
      logs,
      together or (16 if machine.accelerators() else 1),
    )
    return _run(campaign, folder, manifest, crew, wanted, parts > 1)


def _manifest(
  campaign: Campaign, folder: pathlib.Path, part: tuple[int, int]
) -> Manifest:
  """Looks at every run, before anything is written."""
  number, parts = part
  if parts > 1:  # of the other parts too: one table is made of all
    for job in campaign.jobs:
      status_of(job)
  name = f'manifest-{number}of{parts}' if parts > 1 else 'manifest'
  own = campaign.jobs[number - 1 :: parts]
  return Manifest(
    folder / f'{name}.json',
    own,
    campaign.listed(own) if number == 1 else own,
    campaign.beside,
    baseline=campaign.baseline,
    numbers=campaign.numbers,
    note=campaign.note,
  )


def _run(
  campaign: Campaign,
  folder: pathlib.Path,
  manifest: Manifest,
  crew: pool.Pool,
  wanted: Collection[str],
  shared: bool,
) -> int:
  """Runs and reports like `run`, in a folder that is claimed.

  Args:
    campaign: the runs.
    folder: theirs.
    manifest: of those that are to be run here.
    crew: runs them.
    wanted: names of their data sets.
    shared: other processes run other parts.
  """
  console = progress.console()
  left, total = crew.jobs, len(manifest.jobs)
  stored, new = folder / 'config.json', records.clean(campaign.config)
  if not stored.exists() or records.read_json(stored) != new:
    records.write_json(stored, new)
  manifest.write()
  console.print(
    f'{total} runs, {total - len(left)} of them done, '
    f'{crew.workers} worker processes'
  )
  if campaign.beside:
    console.print(
      f'{len(campaign.beside)} more, of other labels in it, are reported too'
    )
  if wanted:
    console.print(datasets.remark(wanted), soft_wrap=True)
  if campaign.note:
    console.print(campaign.note, soft_wrap=True)
  with (
    Overview(console, left, total - len(left), crew.workers) as overview,
    Stop(crew),
  ):

    def event(job, message):
      manifest.event(job, message)
      if job.values and message.get('status') == records.COMPLETE:
        board.parameters(job)
      overview.event(job, message)

    crew.run(event)
  manifest.write(crew.spent)
  with contextlib.ExitStack() as held:
    held.enter_context(records.storing(folder))
    if shared:  # they write the same tables and figures
      held.enter_context(locks.claim(folder / 'logs', wait=True))
    report(campaign, folder, console)
  # Rounds hide what methods differ in: what a round costs.
  drawn = (
    f'{metric.short} against simulated time: {path}'
    for metric in metrics.OF.values()
    for path in sorted((folder / 'figures').glob(f'*{metric.name}_time.png'))
  )
  if first := next(drawn, ''):
    console.print(first, soft_wrap=True)
  failures = manifest.failures()
  for reason, names in failures.items():
    console.print(f'failed: {_some(names)}: {reason}', soft_wrap=True)
  if crew.stopped or manifest.with_status(records.INTERRUPTED):
    console.print(
      f'interrupted; go on with: {invocation.command_line()}', soft_wrap=True
    )
    return exit_codes.INTERRUPTED
  return exit_codes.FAILED if failures else 0


def _some(names: Sequence[str], most: int = 3) -> str:
  """Names runs, of many the first ones.

  >>> _some(['a', 'b', 'c', 'd'])
  'a, b, c and 1 more'
  """
  listed = ', '.join(names[:most])
  more = len(names) - most
  return f'{listed} and {more} more' if more > 0 else listed


def report(
  campaign: Campaign, folder: pathlib.Path, console: rich.console.Console
) -> None:
  """Writes tables and figures of the finished runs, of every part.

  Args:
    campaign: the runs.
    folder: theirs.
    console: to print on.

  Raises:
    InputError: a file of a run that cannot be read.
    OSError: the folder cannot be written.
  """
  jobs = campaign.listed(campaign.jobs)
  loaded = [
    gather.load(pathlib.Path(job.workdir), job.label, job.values)
    for job in jobs
  ]
  runs = [
    run
    for run, job in zip(loaded, jobs, strict=True)
    # One that cannot grow longer stays out of a table of longer ones.
    if run and run.summary['rounds'] == job.config['rounds']
  ]
  if not runs:
    return
  found = gather.Collection(
    runs, campaign.baseline, campaign.numbers, notes=[campaign.note]
  )
  used = {run.summary['dataset'] for run in runs}
  console.print(datasets.remark(used), soft_wrap=True)
  printed.save(found, folder)
  shown = printed.foremost(found.rank, campaign.baseline)
  printed.show(found, console, shown)
  if len(shown) < len(found.rank):
    console.print(
      f'The best of {len(found.rank)} labels, with their baselines; all are in '
      'table.md.'
    )
  curves.save(found, folder / 'figures')
  groups = found.groups(charts.GROUPS)
  if len(used) > 1:
    console.print(
      f'warning: runs on different data sets, {tables.data_sets(runs)}: set '
      '--config.dataset, in another --workdir'
    )
  every = labels.grouped(found.rank)
  console.print(
    f'Wrote {folder}/table.csv, table.md (all columns) and figures/'
    + (
      f' of the best {len(groups)} of {len(every)} groups'
      if len(groups) < len(every)
      else ''
    )
    + f'; relief report {folder} makes the report',
    soft_wrap=True,
  )
