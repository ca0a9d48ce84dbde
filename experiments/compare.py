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
from ml_collections import config_flags

from experiments import campaign, command, pool, records
from experiments.configs import compare as comparisons
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
    OSError: the folder cannot be written.
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
  return compare(
    _CONFIG.value,
    pathlib.Path(str(_WORKDIR.value)),
    _DATA_DIR.value,
    _WORKERS.value,
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  command.launch(main)
