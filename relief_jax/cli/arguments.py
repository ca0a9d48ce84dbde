"""Tells what was meant by an argument that is no flag.

Standard library only: the processes of other simulators use it too.
"""

import os
from collections.abc import Callable, Container, Sequence

# What word processors and web pages make of two hyphens.
_DASHES = '-\u2010\u2011\u2012\u2013\u2014\u2015\u2212'


def operand(
  argv: Sequence[str], known: Container[str], takes_value: Callable[[str], bool]
) -> int:
  """Finds the first argument that is neither a flag nor the value of one.

  Args:
    argv: the whole command line.
    known: names of the command's flags.
    takes_value: whether the flag of this name needs a value.

  Returns:
    Its place; 0 where there is none, or where it is a flag without its dashes.

  >>> argv = ['x', '--workdir', 'a', 'relief:smoke']
  >>> operand(argv, ['workdir'], lambda name: name == 'workdir')
  3
  """
  at = 1
  while at < len(argv):
    arg = argv[at]
    if arg[:1] and arg[0] in _DASHES:
      at += 2 if '=' not in arg and takes_value(arg.lstrip(_DASHES)) else 1
      continue
    a_file = os.path.isfile(arg.partition(':')[0])
    wrong = not arg.strip() or arg in known or '=' in arg
    return 0 if wrong and not a_file else at
  return 0


def stray(
  rest: Sequence[str], argv: Sequence[str], known: Container[str]
) -> tuple[str, str, str]:
  """Describes a stray argument: what was found, what was expected, the cure.

  Args:
    rest: what is left of the command line without its flags; not empty.
    argv: the whole command line.
    known: names of the command's flags.

  >>> stray(['config.rounds=3'], ['x', 'config.rounds=3'], ['config'])[2]
  'write --config.rounds=3'
  >>> stray(['.2'], ['x', '--sweep.lr=.1', '.2'], ['config'])[2]
  "write '--sweep.lr=.1,.2' without blanks, in quotes where one is needed"
  """
  first = rest[0]
  found = f'the argument {first!r}, which nothing reads'
  return found, 'flags, each as --NAME=VALUE', _cure(rest, argv, known)


def looks_like_a_flag(text: str, known: Container[str]) -> str:
  """Gives the flag that an argument without its dashes is, '' where it is none.

  Args:
    text: the argument.
    known: names of the command's flags.

  >>> looks_like_a_flag('out=a', ['out']), looks_like_a_flag('a', ['out'])
  ('--out=a', '')
  """
  bare = text.lstrip(_DASHES)
  name, equals, _ = bare.partition('=')
  head = name.partition('.')[0]
  dotted = '.' in name and head in ('config', 'sweep')
  if (equals or bare != text) and (dotted or name in known):
    return f'--{bare}'
  return ''


def _cure(rest, argv, known) -> str:
  first = rest[0]
  if not first.strip():
    return 'leave it out, or check the variable that it came from'
  if flag := looks_like_a_flag(first, known):
    return f'write {flag}'
  if first in known:
    value = f'={rest[1]}' if len(rest) > 1 else '=VALUE'
    return f'write --{first}{value}'
  at = list(argv).index(first) if first in argv else 0
  before = argv[at - 1] if at > 1 else ''
  if before.startswith('-') and before.strip('-'):
    if '=' not in before:
      return f'write {before}={first}'
    values = [before.rstrip(',')]
    for one in argv[at:]:
      if one.startswith('-') and not one[1:2].isdigit() and one[1:2] != '.':
        break
      values.append(one.strip(','))
    swept = before.lstrip('-').startswith('sweep.')
    joined = ','.join(filter(None, values)) if swept else ' '.join(values)
    if swept:
      return f'write {joined!r} without blanks, in quotes where one is needed'
    return f'write {joined!r} in quotes, if the blank belongs to the value'
  return 'leave it out, or write it as a flag that --help lists'
