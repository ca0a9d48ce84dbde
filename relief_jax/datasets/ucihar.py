"""UCI-HAR, Human Activity Recognition Using Smartphones: 30 people, 6
activities, a phone at the waist, 50 Hz.

Read from the original `Inertial Signals` of the folders train and test: nine
files of windows, 128 samples a line, each half a window after the last. They
are put together to the recordings that they were cut from, and cut anew: with
`data.width=128 data.stride=64` the original windows come out. Where two windows
overlap but differ in label, the samples that they share stay with the first.
The official split is by person: 21 to train on, 9 to test on.

UCI Machine Learning Repository, https://doi.org/10.24432/C54S4K.
D. Anguita, A. Ghio, L. Oneto, X. Parra, J. L. Reyes-Ortiz, "A Public Domain
Dataset for Human Activity Recognition Using Smartphones", ESANN 2013. Joining
the windows is **ours**.
"""

from pathlib import Path

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import download, parsing
from relief_jax.datasets.channels import choose
from relief_jax.datasets.recording import (
  Recording,
  every,
  kept,
  resample,
  to_windows,
)
from relief_jax.datasets.windows import Windows

RATE = 50.0  # Hz
WIDTH, HALF = 128, 64
CLASSES = (
  'walking',
  'walking_upstairs',
  'walking_downstairs',
  'sitting',
  'standing',
  'laying',
)
CHANNELS = tuple(
  f'{signal}_{axis}'
  for signal in ('total_acc', 'body_acc', 'body_gyro')
  for axis in 'xyz'
)
MODALITIES: dict[str, dict[str, list[int]]] = {
  'sensor': {'acc': list(range(6)), 'gyro': [6, 7, 8]},
  'place': {'waist': list(range(9))},
}
_PERSONS = range(1, 31)


def files(root: Path | None) -> list[Path]:
  """Finds the label files of train and test, none where they are not there."""
  return parsing.find(
    root, ('ucihar', 'UCI HAR Dataset'), 't[re][as]*/y_t[re]*.txt'
  )


def sources(path: Path) -> list[Path]:
  """Lists all files of a part: labels, persons, signals.

  Args:
    path: of the label file, from `files`.

  Raises:
    InputError: copies of one of them.
  """
  part = path.stem.removeprefix('y_')
  found = [
    path,
    path.parent / f'subject_{part}.txt',
    *(path.parent / 'Inertial Signals' / f'{c}_{part}.txt' for c in CHANNELS),
  ]
  parsing.no_copies([one for one in found if one.exists()], path.parent)
  return found


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Cuts UCI-HAR into windows.

  `config.data.modalities` is 'sensor' (acc: total and body acceleration, 6
  channels; gyro: 3) or 'place' (waist: 9).

  Args:
    config: `data.modalities`, `data.channels`, `data.rate`, `data.width`,
      `data.stride`.
    root: folder that holds `ucihar/` or `UCI HAR Dataset/`.

  Returns:
    Windows, [., width, 6 or 3 or 9] float32, in g and rad/s.

  Raises:
    InputError: no files, a file that cannot be used (with its line), a person
      in train and test, or windows longer than every run.
  """
  paths = files(root)
  if not paths:
    raise download.missing('ucihar', root)
  parsing.once(paths, [path.name for path in paths])
  paths.sort(reverse=True)  # train first

  def read(path: Path) -> Recording:
    part = path.stem.removeprefix('y_')
    own = sources(path)
    data = [parsing.read_bytes(source) for source in own]
    options = dict(part=part, rate=config.data.rate)
    return kept(
      'ucihar',
      data,
      options,
      lambda: resample(_parse(own, data, part == 'test'), config.data.rate),
    )

  recordings = every(read, paths)
  seen = [set(r.run_subject.tolist()) for r in recordings]
  both = set.intersection(*seen) if len(seen) > 1 else set()
  if both:
    raise parsing.wrong(
      paths[0].parent.parent,
      f'persons {sorted(both)} in train and test',
      'every person in one of them',
    )
  modalities = choose(
    config.data.channels, CHANNELS, MODALITIES[config.data.modalities]
  )
  return to_windows(recordings, modalities, CLASSES, config)


def _parse(sources: list[Path], data: list[bytes], test: bool) -> Recording:
  """Parses one part, from its labels, persons and nine signals."""
  label, person = (
    parsing.codes(path, parsing.table(path, text, 1, 'spaces')[0], known)
    for path, text, known in zip(
      sources[:2], data[:2], (range(1, len(CLASSES) + 1), _PERSONS), strict=True
    )
  )
  x = np.empty((len(CHANNELS), len(label), WIDTH), np.float32)
  for channel, (path, text) in enumerate(
    zip(sources[2:], data[2:], strict=True)
  ):
    lines = parsing.check(path, text, WIDTH, 'spaces')
    if lines != len(label):
      raise parsing.wrong(
        path, f'{lines} lines', f'{len(label)}, as in {sources[0].name}'
      )
    x[channel] = parsing.table(path, text, WIDTH, 'spaces').T
  if len(person) != len(label):
    raise parsing.wrong(
      sources[1],
      f'{len(person)} lines',
      f'{len(label)}, as in {sources[0].name}',
    )
  return join(x, label - 1, person, test)


def join(x: NDArray, label: NDArray, person: NDArray, test: bool) -> Recording:
  """Puts half-overlapping windows together again.

  Args:
    x: [channels, windows, 128] float32.
    label: [windows], class from 0.
    person: [windows].
    test: whether they are the official test part.

  Returns:
    Recording in which every sample occurs once.
  """
  goes_on = np.zeros(len(label), bool)
  goes_on[1:] = (x[:, 1:, :HALF] == x[:, :-1, HALF:]).all((0, 2))
  goes_on[1:] &= person[1:] == person[:-1]
  new = ~goes_on
  new[1:] |= label[1:] != label[:-1]
  keep = np.stack([~goes_on, np.ones(len(label), bool)], 1)
  halves = x.reshape(len(x), -1, 2, HALF)[:, keep]
  begin = np.flatnonzero(new)
  count = np.add.reduceat(keep.sum(1), begin)
  length = count * HALF
  return Recording(
    x=halves.reshape(len(x), -1),
    scale=None,
    run_start=np.cumsum(length) - length,
    run_length=length,
    run_label=label[begin],
    run_subject=person[begin],
    rate=RATE,
    run_test=np.full(len(begin), test),
  )
