"""Makes the report of runs: one HTML file, figures and tables.

python -m experiments.report DIR... [--out=DIR] [--baseline=LABEL]

DIR is a run directory or the folder of a comparison or a sweep; with several,
labels begin with the folder's name. Writes report.html (in itself complete: no
network, no scripts), figures/*.png and *.pdf, tables/*.csv and *.tex, to the
first DIR unless told otherwise. A sweep that is still running may be looked
at: what is finished is shown, the rest is listed.
"""

import pathlib

from absl import flags

from experiments import (
  command,
  cosine_charts,
  device_charts,
  gather,
  page,
  records,
  run_charts,
  summaries,
)
from relief_jax import datasets
from relief_jax.errors import InputError
from relief_jax.files import paths


def define() -> None:
  """Defines the flags."""
  command.define_path('out', None, 'where it goes; default: the first DIR')
  flags.DEFINE_string('baseline', '', 'label that others are compared with')


FIGURES = (
  run_charts.curves,
  run_charts.differences,
  run_charts.sensitivity,
  run_charts.pareto,
  device_charts.tiers,
  device_charts.histograms,
  run_charts.divergence,
  cosine_charts.heat_maps,
  device_charts.rasters,
  device_charts.gantt,
)


def write(collection: gather.Collection, out: pathlib.Path) -> pathlib.Path:
  """Writes figures, tables and the page.

  Args:
    collection: of runs.
    out: made where it is not there.

  Returns:
    The page.

  Raises:
    StorageError: the folder cannot be written.
  """
  with records.storing(out):
    return _write(collection, out)


def _write(collection: gather.Collection, out: pathlib.Path) -> pathlib.Path:
  """Writes like `write`; raises the system's own errors."""
  figures, folder = out / 'figures', out / 'tables'
  for path in (figures, folder):
    path.mkdir(parents=True, exist_ok=True)
  made: list[page.Saved] = []
  for draw in FIGURES:
    for chart in draw(collection):
      taken = {saved.chart.name for saved in made}
      if chart.name in taken:  # labels that differ in odd letters only
        chart = chart._replace(name=f'{chart.name}-{len(made)}')
      made.append(page.save(chart, figures))
  shown = summaries.tables_of(collection)
  for table in shown:
    (folder / f'{table.name}.csv').write_text(
      summaries.csv_of(table), encoding='utf-8'
    )
    (folder / f'{table.name}.tex').write_text(
      summaries.tex_of(table), encoding='utf-8'
    )
  path = out / 'report.html'
  path.write_text(page.render(collection, made, shown), encoding='utf-8')
  return path


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: no folder, or one without runs.
  """
  folders = [pathlib.Path(paths.expand(name, 'DIR')) for name in argv[1:]]
  given = flags.FLAGS
  if not folders:
    raise InputError(
      'no folder', 'one or more: python -m experiments.report DIR', 'name it'
    )
  collection = gather.gather(folders, given.baseline)
  path = write(collection, pathlib.Path(given.out or folders[0]))
  size = path.stat().st_size / 1e6
  used = [run.summary.get('dataset') for run in collection.runs]
  print(datasets.remark(used))
  print(f'{len(collection.found)} runs, {size:.1f} MB: {path}')
  return 0


if __name__ == '__main__':
  command.launch(main, define, operands=True)
