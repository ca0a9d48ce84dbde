"""Loads data sets by name: `load(config, root) -> Windows`."""

import contextlib
import os
import types
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_collections

from relief_jax import plugins
from relief_jax.datasets import (
  cache,
  cifar10,
  cifar100,
  csv,
  digits,
  download,
  dsads,
  fashion_mnist,
  femnist,
  leaf_shakespeare,
  mhealth,
  motionsense,
  npz,
  pamap2,
  shakespeare,
  synthetic,
  synthetic_text,
  texts,
  ucihar,
)
from relief_jax.datasets.arrays import from_arrays
from relief_jax.datasets.windows import Windows, validate
from relief_jax.errors import InputError, unknown
from relief_jax.files import paths

__all__ = [
  'DATASETS',
  'KIND',
  'find_data_dir',
  'from_arrays',
  'in_files',
  'load',
  'remark',
  'resolve',
  'sources',
  'stamp',
]


def _all_of(module: types.ModuleType) -> Callable[..., Windows]:
  """Makes a loader of a module that reads all its files, of any config."""

  def load(config, root):
    del config
    return module.read(module.files(root))

  return load


DATASETS: dict[str, Callable[..., Windows]] = {
  'cifar10': _all_of(cifar10),
  'cifar100': _all_of(cifar100),
  'csv': csv.load,
  'digits': digits.load,
  'dsads': dsads.load,
  'fashion_mnist': _all_of(fashion_mnist),
  'femnist': _all_of(femnist),
  'leaf_shakespeare': _all_of(leaf_shakespeare),
  'mhealth': mhealth.load,
  'motionsense': motionsense.load,
  'npz': npz.load,
  'pamap2': pamap2.load,
  'shakespeare': shakespeare.load,
  'synthetic': synthetic.load,
  'synthetic_text': synthetic_text.load,
  'texts': texts.load,
  'ucihar': ucihar.load,
}

KIND = plugins.Kind(
  'data set',
  'dataset',
  'relief_jax.datasets',
  DATASETS,
  'a function (config, root) that gives Windows',
  plugins.takes(2),
)

# Titles that our loaders give data, where these are not the set's name.
_TITLES = (mhealth.TRUNCATED, shakespeare.TITLE)

# Data sets of the user's own, and what their `config.data_path` is of.
_OWN = {
  'csv': 'a .csv file',
  'npz': 'an .npz file',
  'texts': 'a folder of texts',
}
# Data sets that need no folder.
_MADE_UP = ('synthetic', 'synthetic_text')
_NO_FOLDER = (*_OWN, *_MADE_UP, 'digits')

# Images and texts, which have no channels to choose.
_NO_CHANNELS = (
  'cifar10',
  'cifar100',
  'digits',
  'fashion_mnist',
  'femnist',
  'leaf_shakespeare',
  'shakespeare',
  'synthetic_text',
  'texts',
)

# How the data sets that can be downloaded are found.
_FILES: dict[str, Callable[[Path | None], list[Path]]] = {
  'cifar10': cifar10.files,
  'cifar100': cifar100.files,
  'dsads': dsads.files,
  'fashion_mnist': fashion_mnist.files,
  'femnist': femnist.files,
  'leaf_shakespeare': leaf_shakespeare.files,
  'mhealth': mhealth.files,
  'motionsense': motionsense.files,
  'pamap2': pamap2.files,
  'shakespeare': shakespeare.files,
  'ucihar': ucihar.files,
}


def remark(names: Iterable[str | None]) -> str:
  """Names the data sets behind results, as a line to stand above them.

  >>> remark(['dsads'])
  'Data: dsads, read from files, nothing synthetic.'
  >>> remark(['dsads', 'my_signals'])
  'Data: dsads; my_signals as its loader gives it.'
  >>> remark(['MHEALTH, truncated channels'])
  'Data: MHEALTH, truncated channels, read from files, nothing synthetic.'

  Args:
    names: of the data sets; None where a run did not record it.
  """
  known = sorted({name for name in names if name})
  if not known:
    return 'Data: not recorded.'
  if set(known) & set(_MADE_UP):
    return (
      f'Data: {", ".join(known)}. Synthetic data are made of random numbers; '
      '--data_dir and --config.dataset name real ones.'
    )
  if own := [name for name in known if name not in (*DATASETS, *_TITLES)]:
    ours = [name for name in known if name not in own]
    told = [f'{name} as its loader gives it' for name in own]
    return f'Data: {"; ".join(ours + told)}.'
  return f'Data: {", ".join(known)}, read from files, nothing synthetic.'


def in_files(name: str) -> bool:
  """Tells whether a data set of the package is read from files.

  Args:
    name: of the data set.

  >>> in_files('dsads'), in_files('synthetic')
  (True, False)
  """
  return name in _FILES or name in _OWN or name == 'digits'


def find_data_dir(flag: str | Path | None) -> Path | None:
  """Finds the folder with data sets: the first of four places that exists.

  `flag` (`--data_dir`), the environment's RELIEF_DATA_DIR, `../shared/data`
  seen from the current folder, `relief_jax` in the user's cache.

  Args:
    flag: what the user asked for, or None.

  Returns:
    The folder, or None where there is none.

  Raises:
    InputError: a folder that was asked for by name and does not exist.
  """
  return _place(flag)[1]


