"""Reads texts by author: `--config.dataset=texts --config.data_path=FOLDER`.

Every `.txt` file below the folder is a client. A symbol is a character; the
vocabulary holds the 256 commonest of all the texts, and one sign for all
others. A text is cut into windows of `config.data.width` characters, one after
another; what is predicted is the character that follows each. The last fifth of
an author's lines is held out (`config.data.split=official`), so that no
character is in train and test. The last window of either side is filled up
with what does not count.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import arrays
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.scoring import targets

MODALITY = 'text'
_VOCABULARY = 256
_OTHER = '�'  # stands for all symbols beyond the vocabulary


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads the texts of the folder `config.data_path`.

  Args:
    config: `data_path` and `data.width`.
    root: not used.

  Raises:
    InputError: no text there, or one that is no UTF-8.
  """
  del root
  folder = paths.expand(config.data_path, 'config.data_path')
  return read(Path(folder), config.data.width)


def read(base: Path, width: int) -> Windows:
  """Reads the texts below a folder.

  Args:
    base: the folder.
    width: T, characters of a window.

  Raises:
    InputError: as `load`.
  """
  found, every = {}, _below(base)
  if not every:
    raise InputError(
      f'no .txt file below {base}',
      'a folder of texts, one per client',
      'correct the path of the folder',
    )
  for path in every:
    try:
      text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise InputError(
        f'{path}: {error}', 'UTF-8 text', 'convert it, or leave it out'
      ) from error
    name = path.relative_to(base).with_suffix('').as_posix()
    found[name] = text.splitlines()
  return by_author(found, width)


def files(folder: str) -> list[Path]:
  """Lists the texts below a folder, in order."""
  if not folder:
    return []
  return _below(Path(paths.expand(folder, 'config.data_path')))


def _below(base: Path) -> list[Path]:
  return sorted(path for path in base.rglob('*.txt') if path.is_file())


def by_author(
  authors: Mapping[str, Sequence[str]], width: int, title: str = ''
) -> Windows:
  """Cuts the texts of authors into windows.

  Args:
    authors: {name: lines}.
    width: T, characters of a window.
    title: of the data set.

  Raises:
    InputError: nothing to predict in any of them.
  """
  symbols = vocabulary(authors.values())
  number = {symbol: i for i, symbol in enumerate(symbols)}
  rows, notes = [], []
  for name in sorted(authors):
    lines = list(authors[name])
    cut = len(lines) - round(arrays.TEST_SHARE * len(lines))
    sides = lines[:cut], lines[cut:]
    parts = [encode('\n'.join(side), number) for side in sides]
    if len(parts[0]) < 2:
      notes.append(f'{name} gave no window: it has less than two characters')
      continue
    rows.append((name, [pair(part, width) for part in parts if len(part) > 1]))
  if not rows:
    raise InputError('no text', 'two characters at least', 'check the folder')
  x, y, author, test = (
    np.concatenate(values)
    for values in zip(
      *(
        (x, y, np.full(len(x), name), np.full(len(x), number > 0))
        for name, own in rows
        for number, (x, y) in enumerate(own)
      ),
      strict=True,
    )
  )
  found = arrays.windows(x, y, author, test, symbols, title, MODALITY)
  return found._replace(notes=tuple(notes))


def each(
  samples: Sequence[str], width: int
) -> tuple[NDArray, tuple[str, ...], tuple[str, ...]]:
  """Encodes texts that are a sample each.

  Args:
    samples: [n].
    width: T, characters of a text that count.

  Returns:
    [n, T] int32, filled up with `targets.PADDING`, T that of the longest if
    that is less; the vocabulary; and notes.
  """
  symbols = vocabulary([[text] for text in samples])
  number = {symbol: i for i, symbol in enumerate(symbols)}
  length = min(width, max(map(len, samples)))
  tokens = np.full((len(samples), length), targets.PADDING, np.int32)
  for row, text in zip(tokens, samples, strict=True):
    row[: len(text)] = encode(text[:width], number)
  longer = sum(len(text) > width for text in samples)
  note = f'{longer} texts are longer than {width} characters and were cut there'
  return tokens, symbols, (note,) if longer else ()


def vocabulary(texts) -> tuple[str, ...]:
  """Lists the commonest symbols of texts, sorted, and one for the others."""
  count: collections.Counter = collections.Counter()
  for lines in texts:
    for line in lines:
      count.update(line)
    count['\n'] += max(len(lines) - 1, 0)
  known = [symbol for symbol, _ in count.most_common(_VOCABULARY)]
  return (*sorted(set(known) - {_OTHER}), _OTHER)


def encode(text: str, number: Mapping[str, int]) -> NDArray:
  """Looks up every symbol, [symbols] int32."""
  other = number[_OTHER]
  return np.array([number.get(symbol, other) for symbol in text], np.int32)


def pair(tokens: NDArray, width: int) -> tuple[NDArray, NDArray]:
  """Cuts tokens into inputs and what follows each, [windows, T] int32 each.

  >>> x, y = pair(np.arange(5), 3)
  >>> x.tolist(), y.tolist()
  ([[0, 1, 2], [3, 0, 0]], [[1, 2, 3], [4, -1, -1]])

  Args:
    tokens: [symbols], two at least.
    width: T.
  """
  count = len(tokens) - 1
  windows = -(-count // width)
  x = np.zeros(windows * width, np.int32)
  y = np.full(windows * width, targets.PADDING, np.int32)
  x[:count], y[:count] = tokens[:-1], tokens[1:]
  return x.reshape(windows, width), y.reshape(windows, width)
