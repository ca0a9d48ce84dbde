"""What makes a run the same: its config, files and settings. **Ours.**

`config.json` holds the config; `identity.json` beside it the SHA-256 of every
file that the config names or finds, and what the user chose of JAX's settings.
A run that goes on must meet the same again. What cannot change its results may
change, and is then noted.
"""

import functools
import hashlib
import os
import pathlib
from typing import Any

import ml_collections

from relief_jax import algorithms, datasets, plugins
from relief_jax import config as config_lib
from relief_jax.engine import ambient, placement
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.keys import flatten
from relief_jax.storage import records
from relief_jax.world import fleet_files

FILE = 'identity.json'

_ROUNDING = 'results keep all but their last digits'
# Keys that change nothing about the numbers of a round, and why.
FREE = {
  'checkpoint_every': 'when a checkpoint is written',
  'eval_every': 'after which rounds the model is tested, from here on',
  'rounds_per_call': 'after which rounds the program looks up',
  'target': 'what a summary tells of the curve',
  'target_f1': 'what a summary tells of the curve',
  'modules': 'where code is; what it adds has names of its own',
  'data.download': 'how a data set came here',
  'devices': f'who computes; {_ROUNDING}',
  'layout': f'how it is computed; {_ROUNDING}',
  'buckets': f'how it is computed; {_ROUNDING}',
  'rounds': 'how long it goes on, where nothing is planned over all rounds',
}
# Keys that hold the path of a file, which counts by its content.
_PATHS = (
  'data_path',
  'fleet',
  'online.presence.path',
  'online.pace.path',
  'model.weights',
)


def _free(key: str, config: ml_collections.ConfigDict) -> bool:
  """Tells whether a key cannot change the results of a config."""
  group = key.partition('.')[0]
  methods = {*algorithms.ALGORITHMS, *config_lib.outside()}
  return key in FREE or (  # options of a method that is not run
    group in methods and group != plugins.short(config.method)
  )


def adopt(config: ml_collections.ConfigDict, stored: dict) -> None:
  """Settles what was left to be found out: it takes the stored value."""
  known = flatten(stored)
  for key, value in flatten(records.clean(config)).items():
    if key == 'layout' and known.get('devices', 0) != config.devices:
      continue  # of other devices
    if value in placement.OPEN and isinstance(known.get(key), str):
      config.update_from_flattened_dict({key: known[key]})


