"""The command line: flags, exit codes, errors in one line.

Exit codes: 0 done, 1 some runs failed, 2 bad input, 3 diverged, 74 a disk that
cannot be written (EX_IOERR), 75 interrupted (EX_TEMPFAIL: try again later).
What was begun goes on with --resume after 74 and 75.
"""

import os
import pathlib
import signal
import sys
import traceback

import jax
from absl import app, flags, logging

from experiments import points
from relief_jax import ambient, processes
from relief_jax.errors import InputError, StorageError

FAILED, BAD_INPUT, DIVERGED, STORAGE, INTERRUPTED = 1, 2, 3, 74, 75
CODES = {'complete': 0, 'diverged': DIVERGED, 'interrupted': INTERRUPTED}
_CONFIGS = pathlib.Path(__file__).parent / 'configs'


def rewrite(argv: list[str]) -> list[str]:
  """Lets `--config=DIR/config.json` through, and checks that the file is there.

  A config flag reads Python files; a JSON file is handed to the config
  `from_json.py`, with its path as the variant.

  Raises:
    InputError: no such file.
  """
  argv = list(argv)
  for i, arg in enumerate(argv):
    name, equals, value = arg.partition('=')
    if name not in ('--config', '-config'):
      continue
    if not equals:
      value = argv[i + 1] if i + 1 < len(argv) else ''
    if value.endswith('.json'):
      path, new = value, f'{_CONFIGS / "from_json.py"}:{value}'
    else:
      path = new = value
      path = path.split(':', 1)[0]
    if not os.path.isfile(path):
      known = ', '.join(sorted(p.name for p in _CONFIGS.glob('[a-z]*.py')))
      raise InputError(
        f'no config file {path!r}',
        f'a path such as one of {known} in experiments/configs, or a '
        "run's own config.json",
        'check the path, and the folder that you are in',
      )
    if equals:
      argv[i] = f'{name}={new}'
    else:
      argv[i + 1] = new
  return argv


def launch(main, swept: dict[str, str] | None = None) -> None:
  """Runs `main(argv)`, whose result is the exit code; does not return.

  Where nothing else is arranged (`runner.Stop`), SIGTERM acts as SIGINT does.

  Args:
    main: the command.
    swept: takes up the flags `--sweep.KEY=VALUES`; None where there are none.
  """

  def parse(argv):
    if swept is not None:
      argv, found = points.split_argv(argv)
      swept.update(found)
    return _parse(argv)

  ambient.pin_process()
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  app.run(
    lambda argv: call(lambda: _quietly(main, argv)),
    flags_parser=lambda argv: call(lambda: parse(argv), keep=True),
  )


def _parse(argv: list[str]) -> list[str]:
  """Flags from the command line; absl's own errors become input errors."""
  try:
    return flags.FLAGS(rewrite(argv))
  except (KeyError, AttributeError) as error:  # no such key to override
    lines = str(error.args[0]).strip('"\'').encode().decode('unicode_escape')
    key, _, hint = lines.partition('\n')
    key = key.strip('"\'')
    raise InputError(
      f'unknown config key {key!r}',
      'a key of the config',
      hint or 'see relief_jax/config.py for all keys',
    ) from error
  except flags.Error as error:
    cause: BaseException | None = error
    while cause:  # a config file's own error, wrapped on its way
      if isinstance(cause, InputError):
        raise cause from None
      cause = cause.__cause__ or cause.__context__
    raise InputError(
      f'bad flags ({str(error).splitlines()[0]})',
      'flags as --help lists them',
      'check the spelling, and give what must have a value',
    ) from error


def _quietly(main, argv: list[str]):
  """Without the chatter of libraries, unless --verbosity asks for it."""
  if not any(
    arg.lstrip('-').startswith(('verbosity', 'v=')) for arg in sys.argv
  ):
    logging.set_verbosity(logging.WARNING)
  return main(argv)


def call(function, keep: bool = False):
  """Calls, and shows what the user can mend in one line."""
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
    if not processes.started():
      raise
    _leave(error)
  if keep:
    return result
  sys.exit(result)


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
  """At once: on its way out a process would wait for the others."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
