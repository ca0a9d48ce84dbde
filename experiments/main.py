"""Runs one experiment and leaves a run directory.

python -m experiments.main --config=experiments/configs/relief.py:smoke \
    --workdir=runs/relief [--config.key=value ...] [--data_dir=DIR] [--resume]

`--config` also takes the `config.json` of another run.

Several processes share one run, its clients spread over the devices of all:
start the same command in each with `--coordinator=HOST:PORT
--num_processes=2 --process_id=0` (and 1), or with `--coordinator=auto` under
Slurm. Process 0 writes the directory.
"""

from absl import flags
from ml_collections import config_flags

from experiments import command, progress, runner
from relief_jax import compile_cache, processes, simulate
from relief_jax.validation import validate

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'a config file, NAME.py[:variant] or a config.json'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run directory')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'where real data is')
_RESUME = flags.DEFINE_bool('resume', False, 'go on with the run in workdir')
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0 of several, or auto'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'how many share the run'
)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'of this one, from 0')
_COMPILE_CACHE = flags.DEFINE_string(
  'compile_cache', None, 'a folder that keeps compiled programs'
)
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv):
  """Returns the exit code of the run (see `command`).

  Raises:
    InputError: as `runner.run`.
  """
  del argv
  config = _CONFIG.value
  runner.refuse_comparison(config)
  validate(config)
  simulate.set_devices(config.devices)
  processes.start(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  if _COMPILE_CACHE.value:
    compile_cache.enable(_COMPILE_CACHE.value)
  status = runner.run(
    config,
    _WORKDIR.value,
    _DATA_DIR.value,
    _RESUME.value,
    progress.reporter() if processes.is_main() else None,
  )
  return command.CODES[status]


if __name__ == '__main__':
  command.launch(main)
