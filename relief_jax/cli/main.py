"""The command `relief`: all commands by one name that no folder shadows.

relief run --config=relief:smoke --workdir=runs/relief

In a checkout `python -m experiments.main` is the same with the same flags.
"""

import importlib
import sys
from typing import NamedTuple

from relief_jax.cli import command
from relief_jax.errors import InputError
from relief_jax.files import output


class Command(NamedTuple):
  """Describes a command.

  Attributes:
    meaning: one line.
    operands: it reads arguments that are no flags.
  """

  meaning: str
  operands: bool = False


# By name; its module has the same name with _ for -.
COMMANDS = {
  'run': Command('one experiment, which leaves a run directory'),
  'compare': Command('several methods and seeds side by side'),
  'sweep': Command('many points of one config side by side'),
  'report': Command('one HTML page, figures and tables of runs', True),
  'select': Command('the best values of every label of a sweep', True),
  'robustness': Command('tables and heat maps of a robustness grid', True),
  'inspect': Command('the clients of a config, before anything trains'),
  'profile-device': Command('how fast this machine trains, as a device'),
}


def main() -> None:
  """Starts the command that the first argument names; does not return."""
  output.set_up()
  name, rest = (sys.argv + [''])[1], sys.argv[2:]
  if name in ('-h', '--help', '-help', 'help'):
    print(f'relief {"|".join(COMMANDS)} [--help] [--FLAG=VALUE ...]')
    sys.exit(0)
  command.call(lambda: _known(name), keep=True)
  sys.argv = [f'{sys.argv[0]} {name}', *rest]
  start(name)


def start(name: str) -> None:
  """Starts a command on the flags of the command line; does not return.

  Args:
    name: of `COMMANDS`.
  """
  module = importlib.import_module(f'relief_jax.cli.{name.replace("-", "_")}')
  # What --help prints; absl puts the program's name in place of %s.
  sys.modules['__main__'].__doc__ = module.__doc__.replace('%', '%%')
  command.launch(
    module.main,
    module.define,
    getattr(module, 'SWEPT', None),
    COMMANDS[name].operands,
  )


def _known(name: str) -> None:
  """Raises `InputError` where there is no such command."""
  if name not in COMMANDS:
    raise InputError(
      f'the command {name!r}' if name else 'no command',
      f'one of {", ".join(COMMANDS)}',
      'write, say, relief run --config=relief:smoke --workdir=runs/a',
    )


if __name__ == '__main__':
  main()
