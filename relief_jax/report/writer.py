"""Writes the report of runs: one HTML file, figures and tables."""

import pathlib

from relief_jax.report import (
  confusion_charts,
  cosine_charts,
  curves,
  device_charts,
  gather,
  merge_charts,
  page,
  run_charts,
  split_charts,
  tables,
)
from relief_jax.storage import records

FIGURES = (
  curves.charts_of,
  run_charts.differences,
  run_charts.sensitivity,
  run_charts.pareto,
  device_charts.tiers,
  device_charts.histograms,
  confusion_charts.confusions,
  run_charts.divergence,
  merge_charts.errors,
  cosine_charts.heat_maps,
  device_charts.rasters,
  device_charts.gantt,
  split_charts.rounds,
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
    figures, folder = out / 'figures', out / 'tables'
    for path in (figures, folder):
      path.mkdir(parents=True, exist_ok=True)
    made: dict[str, tuple[page.Chart, list[page.Saved]]] = {}
    for draw in FIGURES:
      for chart in draw(collection):
        if chart.name in made:  # labels that differ in odd letters only
          chart = chart._replace(name=f'{chart.name}-{len(made)}')
        made[chart.name] = chart, page.save(chart, figures)
    shown = tables.tables_of(collection)
    for table in shown:
      (folder / f'{table.name}.csv').write_text(table.csv(), encoding='utf-8')
      (folder / f'{table.name}.tex').write_text(table.tex(), encoding='utf-8')
    path = out / 'report.html'
    path.write_text(
      page.render(collection, [*made.values()], shown), encoding='utf-8'
    )
    return path
