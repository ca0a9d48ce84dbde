"""Finds the page of the site that a link between files of the repository means.

Pages link to files, so that they can be read where they lie; the site shows the
files that they name as pages, too.
"""

import json
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = 'docs/'
# Files outside of docs/ that have a page of their own name.
PAGES = {
  'README.md': 'index.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CHANGELOG.md': 'changelog.md',
  'benchmarks/README.md': 'benchmarks.md',
  'benchmarks/peers/README.md': 'benchmarks_peers.md',
  'tests/README.md': 'tests.md',
}
_LINK = re.compile(r'(\]\(<?)([^)\s>#]+)((?:#[^)\s>]*)?>?\))')
_METHOD = re.compile(r'relief_jax/algorithms/([a-z]\w*)\.py')
_NOTEBOOK = re.compile(r'examples/(\w+)\.ipynb')


def targets(text: str, origin: str) -> list[str]:
  """Lists the files of the repository that a page links to.

  Args:
    text: of the page, in Markdown.
    origin: its path in the repository.
  """
  found = (_path(match[2], origin) for match in _LINK.finditer(text))
  return [path for path in found if path is not None]


def page_of(path: str) -> str:
  """Gives the page that shows a file, from the root of the site.

  Args:
    path: of the file in the repository.

  >>> page_of('docs/method.md'), page_of('relief_jax/algorithms/relief.py')
  ('method.md', 'methods/relief.md')
  """
  if path in PAGES:
    return PAGES[path]
  if path.startswith(DOCS):
    return path.removeprefix(DOCS)
  if method := _METHOD.fullmatch(path):
    return f'methods/{method[1]}.md'
  if notebook := _NOTEBOOK.fullmatch(path):
    return f'notebooks/{notebook[1]}.md'
  return f'source/{path}.md'


def rewrite(text: str, origin: str) -> str:
  """Points the links of a page to pages of the site.

  Args:
    text: of the page, in Markdown.
    origin: its path in the repository.
  """
  here = posixpath.dirname(page_of(origin))

  def one(match: re.Match) -> str:
    path = _path(match[2], origin)
    if path is None:
      return match[0]
    return match[1] + posixpath.relpath(page_of(path), here or '.') + match[3]

  return _LINK.sub(one, text)


def page(path: str) -> str:
  """Makes the page of a file: Markdown, cells of a notebook, or its text.

  Args:
    path: of the file in the repository.
  """
  text = (ROOT / path).read_text()
  if path.endswith('.ipynb'):
    text = _cells(text, path)
  elif not path.endswith('.md'):
    kind = pathlib.PurePath(path).suffix.removeprefix('.') or 'text'
    return f'# `{path}`\n\n````{kind}\n{text}\n````\n'
  return rewrite(text, path)


def _path(link: str, origin: str) -> str | None:
  """Gives the file that a link means; None where it leaves the repository."""
  if '://' in link or link.startswith('mailto:'):
    return None
  path = posixpath.normpath(
    posixpath.join(posixpath.dirname(origin), link.removeprefix('./'))
  )
  return path if (ROOT / path).is_file() else None


def _cells(text: str, path: str) -> str:
  """Shows the cells of a notebook as Markdown."""
  first, *rest = (
    ''.join(cell['source'])
    if cell['cell_type'] == 'markdown'
    else f'```python\n{"".join(cell["source"])}\n```'
    for cell in json.loads(text)['cells']
  )
  told = f'This page is the notebook `{path}`; open it to run it.'
  return '\n\n'.join((first, told, *rest)) + '\n'
