"""Cuts the parameters of a model into blocks, by patterns of their names.

A parameter's name is its path in the model, `encoder/conv/kernel`. A pattern
has shell wildcards, and one that fits a folder means all that is in it.
"""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from relief_jax.errors import InputError

Patterns = str | Sequence[str]


def fits(path: str, patterns: Patterns) -> bool:
  """Tells whether a name fits one of some patterns.

  >>> fits('encoder/conv/kernel', 'encoder'), fits('head/bias', ('*kernel',))
  (True, False)
  """
  every = (patterns,) if isinstance(patterns, str) else patterns
  return any(
    fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, p + '/*')
    for p in every
  )


def thaw(paths: Iterable[str], frozen: Patterns) -> list[str]:
  """Lists the parameters that train.

  Args:
    paths: of all parameters.
    frozen: patterns of those that never do.

  Raises:
    InputError: a pattern that fits nothing, or nothing is left.
  """
  every = list(paths)
  for pattern in (frozen,) if isinstance(frozen, str) else frozen:
    used(pattern, every, 'frozen')
  found = [path for path in every if not fits(path, frozen)]
  if not found:
    raise InputError(
      f'a model of {len(every)} parameters of which none trains',
      'one that does at least',
      'freeze fewer of them',
    )
  return found


def divide(
  paths: Sequence[str], blocks: Mapping[str, Patterns] | None
) -> dict[str, str]:
  """Finds the block of each parameter, {path: name of the block}.

  Args:
    paths: of the parameters that train.
    blocks: {name: patterns}; None: a block per child of the model.

  Raises:
    InputError: a pattern that fits nothing, blocks that share a parameter, or
      parameters of no block.
  """
  if blocks is None:
    return {path: path.partition('/')[0] for path in paths}
  for patterns in blocks.values():
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
      used(pattern, paths, 'blocks')
  found = {}
  for path in paths:
    own = [name for name, p in blocks.items() if fits(path, p)]
    if len(own) > 1:
      raise InputError(
        f'the parameter {path} in the blocks {" and ".join(own)}',
        'every parameter in one block',
        'make the patterns of one of them narrower',
      )
    if not own:
      raise InputError(
        f'the parameter {path} in no block',
        'every parameter in one block',
        'add a block with a pattern that fits it, or freeze it',
      )
    found[path] = own[0]
  return found


def used(pattern: str, paths: Sequence[str], where: str) -> None:
  """Refuses a pattern that fits none of some names.

  Raises:
    InputError: it does not.
  """
  if not any(fits(path, pattern) for path in paths):
    shown = ', '.join(paths[:6]) + (', ...' if len(paths) > 6 else '')
    raise InputError(
      f'the pattern {pattern!r} of {where}, which fits no parameter',
      f'one that fits some of {shown}',
      'correct the pattern',
    )
