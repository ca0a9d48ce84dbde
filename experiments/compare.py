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

from absl import flags

from experiments import campaign, command, naming, pool, records
from experiments.configs import compare as comparisons
from relief_jax.errors import InputError


def define() -> None:
  """Defines the flags."""
  command.define_config('a comparison: NAME[:variant], a .py or a config.json')
  command.define_path('workdir', None, 'one run directory per run')
  command.define_data_dir()
  flags.DEFINE_integer(
    'workers',
    0,
    'processes; 0: one per core, or one for an accelerator',
    lower_bound=0,
  )
  flags.mark_flags_as_required(['config', 'workdir'])


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
  shared = records.clean(config)
  shared.setdefault('vary', 'seed')
  own = {}
  for key in comparisons.OWN_KEYS:
    if key not in shared:
      raise InputError(
        f'a config without {key!r}',
        'a comparison',
        'use experiments/configs/compare.py, or experiments.main for one run',
      )
    own[key] = shared.pop(key)
  for label in own['labels']:
    naming.check_label(label)
  patterns = [p for p in own['only'].split(',') if p] or ['*']
  labels = [
    label
    for label in own['labels']
    if any(fnmatch.fnmatch(label, p) for p in patterns)
  ]
  vary = own['vary']
  if vary == 'data.fold' and not own['seeds']:
    own['seeds'] = list(range(shared['data']['folds']))
  if not labels or not own['seeds']:
    raise InputError(
      f'no run in only={own["only"]!r}, seeds={own["seeds"]}',
      f'patterns for labels such as {", ".join(own["labels"][:6])}',
      "leave --config.only out, or write --config.seeds='(0,1,2)'",
    )
  jobs = []
  for label in labels:
    for seed in own['seeds']:
      run = records.config_from_dict(shared)
      try:
        records.override(run, own['methods'][label])
      except InputError as error:
        raise InputError(
          f'methods[{label!r}]: {error}', 'keys of a run', 'correct the config'
        ) from error
      run.update_from_flattened_dict({vary: seed})
      workdir = str(folder / label / f'{pool.over(vary)}_{seed}')
      values = records.flatten(own['methods'][label]) | {vary: seed}
      jobs.append(
        pool.Job(label, seed, workdir, records.clean(run), data_dir, values)
      )
  return jobs


def compare(
  config, folder: pathlib.Path, data_dir: str | None, workers: int
) -> int:
  """Runs what is not done yet and reports; returns the exit code.

  Raises:
    InputError: bad config, or a folder with other runs in it.
    StorageError: the folder cannot be written.
  """
  jobs = expand(config, folder, data_dir)
  return campaign.Campaign(
    jobs, folder, config, config.baseline, pool.over(config.vary) + 's'
  ).run(workers)


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: as `compare`.
  """
  del argv
  given = flags.FLAGS
  return compare(
    given.config, pathlib.Path(given.workdir), given.data_dir, given.workers
  )


if __name__ == '__main__':
  command.launch(main, define)
