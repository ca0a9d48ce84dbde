"""Tables and heat maps of a robustness grid.

    relief robustness DIR

DIR is the folder of a comparison of `configs/robustness.py`, finished or not.
Writes robustness.csv and robustness.md with the mean and half the 95 % interval
over seeds of three macro-F1s (shares in the CSV, percent in the text):
`complete` with every sensor at test, `missing` the mean over the sensors with
each of them missing in turn, and `worst` the least of these; and
robustness.png, the difference of each method to
FedAvg in the same world, seed by seed, one heat map a method.
"""

import pathlib

from absl import flags

from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.report import gather, robustness
from relief_jax.storage import records


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('against', 'fedavg', 'method of the differences')


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: not one folder, or none of a grid.
    StorageError: the folder cannot be written.
  """
  if len(argv) != 2:
    raise InputError(
      f'{len(argv) - 1} folders',
      'one: relief robustness DIR',
      'name the --workdir of the comparison',
    )
  folder = pathlib.Path(paths.expand(argv[1], 'DIR'))
  found = robustness.grid(gather.gather([folder]).runs)
  baseline = flags.FLAGS.against
  if baseline not in robustness.methods(found):
    raise InputError(
      f'--against={baseline}',
      f'one of {", ".join(robustness.methods(found))}',
      'correct it',
    )
  with records.storing(folder):
    robustness.write_tables(found, folder)
    robustness.draw(found, baseline, folder / 'robustness.png')
  print(f'Wrote {folder}/robustness.csv, .md and .png')
  return 0
