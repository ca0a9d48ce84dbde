"""The command line: flags, exit codes (`exit_codes`), errors in one line.

A command is a module with `define`, which defines its flags, and `main`; its
flags are there only when it is launched, so that all commands can be imported
together.
"""

import errno
import itertools
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Sequence

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections.config_flags import (
  DEFINE_config_file,
  get_config_filename,
)

from relief_jax.campaign import points
from relief_jax.cli import arguments, config_flags, config_lookup
from relief_jax.config import registries
from relief_jax.engine import ambient, processes
from relief_jax.errors import InputError, StorageError
from relief_jax.files import invocation, output, paths
from relief_jax.storage import exit_codes, naming, stop

# Flags defined here are those of the command that asks for them.
flags.disclaim_key_flags()


_REQUIRED = re.compile(r'(--\w+) must have a value other than None')


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
  DEFINE_config_file('config', None, meaning)


def config(example: str = 'relief:smoke') -> ml_collections.ConfigDict:
  """Gives the config that the command line names.

  Args:
    example: of one, for the message.

  Raises:
    InputError: it names none.
  """
  if flags.FLAGS.config is None:
    raise _no_config(example)
  return flags.FLAGS.config


def _no_config(example: str) -> InputError:
  """Builds the error for a command line that names no config."""
  return InputError(
    'no config',
    f'the name of one ({", ".join(config_lookup.names())}), a .py or a '
    "run's config.json",
    f'name one first, say {example}',
  )


def workdir(ending: str = '') -> pathlib.Path:
  """Gives --workdir; without it runs/NAME, after the config's name.

  Args:
    ending: of the folder's name where it is not given.

  Raises:
    InputError: not given, for a config.json.
  """
  if flags.FLAGS.workdir:
    return pathlib.Path(flags.FLAGS.workdir)
  path, _, variant = get_config_filename(flags.FLAGS['config']).partition(':')
  file = pathlib.Path(path)
  if file.name == config_lookup.JSON:
    raise InputError(
      'a config.json without --workdir',
      'the folder of the new run',
      'write --workdir=runs/again',
    )
  name = naming.file_name(file.stem, *variant.split(','))
  found = pathlib.Path('runs', name + ending)
  print(f'results go to {found} (--workdir)')
  return found


def one_path(argv: Sequence[str], usage: str, cure: str) -> pathlib.Path:
  """Gives the path that is a command's only argument.

  Args:
    argv: the command line without its flags.
    usage: of the command, for the message.
    cure: likewise.

  Raises:
    InputError: no argument, several, or no path.
  """
  if len(argv) != 2:
    raise InputError(f'{len(argv) - 1} paths', f'one: {usage}', cure)
  return pathlib.Path(paths.expand(argv[1], 'PATH'))


def define_data_dir() -> None:
  """Defines --data_dir."""
  define_path('data_dir', None, 'where real data is')


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
  output.plain_hints()
  stop.interrupt()
  if define:
    before = set(flags.FLAGS)
    define()
    for name in set(flags.FLAGS) - before:  # what --help lists
      flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  sys.argv = rename(sys.argv)  # where config flags look for their keys
  app.run(
    lambda argv: call(lambda: _quietly(main, argv)),
    flags_parser=lambda argv: call(lambda: parse(argv), keep=True),
  )


def _workdir(argv: list[str]) -> str:
  """Gives --workdir before the flags are parsed, '' without it."""
  for arg, after in itertools.zip_longest(argv, argv[1:], fillvalue=''):
    name, equals, value = arg.partition('=')
    if name in ('--workdir', '-workdir') and 'workdir' in flags.FLAGS:
      return paths.expand(value if equals else after, name)
  return ''


def _named(argv: list[str]) -> list[str]:
  """Makes --config of the first argument that is no flag.

  Where there is none, it is the one of what lies in --workdir already.
  """
  given = any(arg.partition('=')[0].lstrip('-') == 'config' for arg in argv)
  if given or 'config' not in flags.FLAGS:
    return argv
  rows = config_flags.rows()

  def takes_value(name):
    if name.startswith('config.'):
      row = rows.get(name.removeprefix('config.'))
      return bool(row) and row.kind != 'switch'
    return name in flags.FLAGS and not flags.FLAGS[name].boolean

  at = arguments.operand(argv, list(flags.FLAGS), takes_value)
  if not at:
    if stored := config_lookup.stored(_workdir(argv)):
      return [argv[0], f'--config={stored}', *argv[1:]]
    if any(
      arg.lstrip('-').startswith('config.') for arg in argv if arg[0:1] == '-'
    ):
      raise _no_config('relief:smoke')
    return argv
  return [argv[0], f'--config={argv[at]}', *argv[1:at], *argv[at + 1 :]]


def _parse(argv: list[str], swept: dict[str, str] | None = None) -> list[str]:
  """Parses the flags of the command line; absl's errors become input errors."""
  argv = config_flags.prepare(config_lookup.rewrite(_named(argv)), swept)
  before = registries.contents()
  try:
    rest = flags.FLAGS(argv)
  except Exception as error:
    if found := config_flags.explain(error, argv):
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
    if missing := _REQUIRED.search(str(error)):
      raise InputError(
        f'no {missing[1]}', f'{missing[1]}=VALUE', 'add it; --help tells more'
      ) from error
    if isinstance(error, flags.Error):
      raise InputError(
        f'bad flags ({str(error).splitlines()[0]})',
        'flags as --help lists them',
        'check the spelling, and give what must have a value',
      ) from error
    raise
  config_flags.settle(before)
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
    sys.exit(exit_codes.BAD_INPUT)
  except StorageError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(exit_codes.STORAGE)
  except processes.PeerError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(exit_codes.FAILED)
  except KeyboardInterrupt:
    print(
      'interrupted at once: what was not saved before is lost; the command was '
      f'{invocation.command_line()}',
      file=sys.stderr,
    )
    if processes.started():
      _exit(exit_codes.INTERRUPTED)
    sys.exit(exit_codes.INTERRUPTED)
  except Exception as error:
    if isinstance(error, OSError) and error.errno in _DISK and error.filename:
      print(
        f'error: {StorageError(error.filename, error.errno)}', file=sys.stderr
      )
      sys.exit(exit_codes.STORAGE)
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
  _exit(exit_codes.FAILED)


def _exit(code: int) -> None:
  """Exits at once: on its way out a process would wait for the others."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
