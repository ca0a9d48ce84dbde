"""Shows the clients of a config before anything trains.

    relief inspect relief --config.clients=200 --workdir=runs/look

Prints a summary and writes DIR/world.png (default: the current folder): classes
and windows of the devices, and who carries which sensor. Nothing is compiled.
"""

import pathlib

from absl import flags

from relief_jax import datasets
from relief_jax.cli import command
from relief_jax.report import world_figure
from relief_jax.storage import records
from relief_jax.world import client_data, fleets


def define() -> None:
  """Defines the flags."""
  command.define_config()
  command.define_path('workdir', '.', 'where world.png goes')
  command.define_data_dir()


def main(argv):
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: whatever is wrong with the config, the data or the fleet.
    StorageError: the folder cannot be written.
  """
  del argv
  given = flags.FLAGS
  config = command.config()
  found = client_data.build_clients(config, given.data_dir)
  view = world_figure.view(found, fleets.tier_names(config.fleet))
  path = pathlib.Path(given.workdir, 'world.png')
  print(world_figure.summary(view))
  print(datasets.remark([view.dataset]))
  with records.storing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    world_figure.draw(view, path)
  print(f'figure: {path}')
  return 0
