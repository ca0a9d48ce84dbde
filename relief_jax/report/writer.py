"""Writes the report of runs: one HTML file, figures and tables."""

import pathlib

from relief_jax.report import (
  cosine_charts,
  device_charts,
  gather,
  page,
  run_charts,
  summaries,
)
from relief_jax.storage import records

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
