"""Runs several methods and seeds and sets them side by side.

python -m experiments.compare --config=experiments/configs/compare.py \
    --workdir=runs/compare [--data_dir=DIR] [--workers=N]

Every run is a run directory DIR/LABEL/seed_K (fold_K in a sweep over folds).
What is finished is never run again, what was interrupted goes on: start the
same command again. At the end there are DIR/table.csv, DIR/table.md and
DIR/figures.
"""

import fnmatch
import pathlib
import sys

import rich.console
import rich.progress
from absl import flags
from ml_collections import config_flags

from experiments import command, plots, pool, progress, records, runner, tables
from experiments.configs import compare as comparisons
from relief_jax import algorithms
from relief_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'a comparison, NAME.py[:variant] or a config.json'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'one run directory per run')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'where real data is')
_WORKERS = flags.DEFINE_integer(
  'workers', 0, 'processes; 0: one per core, or one for an accelerator'
)


def expand(config, folder: pathlib.Path, data_dir: str | None = None):
  """Every run of a comparison.

  Args:
    config: see `experiments.configs.compare.comparison`.
    folder: of the comparison.
    data_dir: where real data is looked for.

  Returns:
    Jobs, in the order of labels and seeds.

  Raises:
    InputError: no method key, an unknown key, no label left or no such fold.
  """
  values = records.clean(config)
  values.setdefault('vary', 'seed')
  own = {}
  for key in comparisons.OWN_KEYS:
    if key not in values:
      raise InputError(
        f'a config without {key!r}',
        'a comparison',
        'use experiments/configs/compare.py, or experiments.main for one run',
      )
    own[key] = values.pop(key)
  patterns = [p for p in own['only'].split(',') if p] or ['*']
  labels = [
    label
    for label in own['labels']
    if any(fnmatch.fnmatch(label, p) for p in patterns)
  ]
  vary = own['vary']
  if vary == 'data.fold' and not own['seeds']:
    own['seeds'] = list(range(values['data']['folds']))
  if not labels or not own['seeds']:
    raise InputError(
      f'no run in only={own["only"]!r}, seeds={own["seeds"]}',
      f'patterns for labels such as {", ".join(own["labels"][:6])}',
      "leave --config.only out, or write --config.seeds='(0,1,2)'",
    )
  jobs = []
  for label in labels:
    for seed in own['seeds']:
      run = records.config_from_dict(values)
      try:
        records.override(run, own['methods'][label])
      except InputError as error:
        raise InputError(
          f'methods[{label!r}]: {error}', 'keys of a run', 'correct the config'
        ) from error
      run.update_from_flattened_dict({vary: seed})
      workdir = str(folder / label / f'{over(vary)}_{seed}')
      jobs.append(pool.Job(label, seed, workdir, records.clean(run), data_dir))
  return jobs


def over(vary: str) -> str:
  """What the runs of a label differ in, for people.

  >>> over('seed'), over('data.fold')
  ('seed', 'fold')
  """
  return vary.rpartition('.')[2]


def is_done(job: pool.Job) -> bool:
  """The run is finished, and it is this run.

  Raises:
    InputError: the folder holds a run of another config.
  """
  folder = pathlib.Path(job.workdir)
  if not (folder / 'config.json').exists():
    return False
  stored = records.read_json(folder / 'config.json')
  config = records.config_from_dict(job.config)
  records.adopt(config, stored)
  config.fill = config.fill or algorithms.DEFAULT_FILL.get(
    config.method, 'skip'
  )
  difference = records.first_difference(config, stored)
  if difference:
    raise InputError(
      f'{folder} with {difference}',
      'runs of this comparison',
      'use another --workdir, or take the change back',
    )
  return tables.load(folder, job.label, job.seed) is not None


class Overview:
  """All runs at once: a live bar, or a line per finished run."""

  def __init__(self, console: rich.console.Console, left, done: int):
    """Args: left: jobs to do; done: how many are finished already."""
    self._console, self._live = console, console.is_terminal
    self._total, self._ended = done + len(left), done
    self._at: dict[str, int] = {}
    self.failures: dict[str, str] = {}
    self.interrupted = 0
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('{task.description}'),
      rich.progress.BarColumn(),
      rich.progress.TextColumn('{task.fields[now]}'),
      rich.progress.TextColumn('ETA'),
      rich.progress.TimeRemainingColumn(compact=True),
      console=console,
      disable=not self._live,
    )
    rounds = sum(job.config['rounds'] for job in left)
    self._task = self._bar.add_task('', total=rounds, now='')
    self._show('')

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()

  def event(self, job: pool.Job, message: dict) -> None:
    """What a worker tells."""
    name = f'{job.label} {_number(job)}'
    if message['event'] != 'end':
      self._at[job.workdir] = message['round']
      shown = f'{name} F1 {progress.percent(message.get("f1"))} %'
      self._show(shown if 'f1' in message else name)
      return
    status = message['status']
    if status == records.INTERRUPTED:
      self.interrupted += 1
    elif status != records.COMPLETE:
      reason = message.get('reason') or reason_of(job)
      self.failures[name] = f'{status}: {reason}'
    self._ended += 1
    self._at[job.workdir] = job.config['rounds']
    if not self._live or status != records.COMPLETE:
      self._console.print(
        f'[{self._ended}/{self._total}] {name}: {status}',
        markup=False,
        highlight=False,
      )
    self._show(name)

  def _show(self, now: str) -> None:
    self._bar.update(
      self._task,
      completed=sum(self._at.values()),
      description=f'runs {self._ended}/{self._total}',
      now=now,
    )


