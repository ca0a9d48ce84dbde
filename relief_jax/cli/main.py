"""The command `relief`: all commands by one name that no folder shadows.

    relief run relief:smoke --config.rounds=20

In a checkout `python -m experiments.main` is `relief run`, and
`python -m experiments.NAME` is any other command of that name. Nothing heavy is
imported until a command is known.
"""

import importlib
import importlib.metadata
import platform
import sys
from typing import NamedTuple

import relief_jax.errors
from relief_jax.files import output


class Command(NamedTuple):
  """Describes a command.

  Attributes:
    usage: what follows its name.
    meaning: one line.
    operands: it reads arguments that are neither flags nor a config's name.
  """

  usage: str
  meaning: str
  operands: bool = False


# By name; its module has the same name with _ for -.
COMMANDS = {
  'run': Command('CONFIG', 'runs one experiment, into a run directory'),
  'compare': Command('CONFIG', 'sets methods and seeds side by side'),
  'sweep': Command('CONFIG', 'sets values of keys side by side'),
  'report': Command('DIR...', 'makes one HTML page, figures and tables', True),
  'select': Command('DIR', 'chooses the best values of a sweep', True),
  'robustness': Command('DIR', 'makes the maps of a robustness grid', True),
  'costs': Command('CONFIG', 'computes time, energy, bytes without training'),
  'inspect': Command('CONFIG', 'shows devices and data before training'),
  'check-data': Command('PATH', 'looks for faults in your own data', True),
  'profile-device': Command('', 'measures this machine as a device'),
  'keys': Command('[PATTERN]', 'lists the keys of configs', True),
  'cache': Command('[PART...]', 'shows or clears what is kept on disk', True),
}
# Short for a command and its first arguments.
SHORT = {'try': ('compare', 'try')}
_HELP = ('', '-h', '--help', '-help', 'help')
_VERSION = ('--version', '-version', 'version')


def main() -> None:
  """Starts the command that the first argument names; does not return."""
  output.set_up()
  name, rest = (sys.argv + [''])[1], sys.argv[2:]
  if name in _HELP:
    print(overview())
    sys.exit(0)
  if name in _VERSION:
    print(version())
    sys.exit(0)
  name, *given = SHORT.get(name, (name,))
  rest = [*given, *rest]
  if name not in COMMANDS:
    print(
      f'error: {relief_jax.errors.unknown("command", name, COMMANDS)}',
      file=sys.stderr,
    )
    sys.exit(2)
  sys.argv = [f'{sys.argv[0]} {name}', *rest]
  start(name)


def start(name: str) -> None:
  """Starts a command on the flags of the command line; does not return.

  Args:
    name: of `COMMANDS`.
  """
  from relief_jax.cli import command

  module = importlib.import_module(f'relief_jax.cli.{name.replace("-", "_")}')
  # What --help prints; absl puts the program's name in place of %s.
  sys.modules['__main__'].__doc__ = (module.__doc__ or '').replace('%', '%%')
  command.launch(
    module.main,
    module.define,
    getattr(module, 'SWEPT', None),
    COMMANDS[name].operands,
  )


def overview() -> str:
  """Lists all commands, a line each."""
  calls = {name: f'{name} {one.usage}' for name, one in COMMANDS.items()}
  wide = max(map(len, calls.values()))
  lines = [
    'usage: relief COMMAND [ARGUMENT...] [--FLAG=VALUE...]',
    '',
    *(
      f'  {calls[name]:{wide}}  {one.meaning}' for name, one in COMMANDS.items()
    ),
    '',
    'Begin with: relief try (three methods side by side, in half a minute)',
    'relief COMMAND --help lists its flags; relief --version.',
  ]
  return '\n'.join(lines)


def version() -> str:
  """Names the version, and those of JAX and Python."""
  try:
    jax = importlib.metadata.version('jax')
  except importlib.metadata.PackageNotFoundError:
    jax = 'missing'
  return (
    f'relief_jax {relief_jax.__version__} (jax {jax}, '
    f'Python {platform.python_version()})'
  )


if __name__ == '__main__':
  main()
