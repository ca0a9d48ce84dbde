"""Describes a file of your own data, and its faults.

    relief check-data FILE [--channels='acc=0,1,2;ecg=3'] [--width=128]

The file is described in relief_jax/datasets/npz.py. Exit code 0: it can be
used; 2: it cannot, or something in it wants a look.
"""

from absl import flags

from relief_jax.cli import command
from relief_jax.datasets import check
from relief_jax.storage import exit_codes


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('channels', '', "modalities, such as 'acc=0,1,2;ecg=3'")
  flags.DEFINE_float('max_gap', 0.5, 's of NaN to interpolate', lower_bound=0.0)
  flags.DEFINE_integer('width', 1, 'samples in a window', lower_bound=1)


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: not one file, or one that cannot be used.
  """
  given = flags.FLAGS
  path = command.one_path(argv, 'relief check-data FILE', 'name an .npz')
  fine = check.tell(path, given.channels, given.max_gap, given.width)
  return 0 if fine else exit_codes.BAD_INPUT
