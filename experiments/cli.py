"""The command `relief`: all commands by one name that no folder shadows.

relief run --config=relief:smoke --workdir=runs/relief

is `python -m experiments.main` with the same flags, wherever one stands.
"""

import importlib
import sys

from experiments import command
from relief_jax.errors import InputError
from relief_jax.files import output

# Command -> its module.
COMMANDS = {
  'run': 'main',
  'compare': 'compare',
  'sweep': 'sweep',
  'report': 'report',
  'inspect': 'inspect',
}
# Those that take folders beside flags.
_OPERANDS = ('report',)


def main() -> None:
  """Launches the command that the first argument names; does not return."""
  output.set_up()
  name, rest = (sys.argv + [''])[1], sys.argv[2:]
  if name in ('-h', '--help', '-help', 'help'):
    print(f'relief {"|".join(COMMANDS)} [--help] [--FLAG=VALUE ...]')
    sys.exit(0)
  command.call(lambda: _known(name), keep=True)
  module = importlib.import_module(f'experiments.{COMMANDS[name]}')
  sys.argv = [f'{sys.argv[0]} {name}', *rest]
  command.launch(
    module.main,
    module.define,
    getattr(module, 'SWEPT', None),
    name in _OPERANDS,
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
