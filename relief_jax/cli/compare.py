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
DIR/figures, of all labels that are finished in DIR, also those that
--config.only leaves out this time. DIR is --workdir, else runs/NAME.
"""

from absl import flags

from relief_jax.campaign import campaign, execution
from relief_jax.cli import command, config_flags, plan


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


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: bad config, or a folder with other runs in it.
    StorageError: the folder cannot be written.
  """
  del argv
  given = flags.FLAGS
  config, folder = command.config('compare:smoke'), command.workdir()
  found = campaign.of_comparison(config, folder, given.data_dir)
  config_flags.taken(config, found.jobs)
  if given.dry:
    plan.show(plan.of_campaign(config, found.jobs, folder, given.workers))
    return 0
  return execution.run(found, folder, given.workers)
