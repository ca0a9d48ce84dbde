"""The command line: flags, exit codes, errors in one line.

Exit codes: 0 done, 1 some runs failed, 2 bad input, 3 diverged, 74 a disk that
cannot be written (EX_IOERR), 75 interrupted (EX_TEMPFAIL: try again later).
What was begun goes on with --resume after 74 and 75.

A command is a module with `define`, which defines its flags, and `main`; its
flags are there only when it is launched, so that all commands can be imported
together.
"""

import errno
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import arguments, config_door, points, stop
from relief_jax.config import registries
from relief_jax.engine import ambient, processes
from relief_jax.errors import InputError, StorageError
from relief_jax.files import output, paths

# Flags defined here are those of the command that asks for them.
flags.disclaim_key_flags()

FAILED, BAD_INPUT, DIVERGED, STORAGE, INTERRUPTED = 1, 2, 3, 74, 75
CODES = {'complete': 0, 'diverged': DIVERGED, 'interrupted': INTERRUPTED}
_CONFIGS = pathlib.Path(__file__).parent / 'configs'
_HELPERS = ('common', 'from_json')  # files beside the configs that are none


class _Path(flags.ArgumentParser):
  """Parses a path in which ~ is the home folder."""

  def __init__(self, name: str):
    """Prepares to parse a flag.

    Args:
      name: of the flag.
    """
    self._name = name

  def parse(self, argument):
    """Gives the path as the system takes it.

    Raises:
      InputError: an empty one.
    """
    return paths.expand(argument, f'--{self._name}')


def define_path(
  name: str, default: str | None, meaning: str
) -> flags.FlagHolder:
  """Defines a flag that is a path.

  Args:
    name: of the flag.
    default: where it is not given.
    meaning: for --help.
  """
  return flags.DEFINE(_Path(name), name, default, meaning)


def define_config(
  meaning: str = 'a config: NAME[:variant], a .py or a config.json',
) -> None:
  """Defines --config and, with it, --config.KEY for every key."""
  config_flags.DEFINE_config_file('config', None, meaning)


def define_data_dir() -> None:
  """Defines --data_dir."""
  define_path('data_dir', None, 'where real data is')


def configs() -> list[str]:
  """Lists the names of the configs that come with the package."""
  found = (path.stem for path in _CONFIGS.glob('[a-z]*.py'))
  return sorted(name for name in found if name not in _HELPERS)


def find_config(text: str) -> str:
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
    return f'{_CONFIGS / "from_json.py"}:{path}'
  if os.path.isfile(path):
    return path + colon + variant
  shipped = name.removeprefix('experiments/configs/').removesuffix('.py')
  if shipped in configs():
    return f'{_CONFIGS / shipped}.py{colon}{variant}'
  raise InputError(
    f'no config file {name!r}',
    f'one of {", ".join(configs())} (they lie in {_CONFIGS}), or the path of '
    "your own .py or of a run's config.json",
    'check the path, and the folder that you are in',
  )


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
      argv[i] = f'{name}={find_config(value)}'
    else:
      if i + 1 == len(argv):
        raise InputError(name, f'{name}=NAME', 'name a config')
      argv[i + 1] = find_config(argv[i + 1])
  return argv


def rename(argv: list[str]) -> list[str]:
  """Lets `--config.values=FILE` set the key `values_file`.

  A config's `values` is its own method, so that no key can have this name.

  >>> rename(['x', '--config.values=a.json'])
  ['x', '--config.values_file=a.json']
  """
  return [re.sub(r'^(--?config\.values)(?==|$)', r'\1_file', a) for a in argv]


