"""Cuts, checks and scales windows of sensor data, for every data set.

A data set is a pile of fixed-length windows cut inside continuous recordings
("runs"), or of other arrays of one shape: images, rows of a table, texts. Where
a window came from travels with it, so that a split can be proven to share no
raw sample. All of this is **ours**; numpy on the host.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relief_jax.errors import InputError
from relief_jax.scoring import targets

# Windows handled at once by the passes below: keeps their copies small.
_BLOCK = 1024


class Windows(NamedTuple):
  """Holds labelled windows of every modality, in the same order.

  Attributes:
    x: {modality: [windows, time, channels]} float32, physical units; or
      [samples, ..., channels] of another rank, say images, or rows of a table;
      of texts [windows, T] int32 tokens, of one modality; where a text has a
      class, below 0 for none.
    y: [windows] int32, class from 0; [windows, T] int32, tokens that follow,
      below 0 for none; [windows, D] float32, numbers (scoring/targets.py).
    subject: [windows] int32, the data set's own number, from 1.
    run: [windows] int32, id of the continuous recording.
    start: [windows] int64, first raw sample of the window in its subject's
      recording; two windows of a subject share samples exactly if their
      starts are less than `width` apart.
    classes: names of the classes, of the tokens, or of the numbers.
    rate: sampling rate in Hz.
    width: samples in a window, tokens of a text; of other arrays 1.
    official_test: [windows] bool, the test part that the data set's authors
      chose; None where they chose none.
    title: of the data set wherever results are shown: its name, with what
      a reader of the results has to know of these files.
    notes: what of the recordings gave no window, a sentence each.
    people: names of persons, by number; of those that have one.
    vocabulary: names of the tokens of texts that have a class; () else.
  """

  x: dict[str, NDArray]
  y: NDArray
  subject: NDArray
  run: NDArray
  start: NDArray
  classes: tuple[str, ...]
  rate: float
  width: int
  official_test: NDArray | None = None
  title: str = ''
  notes: tuple[str, ...] = ()
  people: Mapping[int, str] = {}
  vocabulary: tuple[str, ...] = ()

  @property
  def targets(self) -> str:
    """Kind of `y`."""
    return targets.kind(self.y)

  @property
  def text(self) -> bool:
    """Whether inputs are tokens."""
    return bool(self.vocabulary) or self.targets == targets.TOKENS


def cut(
  run_start: NDArray, run_length: NDArray, width: int, stride: int
) -> tuple[NDArray, NDArray]:
  """Finds window starts, inside runs only: none crosses from one to the next.

  >>> cut(np.array([0, 10]), np.array([10, 7]), width=4, stride=3)
  (array([ 0,  3,  6, 10, 13]), array([0, 0, 0, 1, 1]))

  Args:
    run_start: [runs] first sample of every run.
    run_length: [runs] samples in every run; a run shorter than `width` gives
      no window.
    width: samples in a window.
    stride: samples between window starts.

  Returns:
    start [windows] int64, sample at which each window starts, and run
    [windows] int64, the number of its run.
  """
  length = np.asarray(run_length, np.int64)
  count = np.where(length < width, 0, (length - width) // stride + 1)
  run = np.repeat(np.arange(len(count)), count)
  first = np.cumsum(count) - count
  rank = np.arange(len(run)) - first[run]
  return np.asarray(run_start, np.int64)[run] + rank * stride, run


def gather(signal: NDArray, start: NDArray, out: NDArray) -> None:
  """Copies the windows that start at `start` out of a recording.

  Args:
    signal: [samples, channels].
    start: [windows] int64, from `cut`.
    out: [windows, width, channels], written; the same dtype as `signal`.
  """
  offset = np.arange(out.shape[1])
  for low in range(0, len(start), _BLOCK):
    block = slice(low, low + _BLOCK)
    # mode='clip' lets take write into `out` without a buffer of its own;
    # the indices are in range by construction.
    np.take(
      signal, start[block, None] + offset, axis=0, out=out[block], mode='clip'
    )


def validate(windows: Windows) -> None:
  """Refuses windows that no run can use, where data enter.

  Raises:
    InputError: shapes that disagree, labels or tokens out of range, no window
      at all, a rate that is no frequency, or a number that is not finite (names
      the modality, the first such window, its subject and the share of bad
      numbers in the modality).
  """
  count = len(windows.y)
  if not count or not windows.x:
    raise InputError(
      f'{count} windows of {len(windows.x)} modalities',
      'at least one window and one modality',
      'lower --config.data.width, or check the data folder',
    )
  if not 0 < windows.rate < math.inf:
    raise InputError(
      f'a sampling rate of {windows.rate}', 'Hz above 0', 'correct the rate'
    )
  for name in ('subject', 'run', 'start', 'official_test'):
    value = getattr(windows, name)
    shape = (count,) if value is None else value.shape
    if shape != (count,):
      raise InputError(
        f'{name} of shape {shape}',
        f'({count},), one entry per window',
        'the loader of this data set is wrong: mend it',
      )
  _validate_targets(windows)
  for name, x in windows.x.items():
    shape = (count, windows.width)[: 2 if x.ndim == 3 else 1]
    text = windows.targets == targets.TOKENS
    if windows.vocabulary:
      _validate_text(windows, name, x)
      continue
    if text and x.dtype.kind in 'iu' and x.shape == windows.y.shape:
      _in_range(windows, x, 0, 'token')
      continue
    if text or x.ndim < 2 or x.shape[: len(shape)] != shape:
      raise InputError(
        f'{name} of shape {x.shape}' + (f', {x.dtype}' if text else ''),
        f'ints {windows.y.shape}, as the tokens that follow'
        if text
        else f'({", ".join(map(str, shape))}, ..., channels)',
        'the loader of this data set is wrong: mend it',
      )
    _finite(name, x, windows.subject)


def _validate_text(windows: Windows, name: str, x: NDArray) -> None:
  """Refuses texts that have a class but are no tokens of the vocabulary."""
  kind, shape = windows.targets, (len(windows.y), windows.width)
  if kind != targets.CLASSES or x.dtype.kind not in 'iu' or x.shape != shape:
    raise InputError(
      f'a vocabulary with {name} of {x.dtype}, shape {x.shape}, and targets '
      f'that are {kind}',
      'ints [n, T] with a class each; where tokens are predicted, `classes` '
      'are the vocabulary',
      'correct x or y, or leave the vocabulary out',
    )
  _in_range(windows, x, None, 'token', windows.vocabulary)
  if (x < 0).all(-1).any():
    raise InputError(
      f'no token in text {(x < 0).all(-1).argmax()}',
      'one at least, from 0',
      'leave such texts out',
    )


def _validate_targets(windows: Windows) -> None:
  """Refuses targets that no loss can be computed of."""
  y, kind = windows.y, windows.targets
  if y.ndim != (1 if kind == targets.CLASSES else 2):
    raise InputError(
      f'y of {y.dtype} and shape {y.shape}',
      'classes, ints [n]; tokens, ints [n, T]; or numbers, floats [n, D]',
      'the loader of this data set is wrong: mend it',
    )
  if kind == targets.NUMBERS:
    if y.shape[1] != len(windows.classes):
      raise InputError(
        f'{len(windows.classes)} names of y of shape {y.shape}',
        'a name for every column',
        'the loader of this data set is wrong: mend it',
      )
    _finite('y', y, windows.subject)
  elif kind == targets.TOKENS:
    _in_range(windows, y, None, 'token')
    if (y < 0).all(-1).any():
      raise InputError(
        f'no token to predict in window {(y < 0).all(-1).argmax()}',
        'one at least in every window',
        'drop such windows before loading',
      )
  else:
    _in_range(windows, y, 0, 'label')


def _in_range(
  windows: Windows,
  values: NDArray,
  least: int | None,
  name: str,
  known: tuple[str, ...] = (),
) -> None:
  """Refuses numbers that are none of the classes, or of those `known`."""
  most = len(known or windows.classes) - 1
  wrong = values > most
  if least is not None:
    wrong |= values < least
  if wrong.any():
    first, *_ = np.argwhere(wrong)[0].tolist()
    raise InputError(
      f'{name} {values[first][wrong[first]].flat[0]} in window {first} of '
      f'subject {windows.subject[first]}',
      f'a class from 0 to {most}'
      if name == 'label'
      else f'a token from 0 to {most}, the vocabulary',
      'let the loader number its classes from 0',
    )


def _finite(name: str, x: NDArray, subject: NDArray) -> None:
  """Raises InputError if `x` [windows, ..., channels] holds NaN or inf."""
  bad = np.zeros(len(x), np.int64)
  for low in range(0, len(x), _BLOCK):
    finite = np.isfinite(x[low : low + _BLOCK])
    if not finite.all():
      bad[low : low + _BLOCK] = (~finite).reshape(len(finite), -1).sum(1)
  if bad.any():
    first = int((bad > 0).argmax())
    share = bad.sum() / x.size
    raise InputError(
      f'{name}: window {first} of subject {subject[first]} has {bad[first]} '
      f'numbers that are NaN or infinite, {share:.2%} of the modality',
      'finite numbers',
      'interpolate the gaps, or drop the windows, before loading',
    )


def zscore(
  windows: Windows, rows_by_modality: dict[str, NDArray]
) -> tuple[dict[str, NDArray], dict[str, NDArray], dict[str, NDArray]]:
  """Standardises every channel by its mean and deviation on given rows.

  The rows are the training windows of the devices that own the modality: a
  rare sensor is scaled by what its owners see, and never by test data.

  Tokens stay as they are.

  A channel that is constant on those rows (deviation at most 1e-6 of its
  mean, that is float32 rounding) is divided by 1: it becomes 0 there instead
  of amplified rounding.

  Args:
    windows: in physical units; left as they are.
    rows_by_modality: {modality: [rows] ints} for every modality.

  Returns:
    x {modality: [windows, ..., channels]} float32 without unit, mean and std
    {modality: [channels]} float32 in physical units.

  Raises:
    InputError: a modality that no row is given for.
  """
  out: dict[str, NDArray] = {}
  means: dict[str, NDArray] = {}
  stds: dict[str, NDArray] = {}
  for name, x in windows.x.items():
    rows = np.asarray(rows_by_modality.get(name, ()), np.int64)
    if not len(rows):
      raise InputError(
        f'no training window for {name}: no device owns it',
        'at least one device per modality',
        'raise --config.clients, or take a fleet with that sensor',
      )
    if x.dtype.kind in 'iu':
      out[name] = x.astype(np.int32)
      means[name], stds[name] = np.zeros(1, np.float32), np.ones(1, np.float32)
      continue
    mean, std = _moments(x, rows)
    scaled = np.empty(x.shape, np.float32)
    for low in range(0, len(x), _BLOCK):
      block = slice(low, low + _BLOCK)
      np.subtract(x[block], mean, out=scaled[block])
      scaled[block] /= std
    out[name], means[name], stds[name] = scaled, mean, std
  return out, means, stds


def _moments(x: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
  """Computes mean and deviation [channels] of `x[rows]` over rows and time.

  float32.
  """
  x = x.reshape(len(x), -1, x.shape[-1])
  # Shifted by one value per channel: a constant channel then has deviation 0
  # to the bit, and a large mean costs no precision.
  shift = x[rows[0], 0]
  total = np.zeros(x.shape[2])
  square = np.zeros(x.shape[2])
  for low in range(0, len(rows), _BLOCK):
    part = x[rows[low : low + _BLOCK]] - shift
    total += part.sum(1).sum(0, dtype=np.float64)
    square += np.einsum('wtc,wtc->wc', part, part).sum(0, dtype=np.float64)
  size = len(rows) * x.shape[1]
  mean = total / size
  std = np.sqrt(np.maximum(square / size - mean**2, 0.0))
  mean += shift
  std = np.where(std <= 1e-6 * np.abs(mean), 1.0, std)
  return mean.astype(np.float32), std.astype(np.float32)
