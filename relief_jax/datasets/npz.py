"""Reads your own data: `--config.dataset=npz --config.data_path=FILE`.

    np.savez('mine.npz', x=x, y=y, subject=subject, rate=50.0,
             modality=['acc', 'acc', 'acc', 'ecg'])

Either windows or continuous recordings; images and the like as windows:

    key           windows                    continuous
    x             [windows, time, channels]  [samples, channels] numbers
    y             [windows]                  [samples] labels: names, or ints
    subject       [windows]                  [samples] persons: names, or ints
    rate          one number, Hz
    modality      [channels] names: which modality each channel belongs to
    channels      [channels] names, optional
    classes       [classes] names, optional; y then counts from 0
    run           [windows] ints, optional   [samples] ints, optional
    start         [windows] ints, optional: first sample, see windows.py
    official_test [windows] bool, optional   [samples] bool, optional

An x of more axes, [samples, height, width, channels] say, is taken like windows
that share nothing; `rate` may be left out, and `config.data.width` means
nothing. Without `rate` an x [samples, columns] is a table, y [windows] or
[windows, D] of floats are numbers to predict, and ints [windows, T] for an x of
such are tokens (arrays.py): there `subject` and `modality` may be left out.
With `vocabulary`, names of the tokens or their number, an x of ints
[windows, T] is texts with a class each; below 0 is no token.

An int label below 0 or an empty name is no label: the sample is left out. In
continuous data a change of person, label or `run` ends a run; NaN of up to
`data.max_gap` seconds are interpolated, longer ones cut. Windows are used as
they are; without `start` they are taken to share no sample.

`--config.data.channels='acc=ax,ay,az;ecg=3'` (channels.py) replaces `modality`.
`relief check-data FILE` tells what a file holds.
No pickles. The schema is **ours**.
"""

from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import arrays, npz_fields, signals
from relief_jax.datasets.recording import (
  Recording,
  labelled,
  resample,
  to_windows,
)
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.files import paths

_NEEDED = ('x', 'y', 'subject', 'rate')
_PER_ROW = ('y', 'subject', 'run', 'start', 'official_test')