def _number(job: pool.Job) -> str:
  """'seed 0' or 'fold 0', from the run directory's name."""
  return pathlib.Path(job.workdir).name.replace('_', ' ')


def reason_of(job: pool.Job) -> str:
  """Why a run that ended by itself is not complete."""
  path = pathlib.Path(job.workdir) / 'summary.json'
  return records.read_json(path).get('reason', '') if path.exists() else ''


def compare(
  config, folder: pathlib.Path, data_dir: str | None, workers: int
) -> int:
  """Runs what is not done yet and reports; returns the exit code.

  Raises:
    InputError: bad config, or a folder with other runs in it.
    OSError: the folder cannot be written.
  """
  console = rich.console.Console(
    width=None if sys.stdout.isatty() else 140, soft_wrap=False
  )
  if (folder / 'metrics.jsonl').exists():
    raise InputError(
      f'a single run in {folder}',
      'a new folder, or one of a comparison',
      'use another --workdir',
    )
  jobs = expand(config, folder, data_dir)
  done = [job for job in jobs if is_done(job)]
  logs = folder / 'logs'
  logs.mkdir(parents=True, exist_ok=True)
  records.write_json(folder / 'config.json', config)
  left = [job for job in jobs if job not in done]
  workers = max(1, min(workers or pool.default_workers(), len(left)))
  console.print(
    f'{len(jobs)} runs, {len(done)} of them done, {workers} worker processes',
    highlight=False,
  )
  crew = pool.Pool(left, workers, logs)
  with Overview(console, left, len(done)) as overview, Stop(crew):
    crew.run(overview.event)
  report(jobs, folder, config.baseline, console, over(config.vary) + 's')
  for name, reason in overview.failures.items():
    console.print(f'failed: {name}: {reason}', markup=False, highlight=False)
  if overview.interrupted or crew.stopped:
    console.print('interrupted; the same command goes on', highlight=False)
    return command.INTERRUPTED
  return command.FAILED if overview.failures else 0


class Stop(runner.Stop):
  """Tells the pool to stop at the first SIGINT or SIGTERM."""

  def __init__(self, crew: pool.Pool):
    """Args: crew: told to stop."""
    super().__init__()
    self._crew = crew

  def _handle(self, number, frame):
    super()._handle(number, frame)
    self._crew.stop()


def report(
  jobs, folder: pathlib.Path, baseline: str, console, numbers: str = 'seeds'
) -> None:
  """Tables and figures of what is finished.

  Args:
    jobs: all of the comparison.
    folder: where they go.
    baseline: label that the others are compared with.
    console: to print on.
    numbers: what a mean is over, 'seeds' or 'folds'.

  Raises:
    InputError: a file of a run that cannot be read.
    OSError: the folder cannot be written.
  """
  loaded = [
    tables.load(pathlib.Path(job.workdir), job.label, job.seed) for job in jobs
  ]
  runs = [run for run in loaded if run]
  if not runs:
    return
  cells = tables.table(runs, baseline)
  tables.save(cells, folder, numbers)
  tables.show(cells, console, baseline, numbers)
  plots.figures(runs, folder / 'figures', baseline, numbers)
  datasets = {run.summary['dataset'] for run in runs}
  if len(datasets) > 1:
    console.print(
      f'warning: runs on different data sets, {", ".join(sorted(datasets))}: '
      'set --config.dataset, in another --workdir',
      highlight=False,
    )
  console.print(
    f'Wrote {folder}/table.csv, table.md and figures/',
    highlight=False,
    soft_wrap=True,
  )


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: as `compare`.
  """
  del argv
  return compare(
    _CONFIG.value,
    pathlib.Path(str(_WORKDIR.value)),
    _DATA_DIR.value,
    _WORKERS.value,
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  command.launch(main)
