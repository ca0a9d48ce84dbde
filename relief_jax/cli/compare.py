"""Runs several methods and seeds and sets them side by side.

    relief compare compare:smoke
    relief compare compare --workdir=runs/compare --config.rounds=20 --workers=2

The first argument is the name of a comparison, the path of your own, or a
comparison's `config.json`. Every run is a run directory DIR/LABEL/seed_K
(fold_K in a sweep over folds, fold_K_seed_S with several seeds in each).
--config.values=FILE takes the best values of every label from a file of
`relief select`. --dry prints the resolved config and what would be run, and
writes nothing.

What is finished is never run again, what was interrupted goes on: start the
same command again. At the end there are DIR/table.csv, DIR/table.md and
DIR/figures. DIR is --workdir, else runs/NAME.
"""

import pathlib

from absl import flags

from relief_jax.campaign import campaign, choices
from relief_jax.campaign.comparison_jobs import expand
from relief_jax.cli import command, plan
from relief_jax.storage import job_spec


def define() -> None:
  """Defines the flags."""
  command.define_config('a comparison: NAME[:variant], a .py or a config.json')
  command.define_path(
    'workdir', None, 'one run directory per run; default: runs/NAME'
  )
  command.define_data_dir()
  flags.DEFINE_integer(
    'workers',
    0,
    'processes; 0: one per core, or one for an accelerator',
    lower_bound=0,
  )
  plan.define()


def compare(
  config, folder: pathlib.Path, data_dir: str | None, workers: int
) -> int:
  """Runs the jobs that are not done and reports; returns the exit code.

  Raises:
    InputError: bad config, or a folder with other runs in it.
    StorageError: the folder cannot be written.
  """
  jobs = expand(config, folder, data_dir)
  return campaign.Campaign(
    jobs,
    folder,
    config,
    config.baseline,
    job_spec.over(config.vary) + 's',
    note=choices.note(config.values_file, dict.fromkeys(j.label for j in jobs)),
  ).run(workers)


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: as `compare`.
  """
  del argv
  given = flags.FLAGS
  config, folder = command.config('compare:smoke'), command.workdir()
  if given.dry:
    jobs = expand(config, folder, given.data_dir)
    plan.show(plan.of_campaign(config, jobs, folder, given.workers))
    return 0
  return compare(config, folder, given.data_dir, given.workers)
