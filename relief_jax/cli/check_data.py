"""Describes data of your own, and their faults.

    relief check-data FILE.npz [--channels='acc=0,1,2;ecg=3'] [--width=128]
    relief check-data FILE.csv --label=COLUMN [--client=COLUMN]
    relief check-data FOLDER_OF_TEXTS [--width=64]

What they should hold: npz.py, csv.py and texts.py in relief_jax/datasets. Exit
code 0: they can be used; 2: they cannot, or something in them wants a look.
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
  flags.DEFINE_string('label', 'label', '.csv: the column that is predicted')
  flags.DEFINE_string('client', '', '.csv: the column of whose row it is')


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: not one file, or one that cannot be used.
  """
  given = flags.FLAGS
  path = command.one_path(
    argv,
    'relief check-data PATH',
    'name an .npz, a .csv or a folder of texts',
  )
  fine = check.tell(
    path,
    given.channels,
    given.max_gap,
    given.width,
    given.label,
    given.client,
  )
  return 0 if fine else exit_codes.BAD_INPUT
