"""Reads text tables of numbers, fast; errors name file and line.

pandas' C parser reads the numbers, but takes a line that is too short as
missing values, so the shape of every line is checked first, by numpy over the
bytes. All of this is **ours**.
"""

import codecs
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relief_jax.errors import InputError

_NEWLINE, _RETURN, _SPACE, _TAB = b'\n\r \t'
_SEPARATORS = {' ': 'spaces', '\t': 'tabs', ',': 'commas', ';': 'semicolons'}
_BLOCK = 1 << 24  # bytes looked at together


def person(path: Path, pattern: str) -> int:
  """Reads the number in a file's name.

  >>> person(Path('mHealth_subject10.log'), r'subject(\\d+)')
  10
  """
  found = re.search(pattern, path.name)
  assert found, (path, pattern)
  return int(found[1])


def once(paths: Sequence[Path], names: Sequence[Any]) -> None:
  """Refuses two files of the same person, trial, part, ...

  Args:
    paths: of the files.
    names: what each of them is, however it is called.

  Raises:
    InputError: which two.
  """
  seen: dict[Any, Path] = {}
  for path, name in zip(paths, names, strict=True):
    if name in seen:
      raise InputError(
        f'{path} beside {seen[name]}',
        'every file of the data set once',
        'take one of the two copies away',
      )
    seen[name] = path


def find(root: Path | None, folders: Sequence[str], pattern: str) -> list[Path]:
  """Finds files of an original distribution, wherever it was unpacked.

  Args:
    root: folder of the data sets, or None.
    folders: under `root`, tried in turn: the first with a file counts.
    pattern: of the files below it, at any depth.

  Returns:
    Their paths, in order; empty where there is none.

  Raises:
    InputError: of `no_copies`.
  """
  for folder in folders if root else ():
    assert root
    paths = sorted((root / folder).glob('**/' + pattern))
    if paths:
      no_copies(paths, root / folder)
      return paths
  return []


def no_copies(paths: Sequence[Path], top: Path) -> None:
  """Refuses a file or folder beside another one of which it is a copy.

  By its name, as browsers, file managers and people call a second one:
  `p1 (1)`, `p1 copy`, `Copy of p1`, `p1_backup`, `p01`, `P1` beside `p1`. A
  folder counts only if something in it has a name as in the other one.

  Args:
    paths: the files of a data set.
    top: its folder; what lies beside that is not looked at.

  Raises:
    InputError: which two.
  """
  folders: dict[Path, set[str]] = {}
  for path in paths:
    while path != top:
      known = folders.setdefault(path.parent, set())
      if path.name in known:
        break
      known.add(path.name)
      path = path.parent
  for folder, known in folders.items():
    suffixes = {Path(name).suffix.lower() for name in known}
    names = {_plain(name): name for name in sorted(known, reverse=True)}
    for path in sorted(folder.iterdir()):
      if path.name.startswith('.') or path.suffix.lower() not in suffixes:
        continue
      plain = _plain(path.name)
      twin = names.get(plain)
      if twin in (None, path.name):
        twin = next((names[n] for n in names if _holds(plain, n)), None)
      if twin in (None, path.name):
        continue
      inside = folders.get(folder / str(twin), set())
      if not path.is_dir() or any((path / name).exists() for name in inside):
        raise InputError(
          f'{path} beside {folder / str(twin)}',
          'every file of the data set once',
          'take one of the two away, the copy or the incomplete one',
        )


def _plain(name: str) -> str:
  """Simplifies a name: without ending, in small letters, no leading zeros."""
  return re.sub(r'(?<!\d)0+(?=\d)', '', re.sub(r'\.\w+$', '', name).lower())


def _holds(name: str, part: str) -> bool:
  """Tells whether a name is a shorter one and more words, such as `p1 copy`."""
  if part == name or part not in name:
    return False
  at = name.index(part)
  around = name[at - 1 : at] + name[at + len(part) : at + len(part) + 1]
  return not any(letter.isalnum() for letter in around)


