"""Shows what is kept on this machine between runs, or clears it.

    relief cache
    relief cache parsed layouts --clear

Parts: `archives` as downloaded, `data` unpacked of them, `parsed` and
`unpacked` copies that load faster, `layouts` that were measured, `compiled`
programs of `relief run --compile_cache=auto`, and how long `compiling` took.
Nothing else is touched, and everything comes back when it is needed; archives
by another download.
"""

import pathlib
import shutil
from collections.abc import Sequence

from absl import flags

from relief_jax.datasets import cache, download
from relief_jax.errors import InputError
from relief_jax.storage import records

# Part -> folders in the user's cache.
PARTS = {
  'archives': ('archives',),
  'data': tuple(download.ARCHIVES),
  'parsed': ('parsed',),
  'unpacked': ('unpacked',),
  'layouts': ('layouts',),
  'compiled': ('compiled',),
  'compiling': ('compiling',),
}


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_bool('clear', False, 'removes the parts')


def size(folder: pathlib.Path) -> tuple[int, int]:
  """Counts the files below a folder, and their bytes.

  Args:
    folder: may be missing.
  """
  sizes = [
    path.lstat().st_size for path in folder.rglob('*') if not path.is_dir()
  ]
  return len(sizes), sum(sizes)


def home() -> pathlib.Path:
  """Finds the user's cache.

  Raises:
    InputError: a user without a home.
  """
  found = cache.user_cache()
  if found is None:
    raise InputError(
      'a user without a home folder',
      'a place for what is kept',
      'set XDG_CACHE_HOME',
    )
  return found


def compiled(asked: str) -> pathlib.Path:
  """Finds the folder of compiled programs that --compile_cache asks for.

  Args:
    asked: a folder, or `auto` for the one in the user's cache.

  Raises:
    InputError: `auto`, and a user without a home.
  """
  return home() / 'compiled' if asked == 'auto' else pathlib.Path(asked)


def account(parts: Sequence[str], clear: bool = False) -> list[str]:
  """Tells how large parts are, a line each, and removes them if asked to.

  Args:
    parts: of `PARTS`.
    clear: removes them.

  Raises:
    InputError: no such part, or a user without a home.
    StorageError: a folder that cannot be removed.
  """
  place, lines = home(), []
  for part in parts:
    if part not in PARTS:
      raise InputError(
        f'the part {part!r}', f'one of {", ".join(PARTS)}', 'correct it'
      )
  for part in parts:
    files = held = 0
    for name in PARTS[part]:
      count, bytes_ = size(place / name)
      files, held = files + count, held + bytes_
      if clear and (place / name).exists():
        with records.storing(place / name):
          shutil.rmtree(place / name)
    done = '  removed' if clear and files else ''
    lines.append(f'  {part:10}{files:>8,} files {held / 1e6:>12,.1f} MB{done}')
  return lines


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: as `account`.
    StorageError: likewise.
  """
  lines = account(argv[1:] or list(PARTS), flags.FLAGS.clear)
  print('\n'.join([str(home()), *lines]))
  return 0
