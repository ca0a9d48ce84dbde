"""Writes the page of a method from its docstring, facts and options."""

import inspect
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence

from docs.hooks import links
from relief_jax import algorithms
from relief_jax.keys import Key, spelled

_URL = re.compile(r'https://[^\s)>,]+[^\s)>,.]')
_GRADE = re.compile(r'Grade:\s+(.*?)\.(?=\s|$)', re.S)
_CODE = re.compile(r'(`[^`]*`)')
RESULTS = links.ROOT / 'docs' / 'results.md'
BUDGETS = links.ROOT / 'docs' / 'budgets.md'


def names() -> list[str]:
  """Lists the methods of the package."""
  return sorted(algorithms.ALGORITHMS)


def docstring(name: str) -> str:
  """Gives the docstring of a method's file."""
  module = sys.modules[algorithms.find(name).__module__]
  return inspect.getdoc(module) or ''


def grade(text: str) -> str:
  """Finds the evidence grade in the docstring of a method's file.

  Args:
    text: with "Grade: ...", or with **ours** in the first sentence.

  Returns:
    '' where there is none.

  >>> grade('Adds (**ours**).'), grade('Adds. Grade: published code\\n(x).')
  ('ours', 'published code (x)')
  """
  if found := _GRADE.search(text):
    return ' '.join(found[1].split())
  return 'ours' if '**ours**' in text.split('\n\n')[0] else ''


def budget(name: str) -> str:
  """Says what a budget decides, from the table of docs/budgets.md."""
  for _, rows in tables(BUDGETS.read_text()):
    for first, *rest in rows:
      if f'`{name}`' in first and rest:
        return rest[0]
  return ''


Table = tuple[list[str], list[list[str]]]  # the head, the rows


def tables(text: str) -> list[Table]:
  """Reads the tables of a page.

  Args:
    text: of the page, in Markdown.
  """
  found: list[Table] = []
  above: list[str] | None = None
  for line in text.splitlines():
    if not line.startswith('|'):
      above = None
      continue
    cells = [cell.strip() for cell in line.strip()[1:].split('|')]
    cells = cells[:-1] if line.rstrip().endswith('|') else cells
    if above and all(set(cell) <= set(':-') for cell in cells):
      found.append((above, []))
    elif above:
      found[-1][1].append(cells)
    else:
      above = cells
  return found


def figures(name: str, found: list[Table]) -> list[tuple[str, str]]:
  """Finds a method's figures: those that stand right of its name.

  Args:
    name: of the method.
    found: the tables of a page.

  Returns:
    (column, figure) of each.
  """
  known: list[tuple[str, str]] = []
  for head, rows in found:
    for row in rows:
      if f'`{name}`' not in row:
        continue
      at = row.index(f'`{name}`') + 1
      for column, figure in zip(head[at:], row[at:], strict=False):
        if not column:  # another method's name follows
          break
        known += [(column, figure)] if figure else []
  return known


def option(name: str, row: Key) -> tuple[str, ...]:
  """Gives the cells of an option: key, default, what it takes, meaning."""
  takes = row.expected().replace('|', '\\|')
  return f'`{name}`', f'`{spelled(row.default)}`', takes, _escaped(row.meaning)


def page(name: str) -> str:
  """Makes the page of a method, in Markdown.

  Args:
    name: in `algorithms.ALGORITHMS`.
  """
  text, facts = docstring(name), algorithms.facts(name)
  path = f'relief_jax/algorithms/{name}.py'
  urls = [] if grade(text) == 'ours' else _URL.findall(text)[:1]
  rows = [
    ('publication', f'<{urls[0]}>' if urls else 'none'),
    ('evidence', f'{grade(text)} ([grades](../methods.md#evidence))'),
    ('absent sensors', f'`fill={facts.fill}` unless the config says otherwise'),
    ('a budget decides', budget(name) or 'nothing'),
    ('file', f'[`{path}`](../source/{path}.md)'),
  ]
  parts = [
    f'# `{name}`',
    _table(('', 'at a glance'), rows),
    f'```\nrelief run {name} --config.rounds=20\n```',
    '## What it does',
    _prose(text),
    '## Options',
  ]
  if facts.rows:
    options = [option(k, row) for k, row in facts.rows.items()]
    parts.append(_table(('key', 'default', 'takes', 'meaning'), options))
    parts.append(
      f'As `--config.{name}.KEY=VALUE`; the keys of every method: '
      '[commands](../commands.md#configs).'
    )
  else:
    parts.append(
      'None of its own; the keys of every method: '
      '[commands](../commands.md#configs).'
    )
  parts.append('## Expected result')
  known = figures(name, tables(RESULTS.read_text()))
  if known:
    parts.append(_table(('measured', 'figure'), known))
    parts.append('What was measured, and how: [results](../results.md).')
  else:
    parts.append('No figure of it stands in [results](../results.md) yet.')
  return '\n\n'.join(parts) + '\n'


def source(name: str) -> pathlib.PurePath:
  """Gives the path of a method's file in the repository."""
  return pathlib.PurePath('relief_jax', 'algorithms', f'{name}.py')


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Writes a table in Markdown."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _prose(text: str) -> str:
  """Makes Markdown of a docstring: what looks like a tag is none."""
  lines = text.splitlines()
  return '\n'.join(
    line if line.startswith('    ') else _escaped(line) for line in lines
  )


def _escaped(text: str) -> str:
  """Escapes < and > outside of code."""
  parts = _CODE.split(text)
  parts[::2] = [
    part.replace('<', '&lt;').replace('>', '&gt;') for part in parts[::2]
  ]
  return ''.join(parts)
