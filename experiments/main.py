"""Runs one experiment and leaves a run directory.

python -m experiments.main --config=experiments/configs/relief.py:smoke \
    --workdir=runs/relief [--config.key=value ...] [--data_dir=DIR] [--resume]

`--config` also takes the `config.json` of another run.
"""

from absl import flags
from ml_collections import config_flags

from experiments import command, progress, runner
from relief_jax import simulate

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'a config file, NAME.py[:variant] or a config.json'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'the run directory')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'where real data is')
_RESUME = flags.DEFINE_bool('resume', False, 'go on with the run in workdir')
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv):
  """Returns the exit code of the run (see `command`).

  Raises:
    InputError: as `runner.run`.
  """
  del argv
  config = _CONFIG.value
  simulate.set_devices(config.devices)
  status = runner.run(
    config,
    _WORKDIR.value,
    _DATA_DIR.value,
    _RESUME.value,
    progress.reporter(),
  )
  return command.CODES[status]


if __name__ == '__main__':
  command.launch(main)
