"""The page of a report: one HTML file with everything in it."""

import base64
import html
import io
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor

from relief_jax import datasets
from relief_jax.report import gather, palette, tables
from relief_jax.report.charts import Chart
from relief_jax.report.gather import Collection
from relief_jax.report.summaries import SHOWN, Table
from relief_jax.storage import records

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff;
  max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
a { color: #004c8c; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .45rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1.5px solid #111; white-space: normal;
  vertical-align: bottom; }
tbody tr:nth-child(even) { background: #f2f2f2; }
tbody tr.base th, tbody tr.base td { font-weight: 600; }
tbody th { font-weight: inherit; position: sticky; left: 0;
  background: inherit; }
tbody tr { background: #fff; }
figure { margin: .5rem 0 1.5rem; }
img { max-width: 100%; height: auto; display: block; }
/* On a telephone: as wide as its letters need, to be moved sideways. */
@media screen and (max-width: 45rem) {
  figure img { max-width: none; width: 44rem; }
}
figcaption, .note { font-size: .85rem; color: #333; max-width: 50rem; }
pre { font-size: .8rem; background: #f2f2f2; padding: .7rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 6.5pt; }
  th, td { padding: .08rem .22rem; }
}
"""


class Saved(NamedTuple):
  """Holds a figure that was written.

  Attributes:
    chart: what it shows.
    png: for the page, in few colours.
    size: in pixels.
  """

  chart: Chart
  png: bytes
  size: tuple[int, int]


def save(chart: Chart, folder: pathlib.Path) -> Saved:
  """Writes a figure as PNG and PDF.

  Args:
    chart: drawn.
    folder: theirs.

  Raises:
    OSError: the folder cannot be written.
  """
  # Without dates, so that the same runs give the same files.
  chart.figure.savefig(
    folder / f'{chart.name}.pdf', metadata={'CreationDate': None}
  )
  path = folder / f'{chart.name}.png'
  chart.figure.savefig(path, dpi=150)
  image = Image.open(path).convert('RGB')
  image = image.resize((round(0.75 * image.width), round(0.75 * image.height)))
  packed = io.BytesIO()
  _few_colours(image).save(packed, 'PNG', optimize=True)
  return Saved(chart, packed.getvalue(), image.size)


def _few_colours(image: Image.Image) -> Image.Image:
  """Reduces an image to 128 colours and those of all lines.

  A median cut alone gives thin lines the colours of what lies around them.
  """
  cut = image.quantize(128).getpalette() or []
  found = np.array(cut, int).reshape(-1, 3)[:128]
  found = np.where(found.min(1, keepdims=True) >= 250, 255, found)  # paper
  lines = [ImageColor.getrgb(colour) for colour in palette.COLOURS]
  chosen = np.concatenate([found, lines]).ravel().tolist()
  known = Image.new('P', (1, 1))
  known.putpalette(chosen)
  return image.quantize(palette=known, dither=Image.Dither.NONE)


def render(
  collection: Collection, charts: list[Saved], shown: list[Table]
) -> str:
  """Builds the page.

  Args:
    collection: of runs.
    charts: its figures.
    shown: its tables.

  Returns:
    HTML.
  """
  title = _title(collection)
  sections = [
    ('results', 'Results', _tables(collection, shown, first=True)),
    ('figures', 'Figures', ''.join(map(_figure, charts))),
    ('numbers', 'All numbers', _tables(collection, shown, first=False)),
  ]
  if collection.unfinished:
    sections.append(
      ('unfinished', 'Not finished or failed', _unfinished(collection))
    )
  sections.append(('how', 'How it was made', _how(collection)))
  links = ''.join(f'<a href="#{name}">{head}</a>' for name, head, _ in sections)
  body = '\n'.join(
    f'<section id="{name}">\n<h2>{head}</h2>\n{text}\n</section>'
    for name, head, text in sections
  )
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light">\n'
    f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
    f'<body>\n<h1>{html.escape(title)}</h1>\n{_intro(collection)}\n'
    f'<nav>{links}</nav>\n{body}\n</body>\n</html>\n'
  )


def _distinct(collection: Collection, key: str) -> list[Any]:
  found = [one.run.summary.get(key) for one in collection.found]
  return sorted({str(value) for value in found if value is not None})


def _title(collection: Collection) -> str:
  methods = _distinct(collection, 'method')
  several = (
    f'{len(methods)} methods' if len(methods) > 3 else ', '.join(methods)
  )
  return f'{several} on {tables.data_sets(collection.runs)}'


def _intro(collection: Collection) -> str:
  labels = gather.by_label(collection.found)
  facts = [
    f'{len(collection.found)} runs',
    f'{len(labels)} label{"s" if len(labels) > 1 else ""}',
    f'{max(len({one.run.seed for one in own}) for own in labels.values())} '
    f'{collection.numbers}',
    f'{", ".join(_distinct(collection, "clients"))} devices',
    f'{", ".join(_distinct(collection, "rounds"))} rounds',
  ]
  statuses = [s for s in _distinct(collection, 'status') if s != 'complete']
  note = f' Status: {", ".join(statuses)}.' if statuses else ''
  data = datasets.remark(_distinct(collection, 'dataset'))
  return (
    f'<p>{html.escape(", ".join(facts))}. Times, energy and bytes are '
    f'simulated; none was measured on a device.{note}</p>\n'
    f'<p>{html.escape(data)}</p>'
  )


_FIRST = ('headline', 'equal_cost', 'persons', 'fairness')


def _tables(collection: Collection, shown: list[Table], first: bool) -> str:
  return ''.join(
    _table(table, collection)
    for table in shown
    if (table.name in _FIRST) == first
  )


def _table(table: Table, collection: Collection) -> str:
  head = ''.join(f'<th scope="col">{html.escape(c)}</th>' for c in table.head)
  rows = []
  for label, *cells in table.rows[:SHOWN]:
    base = tables.short(label) == collection.baseline
    rows.append(
      f'<tr{" class=base" if base else ""}><th scope="row">'
      f'{html.escape(label)}</th>'
      + ''.join(f'<td>{html.escape(c)}</td>' for c in cells)
      + '</tr>'
    )
  more = len(table.rows) - SHOWN
  note = table.note + (
    f' {more} more rows in tables/{table.name}.csv.' if more > 0 else ''
  )
  return (
    f'<h3>{html.escape(table.title)}</h3>\n<div class="wide"><table>\n'
    f'<thead><tr>{head}</tr></thead>\n<tbody>\n'
    + '\n'.join(rows)
    + f'\n</tbody>\n</table></div>\n<p class="note">{html.escape(note)}</p>\n'
  )


def _figure(saved: Saved) -> str:
  chart, (width, height) = saved.chart, saved.size
  data = base64.b64encode(saved.png).decode()
  caption = html.escape(chart.caption)
  return (
    f'<h3>{html.escape(chart.title)}</h3>\n<figure>\n'
    f'<div class="wide"><img width="{width}" height="{height}" alt="{caption}" '
    f'src="data:image/png;base64,{data}"></div>\n'
    f'<figcaption>{caption} Files: figures/{html.escape(chart.name)}.png, '
    '.pdf.</figcaption>\n</figure>\n'
  )


def _unfinished(collection: Collection) -> str:
  items = ''.join(
    f'<li>{html.escape(name)}: {html.escape(why)}</li>'
    for name, why in collection.unfinished.items()
  )
  return f'<ul>{items}</ul>'


def _how(collection: Collection) -> str:
  configs = [records.flatten(one.config) for one in collection.found]
  first = configs[0]
  shared = {
    k: v for k, v in first.items() if all(c.get(k) == v for c in configs)
  }
  varied = sorted({k for c in configs for k in c} - set(shared))
  own = {
    f'{one.run.label} {one.folder.name}': {k: c.get(k) for k in varied}
    for one, c in zip(collection.found, configs, strict=True)
  }
  versions: dict[str, None] = {}
  for one in collection.found:
    s = one.run.summary
    known = {
      **(s.get('versions') or {}),
      'device': s.get('device_kind'),
      'cores': s.get('cpu_count'),
      'git': s.get('git_revision'),
    }
    versions[', '.join(f'{k} {v}' for k, v in known.items() if v)] = None
  parts = [
    ('Command', '\n'.join(collection.commands), True),
    ('Versions and machine', '\n'.join(versions), True),
    ('Config of all runs', _lines(shared), False),
  ]
  if varied:
    text = '\n'.join(f'{name}: {json.dumps(v)}' for name, v in own.items())
    parts.append(('What each run sets', text, False))
  return ''.join(
    f'<details{" open" if shown else ""}><summary>{title}</summary>\n'
    f'<pre>{html.escape(text)}</pre></details>\n'
    for title, text, shown in parts
    if text
  )


def _lines(values: dict[str, Any]) -> str:
  return '\n'.join(f'{k} = {json.dumps(v)}' for k, v in sorted(values.items()))
