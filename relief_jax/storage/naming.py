"""Names made of values and of users' own words: files, folders, Markdown."""

import hashlib
import re

from relief_jax.errors import InputError

# Bytes of one part of a path; most file systems take 255, and endings follow.
MOST = 200


def fit(text: str, most: int = MOST) -> str:
  """Cuts a name that is too long for a file and keeps it apart from others.

  Args:
    text: the name, without slashes.
    most: bytes.

  Returns:
    The name itself, or its beginning and a checksum of all of it.

  >>> fit('client_lr=0.1')
  'client_lr=0.1'
  >>> fit('0123456789' * 3, 24)
  '01234567890123-276fadfc9'
  """
  data = text.encode()
  if len(data) <= most:
    return text
  end = '-' + hashlib.sha256(data).hexdigest()[:9]
  return data[: most - len(end)].decode(errors='ignore') + end


def file_name(*parts: str) -> str:
  """Joins parts to a file's name of letters, digits, dots, dashes and _.

  >>> file_name('a/b', '', 'f1')
  'a_b_f1'
  """
  text = '_'.join(part for part in parts if part)
  plain = ''.join(c if c.isalnum() or c in '_.-' else '_' for c in text)
  return fit(plain)


def shorten(text: str, most: int = 60) -> str:
  """Shortens a name for a figure to its two ends, where names differ.

  >>> shorten('relief'), shorten('a' * 9 + 'b' * 9, 9)
  ('relief', 'aaaa…bbbb')
  """
  if len(text) <= most:
    return text
  half = (most - 1) // 2
  return f'{text[:half]}…{text[-half:]}'


def check_label(label: str) -> None:
  """Makes sure that a user's label can be a folder below another.

  Raises:
    InputError: it cannot.
  """
  parts = label.split('/')
  if any(
    part in ('', '.', '..') or '\0' in part or len(part.encode()) > MOST
    for part in parts
  ):
    raise InputError(
      f'the label {label[:80]!r}',
      f'a name of at most {MOST} bytes, or several joined by slashes: it is a '
      'folder',
      'shorten or rename it',
    )


_MARKS = re.compile(r'[\\`*|<>&$\[\]~#]|(?<![^\W_])_|_(?![^\W_])')


def markdown(text: str) -> str:
  """Escapes a user's words for a Markdown table.

  >>> markdown('client_lr=0.1'), markdown('a|b_')
  ('client_lr=0.1', 'a\\\\|b\\\\_')
  """
  return _MARKS.sub(r'\\\g<0>', ' '.join(text.split()))
