"""Measures how fast this machine trains, and writes a device profile.

    relief profile-device --out=my_board.json [CONFIG] [--like=raspberry_pi_4]

Times local steps of the config's model on random windows: the forward pass,
every parameter group trained alone, all together, and the same with a single
sensor. The speed is the least-squares fit, on relative errors, of

    seconds per step = batch * FLOPs per sample / speed,

the form in which the simulator uses it. How far it is off is printed and
written into the file, beside a fit with a rate per phase: where that one is
much better, absolute seconds deserve little trust. Power and links cannot be
measured from here: they are copied from the profile that `--like` names;
correct them in the file. A fleet (`--config.fleet=fleet.csv`) takes the file in
its column `device`.

Run it with nothing else on the machine. On a board without JAX for its GPU it
measures the CPU.
"""

import pathlib
import platform

import jax
from absl import flags

from relief_jax import config as config_lib
from relief_jax.cli import command
from relief_jax.devices import device
from relief_jax.errors import InputError
from relief_jax.runs import step_times
from relief_jax.storage import records


def define() -> None:
  """Defines the flags."""
  command.define_config('a config for the model and batch; else the default')
  command.define_path('out', None, 'the profile, a .json')
  flags.DEFINE_string('like', 'raspberry_pi_4', 'power and links of it')
  flags.DEFINE_integer('steps', 20, 'steps in a timing', lower_bound=1)
  flags.DEFINE_integer(
    'repeats', 11, 'timings of every case, the median counts', lower_bound=1
  )
  flags.mark_flags_as_required(['out'])


def main(argv):
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: an unknown profile or a bad config.
    StorageError: the file cannot be written.
  """
  del argv
  given = flags.FLAGS
  path = pathlib.Path(given.out)
  like = device(given.like)
  if path.suffix != '.json' or not path.parent.is_dir():
    raise InputError(
      f'--out={path}', 'a .json in a folder that is there', 'correct --out'
    )
  config = given.config or config_lib.default()
  timer = step_times.clock(given.steps, given.repeats)
  points = step_times.measure(config, given.steps, timer)
  one, each = step_times.fit(points), step_times.phases(points)
  print(step_times.table(points, one, each))
  made = step_times.profile(path.stem, (given.like, like), points, one, each)
  made['note'] += (
    f' {jax.devices()[0].device_kind} of {platform.platform()}, '
    f'{config.backbone} with batches of {config.batch}.'
  )
  records.write_json(path, made)
  print(f'profile: {path}')
  return 0
