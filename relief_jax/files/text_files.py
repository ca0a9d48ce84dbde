"""Reads text that a user wrote, with clear errors.

Spreadsheets and editors put a byte order mark before it; it is none of the
text. **Ours.**
"""

import json
import pathlib
from typing import Any

from relief_jax.errors import InputError

LARGEST = 1 << 28  # bytes of a text file that is read


def read(path: str | pathlib.Path, largest: int = LARGEST) -> str:
  """Reads the text of a file in UTF-8, without a byte order mark.

  Args:
    path: of the file.
    largest: bytes that are read.

  Raises:
    InputError: it cannot be read, is large, or is no UTF-8.
  """
  path = pathlib.Path(path)
  try:
    if path.stat().st_size > largest:
      raise InputError(
        f'{path}: {path.stat().st_size:,} bytes',
        f'a text of at most {largest:,}',
        'check the path',
      )
    return path.read_text(encoding='utf-8-sig')
  except OSError as error:
    raise InputError(
      f'{path}: {error.strerror}',
      'a file that can be read',
      'check the path; a relative one starts where you are',
    ) from error
  except UnicodeDecodeError as error:
    raise InputError(
      f'{path}: {error}', 'text in UTF-8', 'save it as UTF-8'
    ) from error


def load_json(path: str | pathlib.Path, largest: int = LARGEST) -> Any:
  """Reads the content of a JSON file.

  Args:
    path: of the file.
    largest: bytes that are read.

  Raises:
    InputError: it cannot be read, or is no JSON (line and column are named).
  """
  text = read(path, largest)
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise InputError(
      f'{path}, line {error.lineno}, column {error.colno}: {error.msg}',
      'JSON',
      'mend the file there',
    ) from error
  except (ValueError, RecursionError) as error:  # endless digits or brackets
    raise InputError(f'{path}: {error}', 'JSON', 'mend the file') from error
