"""Shows the clients of a config before anything trains.

python -m experiments.inspect --config=experiments/configs/relief.py \
    [--workdir=DIR] [--config.clients=200 ...] [--data_dir=DIR]

Prints a summary and writes DIR/world.png (default: the current folder): classes
and windows of the devices, and who carries which sensor. Nothing is compiled.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import command, world_figure
from relief_jax import dealing, fleets

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'a config file, NAME.py[:variant] or a config.json'
)
_WORKDIR = flags.DEFINE_string('workdir', '.', 'where world.png goes')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'where real data is')
flags.mark_flags_as_required(['config'])


def main(argv):
  """Returns the exit code (see `command`).

  Raises:
    InputError: whatever is wrong with the config, the data or the fleet.
  """
  del argv
  config = _CONFIG.value
  found = dealing.deal(config, _DATA_DIR.value)
  view = world_figure.view(found, fleets.tier_names(config.fleet))
  path = pathlib.Path(_WORKDIR.value, 'world.png')
  path.parent.mkdir(parents=True, exist_ok=True)
  print(world_figure.summary(view))
  world_figure.draw(view, path)
  print(f'figure: {path}')
  return 0


if __name__ == '__main__':
  command.launch(main)