def read_bytes(path: Path) -> bytes:
  """Reads a whole file, without a byte order mark.

  Raises:
    InputError: it cannot be read, or is empty.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise InputError(
      f'{path}: {error.strerror or error}',
      'a file that can be read',
      'check its permissions, or copy it again',
    ) from error
  data = data.removeprefix(codecs.BOM_UTF8)
  if not data.strip():
    raise wrong(path, 'no line', 'lines of numbers')
  return data


def wrong(
  path: Path,
  found: str,
  expected: str,
  line: int | None = None,
  cure: str = 'get the file again, in its original layout',
) -> InputError:
  """Builds the error for a text file that is not as it should be."""
  place = f'{path}, line {line}' if line else str(path)
  return InputError(f'{place}: {found}', expected, cure)


def table(
  path: Path,
  data: bytes,
  columns: int,
  separator: str,
  use: Sequence[int] | None = None,
  header: str | None = None,
) -> NDArray:
  """Reads a table of numbers.

  Line ends may be LF or CRLF; blank lines may stand at the end only. 'NaN' is a
  missing value.

  Args:
    path: for messages.
    data: the file's bytes.
    columns: in every line.
    separator: exactly one between columns; ' ' with `columns` numbers however
      many spaces there are is asked for by 'spaces'.
    use: the columns that are wanted, ascending; None for all.
    header: the first line, where there is one.

  Returns:
    [wanted columns, lines] float64.

  Raises:
    InputError: a header, a column count, a separator or a number that is not
      as it should be, with its line.
  """
  import pandas as pd  # slow to import; data sets in numpy do without

  skip = 0
  if header is not None:
    skip = 1
    first = data.split(b'\n', 1)[0].strip().decode('utf-8', 'replace')
    if first != header:
      raise wrong(path, f'{first[:60]!r}', f'the header {header[:60]!r}', 1)
  check(path, data, columns, separator, skip)
  many = separator == 'spaces'
  try:
    frame = pd.read_csv(
      io.BytesIO(data),
      sep=r'\s+' if many else separator,
      header=None,
      skiprows=skip,
      names=range(columns),
      usecols=list(use) if use is not None else None,
      dtype=np.float64,
      keep_default_na=False,
      na_values=['NaN', 'nan'],
      engine='c',
      encoding_errors='replace',
    )
  except (ValueError, OverflowError) as error:
    raise _bad_number(path, data, separator, skip, error) from error
  return np.ascontiguousarray(frame.to_numpy().T)


def check(
  path: Path, data: bytes, columns: int, separator: str, skip: int = 0
) -> int:
  """Checks the shape of a table and returns how many lines it has.

  Raises:
    InputError: the first line that has another number of columns.
  """
  end = len(data.rstrip(b'\r\n \t'))
  whole = np.frombuffer(data, np.uint8)
  line, low = 1, 0
  while low < end:
    high = end
    if low + _BLOCK < end:
      high = data.rfind(b'\n', low, low + _BLOCK) + 1 or end
    part = whole[low:high]
    counts = _columns(part, separator)
    bad = counts != columns
    bad[: max(0, skip - (line - 1))] = False
    if bad.any():
      at = int(bad.argmax())
      last = line + at == data.count(b'\n', 0, end) + 1
      cut_off = last and end == len(data)
      raise _bad_line(path, data, line + at, counts[at], columns, cut_off)
    line += len(counts)
    low = high
  return line - 1 - skip


def codes(path: Path, column: NDArray, known: Sequence[int]) -> NDArray:
  """Reads a column of labels as ints.

  Args:
    path: for messages.
    column: [lines].
    known: what may occur.

  Returns:
    [lines] int32.

  Raises:
    InputError: another number, with its line.
  """
  bad = ~np.isin(column, np.asarray(known, np.float64))
  if bad.any():
    row = int(bad.argmax())
    raise wrong(
      path,
      f'label {column[row]:g}',
      f'one of {", ".join(map(str, known))}',
      row + 1,
    )
  return column.astype(np.int32)


def _columns(part: NDArray, separator: str) -> NDArray:
  """Counts the columns of every line of `part`, [lines]."""
  ends = np.flatnonzero(part == _NEWLINE)
  if not len(ends) or ends[-1] != len(part) - 1:
    ends = np.append(ends, len(part))
  begins = np.append(0, ends[:-1] + 1)
  if separator == 'spaces':
    blank = (part == _SPACE) | (part == _TAB) | (part == _RETURN)
    blank |= part == _NEWLINE
    mark = ~blank
    mark[1:] &= blank[:-1]
    at = np.flatnonzero(mark)
    extra = 0
  else:
    at = np.flatnonzero(part == ord(separator))
    extra = 1
  # Separators in order: how many lie before each line's begin and end.
  return np.searchsorted(at, ends) - np.searchsorted(at, begins) + extra


def _bad_line(
  path: Path, data: bytes, line: int, found: int, columns: int, last: bool
) -> InputError:
  """Describes the fault of a line with `found` columns."""
  text = (
    data.split(b'\n', line)[line - 1].rstrip(b'\r').decode('utf-8', 'replace')
  )
  if last and line > 1 and found < columns:
    return wrong(
      path,
      f'a last line that was cut off after {found} columns',
      f'{columns} columns and a line end',
      line,
      'copy the whole file again, or delete this line',
    )
  for separator, name in _SEPARATORS.items():
    if found == 1 and text.count(separator) == columns - 1:
      return wrong(
        path,
        f'{columns} columns apart by {name}',
        'the separator of the original file',
        line,
      )
  return wrong(
    path, f'{found} columns in {text[:40]!r}', f'{columns} columns', line
  )


def _bad_number(
  path: Path, data: bytes, separator: str, skip: int, error: Exception
) -> InputError:
  """Finds the number that pandas could not read; slow, but only once."""
  split = None if separator == 'spaces' else separator
  for number, text in enumerate(data.split(b'\n'), 1):
    line = text.strip(b'\r').decode('utf-8', 'replace')
    if number <= skip or not line.strip():
      continue
    for column, token in enumerate(line.split(split), 1):
      if not re.fullmatch(_NUMBER, token.strip()):
        return wrong(
          path, f'{token[:40]!r} in column {column}', 'a number', number
        )
  return wrong(path, str(error), 'lines of numbers')


_NUMBER = r'[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan|NaN)'
