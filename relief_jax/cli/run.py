"""Runs one experiment and leaves a run directory.

    relief run relief:smoke
    relief run relief:best --workdir=runs/best --config.rounds=20 --resume

The first argument is the name of a config that comes with the package, such as
`relief` or `relief:smoke`, the path of your own, or a run's `config.json`;
--config=NAME says the same. `relief keys` lists what --config.KEY sets. The run
directory is --workdir, else runs/NAME. --dry prints the resolved config and
what would be run, and writes nothing.

Several processes share one run, its clients spread over the devices of all:
start the same command in each with --coordinator=HOST:PORT
--num_processes=2 --process_id=0 (and 1), or with --coordinator=auto under
Slurm. Process 0 writes the directory.
"""

from absl import flags

from relief_jax import simulate
from relief_jax.cli import cache, command, plan
from relief_jax.config.validation import validate
from relief_jax.engine import compile_cache, processes
from relief_jax.files import invocation
from relief_jax.storage import exit_codes, opening, progress, records, runner


def define() -> None:
  """Defines the flags."""
  command.define_config()
  command.define_path('workdir', None, 'the run directory; default: runs/NAME')
  command.define_data_dir()
  flags.DEFINE_bool('resume', False, 'go on with the run in workdir')
  flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0 of several, or auto'
  )
  flags.DEFINE_integer('num_processes', None, 'how many share the run')
  flags.DEFINE_integer('process_id', None, 'of this one, from 0')
  command.define_path(
    'compile_cache',
    None,
    "a folder that keeps compiled programs; auto: in the user's cache",
  )
  plan.define()


def main(argv):
  """Returns the exit code of the run (see `exit_codes`).

  Raises:
    InputError: as `runner.run`.
  """
  del argv
  given = flags.FLAGS
  config = command.config()
  opening.refuse_comparison(config)
  validate(config)
  simulate.set_devices(config.devices)
  workdir = command.workdir()
  if given.dry:
    plan.show(plan.of_run(config, workdir, given.data_dir))
    return 0
  processes.start(given.coordinator, given.num_processes, given.process_id)
  if given.compile_cache:
    compile_cache.enable(cache.compiled(given.compile_cache))
  status = runner.run(
    config,
    workdir,
    given.data_dir,
    given.resume,
    progress.reporter() if processes.is_main() else None,
  )
  if status == records.INTERRUPTED and processes.is_main():
    print(f'interrupted; go on with: {invocation.resuming()}')
  return exit_codes.CODES[status]
