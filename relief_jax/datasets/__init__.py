"""Data sets, by name: `load(config, root) -> Windows`."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import ml_collections

from relief_jax.datasets import (
  cache,
  download,
  dsads,
  mhealth,
  motionsense,
  npz,
  pamap2,
  synthetic,
  ucihar,
)
from relief_jax.errors import InputError, unknown
from relief_jax.windows import Windows, validate

DATASETS: dict[str, Callable[..., Windows]] = {
  'dsads': dsads.load,
  'mhealth': mhealth.load,
  'motionsense': motionsense.load,
  'npz': npz.load,
  'pamap2': pamap2.load,
  'synthetic': synthetic.load,
  'ucihar': ucihar.load,
}

# How the data sets that can be downloaded are found.
_FILES: dict[str, Callable[[Path | None], list[Path]]] = {
  'dsads': dsads.files,
  'mhealth': mhealth.files,
  'motionsense': motionsense.files,
  'pamap2': pamap2.files,
  'ucihar': ucihar.files,
}


def find_data_dir(flag: str | Path | None) -> Path | None:
  """The folder with data sets: the first of four places that is there.

  `flag` (`--data_dir`), the environment's RELIEF_DATA_DIR, `../shared/data`
  seen from the current folder, `relief_jax` in the user's cache.

  Args:
    flag: what the user asked for, or None.

  Returns:
    The folder, or None where there is none.

  Raises:
    InputError: a folder that was asked for by name and does not exist.
  """
  for source, asked in (
    ('--data_dir', flag),
    ('RELIEF_DATA_DIR', os.environ.get('RELIEF_DATA_DIR')),
  ):
    if asked:
      if not Path(asked).is_dir():
        raise InputError(
          f'{source} = {str(asked)!r}, which is no folder',
          'a folder that holds dsads/, pamap2/, mhealth/, ...',
          f'correct {source}, or leave it out to use synthetic data',
        )
      return Path(asked)
  shared = Path('..', 'shared', 'data')
  places = [shared, *filter(None, [cache.user_cache()])]
  return next((place for place in places if place.is_dir()), None)


def load(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> tuple[Windows, str]:
  """Loads and checks the data set that the config names.

  `auto` is dsads where its files are found, else synthetic.

  Args:
    config: of the run.
    data_dir: folder of the data sets; None looks where `find_data_dir` says.

  Returns:
    The windows, and the name of the data set they are of.

  Raises:
    InputError: an unknown name, a missing folder, a file that cannot be used,
      numbers that are not finite.
  """
  name = config.dataset
  if name not in DATASETS and name != 'auto':
    raise unknown('data set', name, (*DATASETS, 'auto'))
  root = None if name in ('synthetic', 'npz') else find_data_dir(data_dir)
  if name == 'auto':
    name = 'dsads' if dsads.files(root) else 'synthetic'
  if name in _FILES:
    root = download.home(name, root, _FILES[name], config.data.download)
  windows = DATASETS[name](config, root)
  validate(windows)
  return windows, name


def sources(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> dict[str, Path]:
  """The files that `load` reads, by their place in the data set.

  Args:
    config: of the run.
    data_dir: as `load`.

  Returns:
    Paths by a name that is the same wherever the data set lies; none where it
    is not there, or has no files.

  Raises:
    InputError: a named folder that is not there, or copies of a file.
  """
  name = 'dsads' if config.dataset == 'auto' else config.dataset
  if name == 'npz':
    return {'npz': Path(config.data_path)} if config.data_path else {}
  if name not in _FILES:
    return {}
  root = find_data_dir(data_dir)
  if config.dataset != 'auto':
    root = download.home(name, root, _FILES[name], False)
  paths = _FILES[name](root)
  if name == 'ucihar':
    paths = [source for path in paths for source in ucihar.sources(path)]
  if name == 'pamap2' and config.data.optional:
    paths += pamap2.optional(paths)
  return {path.relative_to(root or '').as_posix(): path for path in paths}


def stamp(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> list[tuple[str, int, int]]:
  """Tells files that were changed: name, time and size of `sources`."""
  found = []
  for path in sources(config, data_dir).values():
    with contextlib.suppress(OSError):
      about = path.stat()
      found.append((str(path), about.st_mtime_ns, about.st_size))
  return found
