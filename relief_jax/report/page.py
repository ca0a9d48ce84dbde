"""The page of a report: one HTML file with everything in it."""

import base64
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import PIL.Image

from relief_jax import datasets
from relief_jax.keys import differing, flatten
from relief_jax.report import tables
from relief_jax.report.charts import Chart
from relief_jax.report.gather import Collection
from relief_jax.storage import records

_TEMPLATE = 'page.html.jinja'
# Rows of a table that a page shows; the CSV has all.
SHOWN = 60
# Tables above the figures.
_FIRST = ('headline', 'equal_cost', 'persons', 'fairness', 'fairness_own')


class Saved(NamedTuple):
  """Holds a panel that was written.

  Attributes:
    name: of its files.
    png: for the page, base64.
    size: in pixels.
  """

  name: str
  png: str
  size: tuple[int, int]


def save(chart: Chart, folder: pathlib.Path) -> list[Saved]:
  """Writes the panels of a chart as PNG and PDF.

  The page holds the PNG itself, with all its colours: a palette would merge
  those of lines and cut those of a scale into bands.

  Args:
    chart: drawn.
    folder: theirs.

  Raises:
    OSError: the folder cannot be written.
  """
  made = []
  for end, figure in chart.panels.items():
    name = '_'.join(filter(None, [chart.name, end]))
    path = folder / f'{name}.png'
    # Without dates, so that the same runs give the same files.
    figure.savefig(path.with_suffix('.pdf'), metadata={'CreationDate': None})
    figure.savefig(path, dpi=150, pil_kwargs={'optimize': True})
    with PIL.Image.open(path) as image:
      size = image.size
    png = base64.b64encode(path.read_bytes()).decode()
    made.append(Saved(name, png, size))
  return made


def render(
  collection: Collection,
  charts: Sequence[tuple[Chart, Sequence[Saved]]],
  shown: Sequence[tables.Table],
) -> str:
  """Builds the page.

  Args:
    collection: of runs.
    charts: its figures, each with its panels.
    shown: its tables.

  Returns:
    HTML.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('relief_jax.report', ''),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  methods = _distinct(collection, 'method')
  several = (
    f'{len(methods)} methods' if len(methods) > 3 else ', '.join(methods)
  )
  return environment.get_template(_TEMPLATE).render(
    title=f'{several} on {tables.data_sets(collection.runs)}',
    facts=_facts(collection),
    statuses=[
      status
      for status in _distinct(collection, 'status')
      if status != records.COMPLETE
    ],
    data=datasets.remark(_distinct(collection, 'dataset')),
    first=[table for table in shown if table.name in _FIRST],
    others=[table for table in shown if table.name not in _FIRST],
    rows=SHOWN,
    charts=charts,
    baseline=collection.baseline,
    unfinished=_by_reason(collection.unfinished),
    details=_details(collection),
  )


def _distinct(collection: Collection, key: str) -> list[str]:
  found = [run.summary.get(key) for run in collection.runs]
  return sorted({str(value) for value in found if value is not None})


def _by_reason(unfinished: Mapping[str, str]) -> dict[str, list[str]]:
  """Maps how runs stand to the names of those that do."""
  found: dict[str, list[str]] = {}
  for name, why in unfinished.items():
    found.setdefault(why, []).append(name)
  return found


def _facts(collection: Collection) -> list[str]:
  own = collection.by_label
  most = max(map(collection.count, own), default=0)
  return [
    f'{len(collection.runs)} runs',
    f'{len(own)} label{"s" if len(own) > 1 else ""}',
    f'{most} {collection.numbers}',
    f'{", ".join(_distinct(collection, "clients"))} devices',
    f'{", ".join(_distinct(collection, "rounds"))} rounds',
  ]


def _details(collection: Collection) -> list[tuple[str, str, bool]]:
  """Says how it was made: title, text, and whether it is open."""
  runs = collection.runs
  configs = [flatten(dict(run.config)) for run in runs]
  varied = sorted(differing(configs))
  own = [
    f'{run.label} {run.folder.name}: '
    + json.dumps({k: c.get(k) for k in varied})
    for run, c in zip(runs, configs, strict=True)
  ]
  versions = dict.fromkeys(_machine(run.summary) for run in runs)
  lines = [
    f'{k} = {json.dumps(v)}'
    for k, v in sorted(configs[0].items() if configs else ())
    if k not in varied
  ]
  found = [
    ('Command', '\n'.join(collection.commands), True),
    ('Versions and machine', '\n'.join(versions), True),
    ('Config of all runs', '\n'.join(lines), False),
    ('What each run sets', '\n'.join(own) if varied else '', False),
  ]
  return [one for one in found if one[1]]


def _machine(summary: Mapping[str, Any]) -> str:
  known = {
    **(summary.get('versions') or {}),
    'device': summary.get('device_kind'),
    'cores': summary.get('cpu_count'),
    'git': summary.get('git_revision'),
  }
  return ', '.join(f'{k} {v}' for k, v in known.items() if v)
