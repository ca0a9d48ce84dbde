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

from absl import flags

from relief_jax.cli import command
from relief_jax.errors import InputError
from relief_jax.report import gather, robustness
from relief_jax.storage import records


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('against', 'fedavg', 'method of the differences')


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: not one folder, or none of a grid.
    StorageError: the folder cannot be written.
  """
  folder = command.one_path(
    argv, 'relief robustness DIR', 'name the --workdir of the comparison'
  )
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
