"""The site's pages, links and navigation, without building it."""

import json
import re

import pytest
import yaml

from docs.hooks import links, method_pages
from relief_jax import algorithms
from tests.support.paths import ROOT

DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.glob('*.md'))
NOTEBOOKS = sorted((ROOT / 'examples').glob('*.ipynb'))
# Every page that is read where it lies, too.
READ = [*PAGES, *NOTEBOOKS, *(ROOT / path for path in links.PAGES)]
_FENCE = re.compile(r'^(```+).*?^\1\s*$', re.M | re.S)
_CODE = re.compile(r'`[^`\n]*`')
_LINK = re.compile(r'\]\(<?([^)\s>]+)>?\)')


def prose(path):
  """The text of a page, without code."""
  text = path.read_text()
  if path.suffix == '.ipynb':
    cells = json.loads(text)['cells']
    found = (c['source'] for c in cells if c['cell_type'] == 'markdown')
    text = '\n\n'.join(map(''.join, found))
  return _FENCE.sub('', text)


def anchors(path):
  """Names of a page's headings, as GitHub and MkDocs make them."""
  heads = re.findall(r'^#+ (.+)$', prose(path), re.M)
  plain = (re.sub(r'[^\w\s-]', '', head).strip().lower() for head in heads)
  return {re.sub(r'[\s]+', '-', head) for head in plain}


def places(nav):
  for entry in nav:
    for place in entry.values() if isinstance(entry, dict) else [entry]:
      yield from places(place) if isinstance(place, list) else [place]


NAV = list(places(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']))


def test_every_page_stands_in_the_navigation_once():
  assert len(set(NAV)) == len(NAV)
  own = {path.name for path in PAGES}
  assert own | set(links.PAGES.values()) == set(NAV)


@pytest.mark.parametrize('path', READ, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
  for link in _LINK.findall(_CODE.sub('', prose(path))):
    if '://' in link:
      continue
    file, _, anchor = link.partition('#')
    target = (path.parent / file).resolve() if file else path
    assert target.exists(), link
    if anchor:
      assert anchor in anchors(target), link


def test_links_are_pointed_to_pages():
  text = '[a](method.md#options-and-facts) [b](../relief_jax/keys.py) [c](x.md)'
  assert links.rewrite(text, 'docs/data.md') == (
    '[a](method.md#options-and-facts) [b](source/relief_jax/keys.py.md) '
    '[c](x.md)'
  )
  text = '[d](docs/round.svg) [e](relief_jax/algorithms/relief.py)'
  assert links.rewrite(text, 'README.md') == (
    '[d](round.svg) [e](methods/relief.md)'
  )
  text = '[f](../docs/data.md#from-a-file) [g](world.ipynb)'
  assert links.rewrite(text, 'examples/method.ipynb') == (
    '[f](../data.md#from-a-file) [g](world.md)'
  )


@pytest.mark.parametrize('name', method_pages.names())
def test_a_page_per_method(name):
  assert name in algorithms.ALGORITHMS
  text = method_pages.docstring(name)
  assert method_pages.grade(text), 'says Grade: ... or **ours**'
  page = method_pages.page(name)
  assert f'\nrelief run {name} ' in page
  for key, row in algorithms.facts(name).rows.items():
    assert f'| `{key}` | `' in page and row.meaning[:20] in page
  if method_pages.grade(text) != 'ours':
    assert '| publication | <https://' in page
  # It is listed, with what a budget decides, and can be named by a config.
  assert f'](../relief_jax/algorithms/{name}.py)' in prose(DOCS / 'methods.md')
  assert f'](relief_jax/algorithms/{name}.py)' in prose(ROOT / 'README.md')
  assert method_pages.budget(name)
  assert (ROOT / 'experiments' / 'configs' / f'{name}.py').exists()


def test_figures_of_a_method_are_those_of_its_columns():
  rows = method_pages.tables('| | F1 | | F1 |\n|-|-|-|-|\n| `a` | 1 | `b` | |')
  assert rows == [(['', 'F1', '', 'F1'], [['`a`', '1', '`b`', '']])]
  assert method_pages.figures('a', rows) == [('F1', '1')]
  assert method_pages.figures('b', rows) == []


def test_what_is_public_is_there():
  """Griffe reads the sources; here the names are looked up."""
  names = re.findall(r'^::: (\S+)$', (DOCS / 'api.md').read_text(), re.M)
  assert len(names) > 50 and len(set(names)) == len(names)
  for name in names:
    module, _, attribute = name.rpartition('.')
    __import__(module, fromlist=[attribute])
    found = getattr(__import__(module, fromlist=[attribute]), attribute)
    assert found.__doc__, name


def test_tests_that_a_page_names_exist():
  text = (DOCS / 'peers.md').read_text()
  file, count = '', 0
  for path, test in re.findall(r'`(tests/[\w/]+\.py)?(?:::(\w+))?`', text):
    file = path or file
    if not file:
      continue
    source = (ROOT / file).read_text()
    assert not test or f'def {test}(' in source, (file, test)
    count += bool(test)
  assert count > 25
