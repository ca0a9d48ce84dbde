"""Finds the config that a command line names: a shipped one, a file, a JSON."""

import os
import pathlib

import relief_jax
from relief_jax.errors import InputError
from relief_jax.files import paths

JSON = 'from_json.py'  # the config that reads a config.json


def folder() -> pathlib.Path:
  """Finds the folder of the configs that come with the package.

  An installed package holds them; in a checkout they lie in
  `experiments/configs`.
  """
  package = pathlib.Path(relief_jax.__file__).parent
  installed = package / 'configs'
  if installed.is_dir():
    return installed
  return package.parent / 'experiments' / 'configs'


def names() -> list[str]:
  """Lists the names of the configs that come with the package."""
  found = (path.name for path in folder().glob('[a-z]*.py'))
  return sorted(name.removesuffix('.py') for name in found if name != JSON)


def find(text: str) -> str:
  """Finds a config as a config flag reads it, PATH.py or PATH.py:VARIANT.

  A JSON file is handed to the config `from_json.py`, its path as the variant.

  Args:
    text: NAME or NAME.py of a config of the package, or the path of a .py,
      with or without :VARIANT; or the path of a .json.

  Raises:
    InputError: no such file, or a variant of a JSON file.
  """
  name, colon, variant = text.partition(':')
  path = paths.expand(name, '--config')
  if path.endswith('.json') and os.path.isfile(path):
    if colon:
      raise InputError(
        f'--config={text}', 'a JSON file, which has no variants', 'leave it out'
      )
    return f'{folder() / JSON}:{path}'
  if os.path.isfile(path):
    return path + colon + variant
  shipped = name.removeprefix('experiments/configs/').removesuffix('.py')
  if shipped in names():
    return f'{folder() / shipped}.py{colon}{variant}'
  raise InputError(
    f'no config file {name!r}',
    f'one of {", ".join(names())} (they lie in {folder()}), or the path of '
    "your own .py or of a run's config.json",
    'check the path, and the folder that you are in',
  )


def stored(workdir: str) -> str:
  """Finds the config that a run or comparison left in its folder.

  Args:
    workdir: the folder.

  Returns:
    Its path, '' where there is none.
  """
  path = pathlib.Path(workdir, 'config.json')
  return str(path) if workdir and path.is_file() else ''


def rewrite(argv: list[str]) -> list[str]:
  """Puts the file that is meant in place of what --config names.

  Raises:
    InputError: no such file.
  """
  argv = list(argv)
  for i, arg in enumerate(argv):
    name, equals, value = arg.partition('=')
    if name not in ('--config', '-config'):
      continue
    if equals:
      argv[i] = f'{name}={find(value)}'
    else:
      if i + 1 == len(argv):
        raise InputError(name, f'{name}=NAME', 'name a config')
      argv[i + 1] = find(argv[i + 1])
  return argv