def resolved(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Copies a config with the defaults that depend on other keys filled in."""
  config = config.copy_and_resolve_references()
  config.fill = algorithms.resolve_fill(config.method, config.fill)
  return config


def changes(
  config: ml_collections.ConfigDict, stored: dict
) -> dict[str, tuple[Any, Any]]:
  """Lists the keys that differ from a stored config: (now, then), in order.

  A key that is not stored counts as its default: runs from before the key
  existed go on.
  """
  old = flatten(records.clean(config_lib.default()))
  old |= flatten(stored)
  new = flatten(records.clean(config))
  others = config_lib.outside(but=config.method)
  found = {}
  for key in sorted(new.keys() | old.keys()):
    if key.partition('.')[0] in others:
      continue
    if key == 'layout' and old[key] in placement.OPEN:
      continue  # stored before layouts were
    if new.get(key) != old.get(key):
      found[key] = new.get(key), old.get(key)
  return found


def difference(
  config: ml_collections.ConfigDict, stored: dict, files: bool = False
) -> str:
  """Names the first key that makes a config another run, '' if none does.

  Args:
    config: of the run as it is asked for.
    stored: the config that it was begun with.
    files: their contents are compared elsewhere; paths then may differ.
  """
  for key, (now, then) in changes(config, stored).items():
    moved = files and key in _PATHS and _file(key, now) and _file(key, then)
    if not moved and not _free(key, config):
      return f'config.{key}={now!r} where {then!r} is stored'
  return ''


def refuse_other(
  folder: pathlib.Path,
  config: ml_collections.ConfigDict,
  data_dir: str | os.PathLike | None,
  stored: dict,
) -> None:
  """Refuses to go on with another run.

  Args:
    folder: the run directory.
    config: of the run as it is asked for, `adopt`ed.
    data_dir: where real data is looked for.
    stored: the folder's `config.json`.

  Raises:
    InputError: it was begun with another config, file or setting.
  """
  path = folder / FILE
  known = records.read_json(path) if path.exists() else {}
  found = difference(config, stored, files='files' in known)
  if found := found or other(config, data_dir, known, stored):
    raise InputError(
      f'{folder} with {found}',
      'what it was begun with',
      'use another --workdir, or take the change back',
    )


def refuse_rounds(
  config: ml_collections.ConfigDict, stored: dict, done: int
) -> None:
  """Refuses another number of rounds that the config itself forbids.

  Args:
    config: of the run as it is asked for.
    stored: the config that it was begun with.
    done: rounds.

  Raises:
    InputError: fewer rounds than are done, or a deadline or a rate planned
      over all.
  """
  if config.rounds == stored['rounds']:
    return
  if config.rounds < done:
    raise InputError(
      f'config.rounds={config.rounds} where {done} rounds are done',
      f'at least {done}',
      'use another --workdir for the shorter run',
    )
  if config.deadline_end:
    raise planned(config, stored, f'config.deadline_end={config.deadline_end}')
  if config.lr_schedule in ('linear', 'cosine'):
    raise planned(config, stored, f'config.lr_schedule={config.lr_schedule}')


def planned(
  config: ml_collections.ConfigDict, stored: dict, what: str
) -> InputError:
  """Builds the error for another number of rounds if results depend on it."""
  return InputError(
    f'config.rounds={config.rounds} where {stored["rounds"]} is stored, and '
    f'{what} plans over all rounds of a run',
    'the same number: what is done would have been done in another way',
    'use another --workdir, or take the change back',
  )


def of(
  config: ml_collections.ConfigDict, data_dir: str | os.PathLike | None
) -> dict[str, Any]:
  """Collects the content of `identity.json`: files' checksums, and settings.

  Files that are not there are left out: whoever needs them says so.

  Args:
    config: of a run.
    data_dir: where real data is looked for.
  """
  return {
    'schema': records.SCHEMA,
    'files': {
      name: _sum(path)
      for name, path in _files(config, data_dir).items()
      if path.is_file()
    },
    'settings': ambient.chosen(),
  }


def other(
  config: ml_collections.ConfigDict,
  data_dir: str | os.PathLike | None,
  stored: dict[str, Any],
  begun: dict | None = None,
) -> str:
  """Names the first file or setting that differs from the stored, '' if none.

  Of a kind of file (the data, the fleet, ...) of which nothing is there any
  more nothing is said: a finished run does not need it.

  Args:
    config: of a run.
    data_dir: where real data is looked for.
    stored: its `identity.json`; {} of a run from before there was one.
    begun: the config that it was begun with, whose paths are named where they
      were others; None: no paths.
  """
  now, places = of(config, data_dir), _files(config, data_dir)
  new, old = now['files'], stored.get('files')
  if old is None:
    return ''
  there = {_kind(name) for name in new}
  for name in sorted(old.keys() | new.keys()):
    if new.get(name) == old.get(name) or _kind(name) not in there:
      continue
    what = 'which was not there' if name not in old else 'with other contents'
    if name not in new:
      what = 'which is not there any more'
    return f'{places.get(name, name)}, {what}{_moved(name, config, begun)}'
  for name, value in stored.get('settings', {}).items():
    if now['settings'].get(name) != value:
      return f'{name}={now["settings"].get(name)} where {value} is stored'
  return ''


def _files(config, data_dir) -> dict[str, pathlib.Path]:
  """Lists the files of a run; a name begins with the key that is about them."""
  found = {
    f'dataset: {name}': path
    for name, path in datasets.sources(config, data_dir).items()
  }
  if fleet_files.is_path(config.fleet):
    for i, path in enumerate(fleet_files.sources(config.fleet)):
      found[f'fleet: {i}'] = path
  presence = config.online.presence
  if presence.kind in ('trace', 'windows'):
    found['online.presence.path: 0'] = pathlib.Path(presence.path)
  if bandwidths := config.online.pace.path:
    found['online.pace.path: 0'] = pathlib.Path(
      paths.expand(bandwidths, 'config.online.pace.path')
    )
  if weights := config.model.weights:
    found['model.weights: 0'] = pathlib.Path(
      paths.expand(weights, 'config.model.weights')
    )
  return found


def _kind(name: str) -> str:
  return name.partition(':')[0]


def _moved(
  name: str, config: ml_collections.ConfigDict, begun: dict | None
) -> str:
  """Tells which path a file's key had before; '' where it is the same."""
  key = {'dataset': 'data_path'}.get(_kind(name), _kind(name))
  now, then = flatten(records.clean(config)), flatten(begun or {})
  if not then.get(key) or then[key] == now.get(key):
    return ''
  return f', where config.{key}={then[key]} is stored'


def _file(key: str, value: Any) -> bool:
  """Tells whether a key's value is the path of a file."""
  return bool(value) and (key != 'fleet' or fleet_files.is_path(str(value)))


def _sum(path: pathlib.Path) -> str:
  found = path.stat()
  return _hashed(path.absolute(), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _hashed(path: pathlib.Path, size: int, time: int) -> str:
  """Computes the SHA-256 of a file, anew only where size or time changed.

  Raises:
    InputError: it cannot be read.
  """
  del size, time
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(
      f'{path}: {error.strerror}', 'a file that can be read', 'check it'
    ) from error