class Own(NamedTuple):
  """Holds a file's content, checked, in numbers.

  Attributes:
    x: [windows, time, channels] or [samples, channels] float32, or of more
      axes, channels last.
    label: [rows] int64, class from 0; below 0 for none.
    subject: [rows] int64.
    run: [rows] int64.
    start: [windows] int64, None if not given or continuous.
    official_test: [rows] bool or None.
    rate: in Hz.
    modalities: {modality: channel numbers}.
    channels: names of the channels.
    classes: names of the classes.
    subjects: {number: name} of persons that were named.
  """

  x: NDArray
  label: NDArray
  subject: NDArray
  run: NDArray
  start: NDArray | None
  official_test: NDArray | None
  rate: float
  modalities: dict[str, list[int]]
  channels: tuple[str, ...]
  classes: tuple[str, ...]
  subjects: dict[int, str]


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads the windows of the file `config.data_path`.

  Args:
    config: `data_path`, `data.channels`, and for continuous data
      `data.max_gap`, `data.rate`, `data.width`, `data.stride`.
    root: not used.

  Returns:
    Windows, float32, in the file's units.

  Raises:
    InputError: no such file, arrays that do not fit together, or options that
      windows cannot follow.
  """
  del root
  path = Path(paths.expand(config.data_path, 'config.data_path'))
  own = read(path, config.data.channels)
  if isinstance(own, Windows):
    return own
  if own.x.ndim >= 3:
    return _ready(own, config)
  every = [
    resample(one, config.data.rate)
    for one in recordings(own, config.data.max_gap)
  ]
  return to_windows(every, own.modalities, own.classes, config, own.subjects)


def _plain(path: Path, found: dict[str, Any], channels: str) -> Windows | None:
  """Takes a table, texts, or numbers to predict; None of any other content."""
  if not {'x', 'y'} <= set(found):
    return None
  x, y = found['x'], found['y']
  vocabulary = _vocabulary(path, found)
  timed = 'rate' in found and x.ndim == 2 and not vocabulary
  if timed or not (x.ndim == 2 or y.ndim == 2 or y.dtype.kind == 'f'):
    return None
  parts: dict[str, Any] = {'text': x}
  if not vocabulary and (x.dtype.kind == 'f' or y.ndim < 2):
    size = x.shape[-1]
    if 'modality' not in found:
      found['modality'] = np.full(size, 'input')
    names = npz_fields.names(path, found, size)
    split = npz_fields.modalities(path, found, names, channels)
    parts = {m: x[..., numbers] for m, numbers in split.items()}
  classes = found.get('classes', np.zeros(0, str)).astype(str).tolist()
  return arrays.windows(
    parts,
    y,
    found.get('subject'),
    npz_fields.truths(path, found, 'official_test'),
    classes,
    vocabulary=vocabulary,
  )


def _vocabulary(path: Path, found: dict[str, Any]) -> tuple[str, ...] | int:
  """Reads names of tokens, or how many there are; () where x is no texts."""
  value = found.get('vocabulary', np.zeros(0, str))
  if value.size == 1 and value.dtype.kind in 'iu' and value.flat[0] > 0:
    return int(value.flat[0])
  if value.ndim != 1 or value.dtype.kind != 'U':
    raise npz_fields.wrong(
      path,
      f'vocabulary of {value.dtype}, shape {value.shape}',
      'names [V], or one number above 0',
    )
  return tuple(value.tolist())


def read(path: Path, channels: str = '') -> Own | Windows:
  """Reads and checks a file.

  Args:
    path: of the `.npz`.
    channels: `config.data.channels`; '' for the file's own `modality`.

  Returns:
    Windows of a table, texts, or numbers to predict.

  Raises:
    InputError: what is wrong, and how to mend it.
  """
  found = npz_fields.arrays(path)
  if (ready := _plain(path, found, channels)) is not None:
    return ready
  if 'rate' not in found and 'x' in found and found['x'].ndim > 3:
    found = {**found, 'rate': np.ones(1)}
  lacking = [key for key in _NEEDED if key not in found]
  if lacking:
    raise npz_fields.wrong(
      path,
      f'no {lacking[0]!r} among {", ".join(sorted(found)) or "no keys"}',
      ', '.join(_NEEDED),
    )
  x = found['x']
  if x.ndim < 2 or x.dtype.kind not in 'fiu' or not x.size:
    raise npz_fields.wrong(
      path,
      f'x of {x.dtype}, shape {x.shape}',
      'numbers, [windows, time, channels] or [samples, channels], or of more '
      'axes',
    )
  for key in _PER_ROW:
    if key in found and found[key].shape != (len(x),):
      raise npz_fields.wrong(
        path,
        f'{key} of shape {found[key].shape}',
        f'({len(x)},), one per {"window" if x.ndim >= 3 else "sample"}',
      )
  rate = found['rate']
  if rate.size != 1 or rate.dtype.kind not in 'fiu' or not 0 < rate.flat[0]:
    raise npz_fields.wrong(
      path, f'rate {rate.tolist()}', 'one number above 0, in Hz'
    )
  names = npz_fields.names(path, found, x.shape[-1])
  label, classes = npz_fields.labels(path, found)
  subject, subjects = npz_fields.subjects(path, found['subject'])
  return Own(
    x=x.astype(np.float32),
    label=label,
    subject=subject,
    run=npz_fields.ints(path, found, 'run', len(x)),
    start=npz_fields.ints(path, found, 'start', len(x))
    if 'start' in found
    else None,
    official_test=npz_fields.truths(path, found, 'official_test'),
    rate=float(rate.flat[0]),
    modalities=npz_fields.modalities(path, found, names, channels),
    channels=names,
    classes=classes,
    subjects=subjects,
  )


def recordings(own: Own, max_gap: float) -> list[Recording]:
  """Cuts continuous data into labelled runs, person by person.

  Args:
    own: from `read`.
    max_gap: seconds of NaN that are interpolated.
  """
  persons = np.unique(own.subject).tolist()
  return [_person(own, person, max_gap) for person in persons]


def _person(own: Own, person: int, max_gap: float) -> Recording:
  rows = np.flatnonzero(own.subject == person)
  x = np.ascontiguousarray(own.x[rows].T)
  # A channel of no modality has no say in what can be used.
  used = {i for numbers in own.modalities.values() for i in numbers}
  x[sorted(set(range(len(x))) - used)] = 0.0
  breaks = np.diff(rows, prepend=rows[0] - 1) != 1
  breaks[1:] |= np.diff(own.run[rows]) != 0
  tested = own.official_test
  if tested is not None:
    breaks[1:] |= np.diff(tested[rows]) != 0
  edges = np.append(np.flatnonzero(breaks), len(rows))
  # Straight lines only within what was recorded in one go.
  for low, high in zip(np.append(0, edges), edges, strict=False):
    signals.interpolate(x[:, low:high], round(max_gap * own.rate))
  label = own.label[rows]
  found = labelled(x, label, person, own.rate, breaks)
  if tested is None:
    return found
  valid = (label >= 0) & ~np.isnan(x).any(0)
  return found._replace(run_test=tested[rows][valid][found.run_start])


def _ready(own: Own, config: ml_collections.ConfigDict) -> Windows:
  """Builds windows that were cut by the user."""
  timed = own.x.ndim == 3
  width = own.x.shape[1] if timed else 1
  for key, found in (('width', width), ('rate', own.rate)):
    asked = config.data[key]
    if timed and asked != found and not (key == 'rate' and asked == 0):
      raise InputError(
        f'config.data.{key} is {asked}, but {config.data_path} holds windows '
        f'of {found:g}',
        'the same, since windows cannot be cut anew',
        f'set --config.data.{key}={found:g}, or give continuous data',
      )
  if own.start is None and config.data.split == 'time':
    raise InputError(
      f"{config.data_path}: no 'start' for config.data.split=time",
      'the first sample of every window, to tell which of them overlap',
      'add it to the file, or set --config.data.split=folds',
    )
  kept = np.flatnonzero(own.label >= 0)
  kept = kept[np.argsort(own.subject[kept], kind='stable')]
  subject = own.subject[kept]
  if own.start is None:
    _, first, count = np.unique(subject, return_index=True, return_counts=True)
    start = (np.arange(len(kept)) - np.repeat(first, count)) * width
  else:
    start = own.start[kept]
  # Runs of two persons are never one.
  _, run = np.unique(
    np.stack([subject, own.run[kept]]), axis=1, return_inverse=True
  )
  return Windows(
    x={
      name: np.ascontiguousarray(own.x[kept][..., numbers])
      for name, numbers in own.modalities.items()
    },
    y=own.label[kept].astype(np.int32),
    subject=subject.astype(np.int32),
    run=run.reshape(-1).astype(np.int32),
    start=start,
    classes=own.classes,
    rate=own.rate,
    width=width,
    official_test=None
    if own.official_test is None
    else own.official_test[kept],
    people=own.subjects,
    notes=tuple(
      f'person {own.subjects.get(person, person)} gave no window: no label'
      for person in np.setdiff1d(own.subject, subject).tolist()
    ),
  )
