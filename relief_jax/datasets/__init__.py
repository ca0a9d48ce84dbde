"""Data sets, by name: `load(config, root) -> Windows`."""

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
  return windows._replace(title=windows.title or name), name


def stamp(config: ml_collections.ConfigDict) -> list[int]:
  """Tells a file of the user's own that was changed: its time and size."""
  if config.dataset != 'npz' or not os.path.exists(config.data_path):
    return []
  found = os.stat(config.data_path)
  return [found.st_mtime_ns, found.st_size]
