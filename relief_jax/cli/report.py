"""Makes the report of runs: one HTML file, figures and tables.

    relief report DIR... [--out=DIR] [--baseline=LABEL] [--metric=NAME]
    relief report DIR... --columns=NAME,... [--intervals=NAME,...]

DIR is a run directory or the folder of a comparison or a sweep; with several,
labels begin with the folder's name. Writes report.html (in itself complete: no
network, no scripts), figures/*.png and *.pdf, tables/*.csv and *.tex, to the
first DIR unless told otherwise. A sweep that is still running may be looked
at: what is finished is shown, the rest is listed. Runs are compared by their
main metric (macro-F1, perplexity or RMSE), or with --metric by what is recorded
beside it, `accuracy` or `token_accuracy`. With --columns nothing is written: a
Markdown table of these columns is printed, a row per label, in descending order
of the first, with intervals or with those of some columns alone. Columns are
named as in tables/*.csv.
"""

import pathlib

from absl import flags

from relief_jax import datasets
from relief_jax.cli import command
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.report import chosen, gather, writer


def define() -> None:
  """Defines the flags."""
  command.define_path('out', None, 'where it goes; default: the first DIR')
  flags.DEFINE_string('baseline', '', 'label that others are compared with')
  flags.DEFINE_string(
    'metric', '', 'that runs are compared by; default: the main one'
  )
  flags.DEFINE_list(
    'columns', [], 'prints a table of these columns instead of a report'
  )
  flags.DEFINE_list(
    'intervals', None, 'columns of it whose intervals are shown; default: all'
  )


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: no folder, or one without runs.
  """
  folders = [pathlib.Path(paths.expand(name, 'DIR')) for name in argv[1:]]
  given = flags.FLAGS
  if not folders:
    raise InputError('no folder', 'one or more: relief report DIR', 'name it')
  if given.intervals is not None and not given.columns:
    raise InputError(
      '--intervals without --columns',
      'columns to show them in',
      'name columns, or leave it out',
    )
  if given.out and given.columns:
    raise InputError('--out and --columns', 'one', 'leave one out')
  collection = gather.gather(folders, given.baseline, given.metric)
  if given.columns:
    made = chosen.tables_of(collection, given.columns, given.intervals)
    for table in made:
      title = f'**{table.title}**\n\n' if table.title else ''
      print(f'{title}{table.markdown()}\n')
    print(made[-1].note)
    return 0
  path = writer.write(collection, pathlib.Path(given.out or folders[0]))
  size = path.stat().st_size / 1e6
  used = [run.summary.get('dataset') for run in collection.runs]
  print(datasets.remark(used))
  print(f'{len(collection.runs)} runs, {size:.1f} MB: {path}')
  return 0
