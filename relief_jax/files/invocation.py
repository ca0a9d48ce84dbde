"""Tells how this process was started."""

import pathlib
import shlex
import sys


def resuming() -> str:
  """Gives the command that goes on with the run of this one."""
  resumes = any(
    arg.lstrip('-') in ('resume', 'resume=True', 'resume=true')
    for arg in sys.argv[1:]
  )
  return command_line() + ('' if resumes else ' --resume')


def command_line() -> str:
  """Gives the command that this process was started with."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  module = spec.name if spec else ''
  # `cli.main` puts the command's name behind the program's.
  name, blank, command = sys.argv[0].rpartition(' ')
  if blank and pathlib.PurePath(name).stem == 'relief':
    head = ['relief', command]
  elif blank and module == 'relief_jax.cli.main':
    head = ['python', '-m', module, command]
  else:
    head = ['python', '-m', module] if module else ['python', sys.argv[0]]
  return shlex.join(head + sys.argv[1:])
