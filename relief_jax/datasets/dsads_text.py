"""Reads DSADS in its original layout: `aXX/pY/sZZ.txt`, 5 s of 125 lines each.

45 columns apart by commas. The segments of a person and activity follow one
another; they are joined to one run, which a segment that is not there cuts.
Some segments end in padding, lines of zeros in all 45 columns, which are no
measurement and are left out (**ours**).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import parsing
from relief_jax.datasets.recording import Recording, every, kept, resample
from relief_jax.errors import InputError

RATE = 25.0  # Hz
COLUMNS, LINES = 45, 125
_PLACE = re.compile(r'a(\d\d)/p(\d)/s(\d\d)\.txt$')


def files(root: Path | None) -> list[Path]:
  """Finds the text files under `root`/dsads, none where they are not there."""
  return parsing.find(root, ('dsads',), 'a[01][0-9]/p[1-8]/s[0-6][0-9].txt')


def read(paths: list[Path], classes: int, rate: float) -> list[Recording]:
  """Reads the files of `files`.

  Args:
    paths: in any order, persons and segments may be missing.
    classes: activities run from 1 to this.
    rate: Hz to resample to, 0 for as recorded.

  Returns:
    One recording per person, [45, samples] float32 in the file's order.

  Raises:
    InputError: a file twice, or one that is not as it should be.
  """
  places = [tuple(map(int, _match(path).groups())) for path in paths]
  parsing.once(paths, places)
  people: dict[int, dict[tuple[int, int], Path]] = {}
  for (activity, person, segment), path in zip(places, paths, strict=True):
    if not 1 <= activity <= classes:
      raise parsing.wrong(path, f'activity {activity}', f'1 to {classes}')
    people.setdefault(person, {})[activity, segment] = path

  def one(person: int) -> Recording:
    own = dict(sorted(people[person].items()))
    data = {key: parsing.read_bytes(path) for key, path in own.items()}
    options = dict(rate=rate, person=person, segments=list(own))
    return kept(
      'dsads',
      list(data.values()),
      options,
      lambda: resample(_parse(person, own, data), rate),
    )

  return every(one, sorted(people))


def _match(path: Path) -> re.Match:
  found = _PLACE.search(path.as_posix())
  assert found, path
  return found


def _parse(
  person: int,
  paths: dict[tuple[int, int], Path],
  data: dict[tuple[int, int], bytes],
) -> Recording:
  """Parses all runs of a person from segments {(activity, segment): ...}."""
  pieces, labels = [], []
  for run in _neighbours(list(paths)):
    for key in run:
      lines = parsing.check(paths[key], data[key], COLUMNS, ',')
      if lines != LINES:
        raise parsing.wrong(paths[key], f'{lines} lines', f'{LINES} lines')
    joined = b''.join(data[key].rstrip() + b'\n' for key in run)
    try:
      x = parsing.table(paths[run[0]], joined, COLUMNS, ',')
    except InputError:
      for key in run:  # which file, and which of its lines
        parsing.table(paths[key], data[key], COLUMNS, ',')
      raise
    pieces.append(x[:, ~_padding(x)])
    labels.append(run[0][0] - 1)
  length = np.array([piece.shape[1] for piece in pieces])
  return Recording(
    x=np.concatenate(pieces, 1).astype(np.float32),
    scale=None,
    run_start=np.cumsum(length) - length,
    run_length=length,
    run_label=np.array(labels, np.int32),
    run_subject=np.full(len(labels), person, np.int32),
    rate=RATE,
  )


def _neighbours(
  keys: list[tuple[int, int]],
) -> Iterator[list[tuple[int, int]]]:
  """Finds stretches of segments without a gap, of one activity each."""
  run: list[tuple[int, int]] = []
  for activity, segment in keys:
    if run and run[-1] != (activity, segment - 1):
      yield run
      run = []
    run.append((activity, segment))
  yield run


def _padding(x: NDArray) -> NDArray:
  """Marks the lines of zeros at the end of each segment, [samples] bool."""
  zero = (x == 0).all(0).reshape(-1, LINES)
  return np.logical_and.accumulate(zero[:, ::-1], 1)[:, ::-1].ravel()