def _place(flag: str | Path | None) -> tuple[str, Path | None]:
  """Works as `find_data_dir`; first gives its source, '' for a default."""
  for source, asked in (
    ('--data_dir', flag),
    ('RELIEF_DATA_DIR', os.environ.get('RELIEF_DATA_DIR')),
  ):
    if asked:
      root = Path(paths.expand(asked, source))
      if not root.is_dir():
        raise InputError(
          f'{source} = {str(asked)!r}, which is no folder',
          'a folder that holds dsads/, pamap2/, mhealth/, ...',
          f'correct {source}, or leave it out to use synthetic data',
        )
      return source, root
  shared = Path('..', 'shared', 'data')
  places = [shared, *filter(None, [cache.user_cache()])]
  return '', next((place for place in places if place.is_dir()), None)


def resolve(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> tuple[str, Path | None]:
  """Finds the name and the folder of a config's data set; reads none of it.

  `auto` is dsads where its files are found, else synthetic, but never
  synthetic where a folder was asked for by name.

  Args:
    config: of the run; `dataset`, `data_path` and `data.download` count.
    data_dir: folder of the data sets; None looks where `find_data_dir` says.

  Returns:
    The name of the data set and the folder to look for it in.

  Raises:
    InputError: an unknown name, a folder asked for by name that does not exist
      or does not hold the data set, a `data_path` that is lacking or that
      nobody would read.
  """
  name = config.dataset
  known = *plugins.names(KIND), 'auto'
  if name not in known and not plugins.is_reference(name):
    raise unknown('data set', name, known)
  if config.data_path and name not in _OWN:
    raise InputError(
      f'config.data_path={config.data_path!r} with config.dataset={name!r}, '
      'which does not read it',
      'a data_path for dataset=npz, csv and texts only',
      'set --config.dataset=npz, or leave data_path out',
    )
  _check_options(config, name)
  if name in _OWN and not config.data_path:
    raise InputError(
      f"config.dataset={name} with config.data_path=''",
      f'the path of {_OWN[name]}',
      f'set --config.data_path={"FOLDER" if name == "texts" else "FILE"}',
    )
  if name in _NO_FOLDER:
    return name, None
  source, root = _place(data_dir)
  if name == 'auto':
    if dsads.files(root):
      return 'dsads', root
    if not source:
      return 'synthetic', None
    held = [other for other, files in _FILES.items() if files(root)]
    raise InputError(
      f'no dsads in {source}={root}'
      + (f', which holds {", ".join(held)}' if held else ''),
      download.ARCHIVES['dsads'].files,
      f'set --config.dataset={held[0]}'
      if held
      else 'name the folder above dsads/, or leave it out and set '
      '--config.dataset=synthetic',
    )
  if source and name in _FILES and not config.data.download:
    if not _FILES[name](root):
      raise download.missing(name, root)
  return name, root


def _check_options(config: ml_collections.ConfigDict, name: str) -> None:
  """Refuses options that a data set of ours would not read.

  Raises:
    InputError: one of them is set.
  """
  ours = in_files(name) or name in _MADE_UP
  for key, wrong, fit in (
    ('channels', name in _NO_CHANNELS, 'data with channels'),
    ('client', ours and name != 'csv', 'dataset=csv'),
  ):
    if wrong and config.data[key]:
      raise InputError(
        f'config.data.{key}={config.data[key]!r} with config.dataset={name!r}, '
        'which does not read it',
        f'{fit}, or an empty one',
        f"set --config.data.{key}=''",
      )


def load(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> tuple[Windows, str]:
  """Loads and checks the data set that the config names.

  Args:
    config: of the run.
    data_dir: folder of the data sets; None looks where `find_data_dir` says.

  Returns:
    The windows, and the name of the data set they are of.

  Raises:
    InputError: of `resolve`; a file that cannot be used, numbers that are not
      finite.
  """
  name, root = resolve(config, data_dir)
  if name in _FILES:
    root = download.home(name, root, _FILES[name], config.data.download)
    if not _FILES[name](root):
      raise download.missing(name, root)
  windows = plugins.find(KIND, name)(config, root)
  validate(windows)
  return windows._replace(title=windows.title or name), name


def sources(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> dict[str, Path]:
  """Lists the files that `load` reads, by their place in the data set.

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
  if name == 'texts':
    return {path.as_posix(): path for path in texts.files(config.data_path)}
  if name in _OWN:
    if not config.data_path:
      return {}
    return {name: Path(paths.expand(config.data_path, 'config.data_path'))}
  if name not in _FILES:
    return {}
  root = find_data_dir(data_dir)
  if config.dataset != 'auto':
    root = download.home(name, root, _FILES[name], False)
  found = _FILES[name](root)
  if name == 'ucihar':
    found = [source for path in found for source in ucihar.sources(path)]
  if name == 'pamap2' and config.data.optional:
    found += pamap2.optional(found)
  return {path.relative_to(root or '').as_posix(): path for path in found}


def stamp(
  config: ml_collections.ConfigDict, data_dir: str | Path | None = None
) -> list[tuple[str, int, int]]:
  """Gives names, times and sizes of `sources`, which show changed files.

  Of a loader that says so, `from_arrays`, what it gives.
  """
  own = getattr(DATASETS.get(config.dataset), 'stamp', '')
  found: list[tuple[str, int, int]] = [(own, 0, 0)] if own else []
  for path in sources(config, data_dir).values():
    with contextlib.suppress(OSError):
      about = path.stat()
      found.append((str(path), about.st_mtime_ns, about.st_size))
  return found