def launch(
  main: Callable[[list[str]], int | None],
  define: Callable[[], None] | None = None,
  swept: dict[str, str] | None = None,
  operands: bool = False,
) -> None:
  """Runs `main(argv)`, whose result is the exit code; does not return.

  Where nothing else is arranged (`stop.Stop`), what asks a process to end acts
  as SIGINT does.

  Args:
    main: the command.
    define: defines its flags.
    swept: takes up the flags `--sweep.KEY=VALUES`; None where there are none.
    operands: the command reads arguments that are no flags.
  """

  def parse(argv):
    if swept is not None:
      argv, found = points.split_argv(argv)
      swept.update(found)
    rest = _parse(argv, swept)
    known = list(flags.FLAGS)
    wrong = [
      arg
      for arg in rest[1:]
      if not operands
      or arguments.looks_like_a_flag(arg, known)
      and not os.path.exists(arg)
    ]
    if wrong:
      raise InputError(*arguments.stray(wrong, sys.argv, known))
    return rest

  ambient.pin_process()
  output.set_up()
  stop.interrupt()
  if define:
    define()
  sys.argv = rename(sys.argv)  # where config flags look for their keys
  app.run(
    lambda argv: call(lambda: _quietly(main, argv)),
    flags_parser=lambda argv: call(lambda: parse(argv), keep=True),
  )


def _parse(argv: list[str], swept: dict[str, str] | None = None) -> list[str]:
  """Parses the flags of the command line; absl's errors become input errors."""
  argv = config_door.prepare(rewrite(argv), swept)
  before = registries.contents()
  try:
    rest = flags.FLAGS(argv)
  except Exception as error:
    if found := config_door.explain(error, argv):
      raise found from None
    if isinstance(error, KeyError | AttributeError):  # no such key to override
      lines = str(error.args[0]).strip('"\'').encode().decode('unicode_escape')
      key, _, hint = lines.partition('\n')
      key = key.strip('"\'')
      raise InputError(
        f'unknown config key {key!r}',
        'a key of the config',
        hint or 'see relief_jax/config/table.py for all keys',
      ) from error
    if isinstance(error, flags.Error):
      raise InputError(
        f'bad flags ({str(error).splitlines()[0]})',
        'flags as --help lists them',
        'check the spelling, and give what must have a value',
      ) from error
    raise
  config_door.settle(before)
  return rest


def _quietly(main, argv: list[str]):
  """Runs `main` without logs of libraries, unless --verbosity asks for them."""
  if not any(
    arg.lstrip('-').startswith(('verbosity', 'v=')) for arg in sys.argv
  ):
    logging.set_verbosity(logging.WARNING)
  return main(argv)


def call(function, keep: bool = False):
  """Calls a function and shows an error that the user can mend in one line."""
  try:
    result = function()
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(BAD_INPUT)
  except StorageError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(STORAGE)
  except processes.PeerError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(FAILED)
  except KeyboardInterrupt:
    print(
      'interrupted at once: what was not saved before is lost', file=sys.stderr
    )
    if processes.started():
      _exit(INTERRUPTED)
    sys.exit(INTERRUPTED)
  except Exception as error:
    if isinstance(error, OSError) and error.errno in _DISK and error.filename:
      print(
        f'error: {StorageError(error.filename, error.errno)}', file=sys.stderr
      )
      sys.exit(STORAGE)
    if not processes.started():
      raise
    _leave(error)
  if keep:
    return result
  sys.exit(result)


# What a disk or a folder says, and no mistake in a program.
_DISK = (
  errno.EACCES,
  errno.EPERM,
  errno.EROFS,
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EIO,
  errno.ENOTDIR,
  errno.ENAMETOOLONG,
)


def _leave(error: Exception) -> None:
  """Ends one of several processes at once: the others may wait for it."""
  # On CPU a collective may fail as a ValueError that names gloo.
  if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):
    reason = str(error).splitlines()[0]
    text = (
      f'Found process {jax.process_index()} without the others ({reason}); '
      'expected all of them to the end. Usual cure: see the output of the one '
      'that ended first, then start all of them again with --resume.'
    )
  else:
    traceback.print_exception(error)
    text = f'process {jax.process_index()} failed'
  print(f'error: {text}', file=sys.stderr)
  _exit(FAILED)


def _exit(code: int) -> None:
  """Exits at once: on its way out a process would wait for the others."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
