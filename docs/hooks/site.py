"""Adds pages to the site that are made from other files (a hook of MkDocs).

The front page is the README; a page per method comes from its file, notebooks
and files that pages link to are shown as they are.
"""

import pathlib
import sys

from mkdocs.structure.files import File

# MkDocs runs this file alone: the checkout itself is to be found.
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from docs.hooks import links, method_pages  # noqa: E402

_METHODS = 'Methods'


def on_config(config):
  """Puts the methods' pages under theirs in the navigation."""
  for section in config.nav:
    if _METHODS in section:
      section[_METHODS] += [
        {name: f'methods/{name}.md'} for name in method_pages.names()
      ]
  return config


def on_files(files, config):
  """Adds the pages that are made."""
  for name in method_pages.names():
    _add(files, config, f'methods/{name}.md', method_pages.page(name))
    path = str(method_pages.source(name))
    _add(files, config, f'source/{path}.md', links.page(path))
  waiting = list(links.PAGES)
  for file in files.documentation_pages():
    if not file.generated_by:
      text = (links.ROOT / 'docs' / file.src_uri).read_text()
      waiting += links.targets(text, f'docs/{file.src_uri}')
  while waiting:
    path = waiting.pop()
    uri = links.page_of(path)
    if uri in files.src_uris:
      continue
    if path.endswith('.md'):
      waiting += links.targets((links.ROOT / path).read_text(), path)
    _add(files, config, uri, links.page(path))
  return files


def on_page_markdown(markdown, page, config, files):
  """Points links of the pages in docs/ to pages of the site."""
  if page.file.generated_by:
    return markdown
  return links.rewrite(markdown, f'docs/{page.file.src_uri}')


def _add(files, config, uri, content):
  files.append(File.generated(config, uri, content=content))
