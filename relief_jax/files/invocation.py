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
  name, *sub = sys.argv[0].split(' ')
  if pathlib.PurePath(name).stem == 'relief' and sub:  # see `cli`
    head = ['relief', *sub]
  else:
    head = ['python', '-m', spec.name] if spec else ['python', sys.argv[0]]
  return shlex.join(head + sys.argv[1:])
