"""What the runs of a label differ in: seeds, folds, or seeds within folds.

A run's folder is named after its numbers: `seed_3`, `fold_1`, or
`fold_1_seed_3` where every fold is run with several seeds. **Ours.**
"""

import pathlib
import re
from collections.abc import Mapping

from relief_jax.storage import job_spec

_NAME = re.compile(r'(?:seed|fold)_(\d+)(?:_seed_(\d+))?')


def folder_name(numbers: Mapping[str, int]) -> str:
  """Names the folder of a run.

  Args:
    numbers: config key -> number; where there are two, the second is the seed.

  >>> folder_name({'data.fold': 1, 'seed': 3})
  'fold_1_seed_3'
  """
  return '_'.join(f'{job_spec.over(key)}_{n}' for key, n in numbers.items())


def numbers_of(name: str) -> tuple[int, int] | None:
  """Reads the numbers in a folder's name; None where it has none.

  Args:
    name: of a run's folder.

  Returns:
    The seed or fold, and the seed within the fold (0 without such).

  >>> numbers_of('seed_3'), numbers_of('fold_1_seed_3'), numbers_of('run')
  ((3, 0), (1, 3), None)
  """
  found = _NAME.fullmatch(name)
  return (int(found[1]), int(found[2] or 0)) if found else None


def label_of(path: pathlib.PurePath) -> str:
  """Names what a run is compared as: its path without the numbers.

  >>> label_of(pathlib.PurePosixPath('lr=0.1/relief/seed_3'))
  'lr=0.1/relief'

  Args:
    path: of the run's folder, from that of all runs.
  """
  return (path.parent if numbers_of(path.name) else path).as_posix()
