"""Cuts continuous recordings into windows, for every data set. **Ours.**

A loader parses files into recordings, a person each; resampling, cutting and
the numbering of samples, which splits rely on, are done here for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import cache, losses, signals
from relief_jax.datasets.windows import Windows, cut, gather
from relief_jax.engine import machine
from relief_jax.errors import InputError

# Output samples that the filter of `resample` reaches to either side.
REACH = 10


class Recording(NamedTuple):
  """Holds labelled continuous runs, ascending and apart from each other.

  Attributes:
    x: [channels, samples] float32 in physical units, or int16 steps.
    scale: [channels], physical value of a step; None for float32.
    run_start: [runs], first sample of each run.
    run_length: [runs], samples in each run.
    run_label: [runs], class from 0.
    run_subject: [runs], the data set's own number of the person.
    rate: in Hz.
    run_test: [runs] bool, the data set's own test part; None: it has none.
    whole: [stretches, 3], samples, class and person of every stretch of one
      label, also where values are missing; None: of the runs. No sample and
      class -1 for a person without a label.
    lacking: [channels], share of the labelled samples without a value; None:
      all have one.
  """

  x: NDArray
  scale: NDArray | None
  run_start: NDArray
  run_length: NDArray
  run_label: NDArray
  run_subject: NDArray
  rate: float
  run_test: NDArray | None = None
  whole: NDArray | None = None
  lacking: NDArray | None = None


def physical(recording: Recording, channels: Sequence[int]) -> NDArray:
  """Gives [samples, channels] float32, time first: a window is one copy."""
  x = recording.x[list(channels)]
  if recording.scale is not None:
    x = x * recording.scale[list(channels)].astype(np.float32)[:, None]
  return np.ascontiguousarray(x.T)


def resample(recording: Recording, rate: float) -> Recording:
  """Resamples the recording to a lower rate, low-passed first.

  Every run by itself, with `scipy.signal.resample_poly`, whose filter reaches
  `REACH` output samples to either side: nothing leaks from one run to the
  next, and little beyond a window's ends.

  Args:
    recording: as recorded.
    rate: in Hz; 0, or the recording's own, leaves it as it is.

  Returns:
    Recording of float32; runs shorter than one sample are left out.

  Raises:
    InputError: a rate above the recorded one, or no simple fraction of it.
  """
  if rate in (0, recording.rate):
    return recording
  from scipy import signal  # slow to import, rarely used

  factor = Fraction(rate / recording.rate).limit_denominator(1000)
  wrong = abs(float(factor) * recording.rate - rate) > 1e-3 * rate
  if wrong or factor > 1:
    raise InputError(
      f'config.data.rate is {rate} where {recording.rate} was recorded',
      'a lower rate, the ratio of whole numbers up to 1000',
      f'set --config.data.rate={recording.rate / 2:g}, or 0 to leave it',
    )
  up, down = factor.numerator, factor.denominator
  begin = recording.run_start.astype(np.int64)
  # No sample outside its run: resample_poly rounds the length up.
  length = recording.run_length.astype(np.int64) * up // down
  start = np.cumsum(length) - length
  x = np.empty((len(recording.x), int(length.sum())), np.float32)
  for run, at in enumerate(begin):
    piece = recording.x[:, at : at + int(recording.run_length[run])]
    piece = piece.astype(np.float32)
    if recording.scale is not None:
      piece *= recording.scale.astype(np.float32)[:, None]
    new = signal.resample_poly(piece, up, down, axis=1, padtype='line')
    low = start[run]
    x[:, low : low + length[run]] = new[:, : length[run]]
  kept = length > 0
  whole = recording.whole
  if whole is not None:
    whole = np.concatenate([whole[:, :1] * up // down, whole[:, 1:]], 1)
  return recording._replace(
    x=x,
    scale=None,
    run_start=start[kept],
    run_length=length[kept],
    run_label=recording.run_label[kept],
    run_subject=recording.run_subject[kept],
    rate=rate,
    whole=whole,
    run_test=None if recording.run_test is None else recording.run_test[kept],
  )


def labelled(
  x: NDArray,
  label: NDArray,
  subject: int,
  rate: float,
  breaks: NDArray | None = None,
) -> Recording:
  """Selects the usable part of a recording: labelled samples without NaN.

  Args:
    x: [channels, samples].
    label: [samples] ints, class from 0, below 0 for none.
    subject: whose it is.
    rate: in Hz.
    breaks: [samples] bool, whether time jumps before a sample.

  Returns:
    Recording of float32; each run has one label and no hole.
  """
  missing, known = np.isnan(x), label >= 0
  valid = known & ~missing.any(0)
  start, length = signals.runs(label, valid, breaks)
  first, whole = signals.runs(label, known, breaks)
  return Recording(
    x=x[:, valid].astype(np.float32),
    scale=None,
    run_start=np.cumsum(length) - length,
    run_length=length,
    run_label=label[start].astype(np.int32),
    run_subject=np.full(len(start), subject, np.int32),
    rate=rate,
    whole=np.stack([whole, label[first], np.full(len(first), subject)], 1)
    if len(first)
    else np.array([[0, -1, subject]]),
    lacking=missing[:, known].mean(1) if known.any() else None,
  )


def kept(
  label: str,
  data: Sequence[bytes],
  options: Mapping[str, Any],
  build: Callable[[], Recording],
) -> Recording:
  """Reads a parsed recording from the cache, else builds and keeps it there.

  Args:
    label: of the data set.
    data: the bytes of its sources.
    options: plain values that change what `build` makes of them.
    build: parses; its recording is of float32.
  """

  def pack() -> dict[str, NDArray]:
    found = build()._asdict()
    return {k: np.asarray(v) for k, v in found.items() if v is not None}

  name = f'{label}-{cache.key(data, options)}'
  fields = cache.arrays(name, pack)
  rate = float(fields.pop('rate'))
  return Recording(scale=None, rate=rate, **fields)


def every(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
  """Maps over files with a few threads: parsing lets go of Python's lock."""
  with ThreadPoolExecutor(min(len(items), machine.cores(), 4)) as pool:
    return list(pool.map(function, items))


def to_windows(
  recordings: Sequence[Recording],
  modalities: Mapping[str, Sequence[int]],
  classes: tuple[str, ...],
  config: ml_collections.ConfigDict,
  people: Mapping[int, str] | None = None,
) -> Windows:
  """Cuts recordings into windows.

  Samples are counted per recording; where one person has several, they are
  counted on, so that no two samples of a person have the same number.

  Args:
    recordings: of one rate and the same channels.
    modalities: {modality: its channels' numbers}.
    classes: names of the classes.
    config: `data.width` and `data.stride` are used.
    people: names of persons that have one, by number.

  Returns:
    Windows, float32, in the units of the recordings.

  Raises:
    InputError: windows longer than every run; names the sensors that lack
      values where that is why.
  """
  width, stride = config.data.width, config.data.stride
  cuts = [cut(r.run_start, r.run_length, width, stride) for r in recordings]
  counts = [len(start) for start, _ in cuts]
  if not sum(counts):
    longest = max(int(r.run_length.max(initial=0)) for r in recordings)
    if why := losses.blame(recordings, modalities):
      raise InputError(
        f'no {width} samples in a row with values of all sensors: missing are '
        f'those of {", ".join(why)}',
        'a value of every sensor at every sample, or short gaps',
        'interpolate longer gaps (--config.data.max_gap, in s), bring a slow '
        'sensor to the common rate, leave it out (npz: '
        '--config.data.channels), or lower --config.data.width',
      )
    raise InputError(
      f'config.data.width is {width}',
      f'at most the {longest} samples of the longest run',
      'lower --config.data.width',
    )
  x = {
    name: np.empty((sum(counts), width, len(channels)), np.float32)
    for name, channels in modalities.items()
  }
  ends = np.cumsum(counts)

  def fill(number: int) -> None:
    recording = recordings[number]
    for name, channels in modalities.items():
      low, high = ends[number] - counts[number], ends[number]
      signal = physical(recording, channels)
      gather(signal, cuts[number][0], x[name][low:high])

  with ThreadPoolExecutor(min(len(recordings), machine.cores())) as pool:
    list(pool.map(fill, range(len(recordings))))
  pairs = list(zip(recordings, cuts, strict=True))
  runs = np.cumsum([0] + [len(r.run_start) for r in recordings])
  official = recordings[0].run_test is not None
  return Windows(
    x=x,
    y=np.concatenate([r.run_label[k] for r, (_, k) in pairs]).astype(np.int32),
    subject=np.concatenate([r.run_subject[k] for r, (_, k) in pairs]).astype(
      np.int32
    ),
    run=np.concatenate(
      [k + n for n, (_, k) in zip(runs, cuts, strict=False)]
    ).astype(np.int32),
    start=np.concatenate(
      [
        start + offset
        for (start, _), offset in zip(cuts, _offsets(recordings), strict=True)
      ]
    ),
    classes=classes,
    rate=recordings[0].rate,
    width=width,
    official_test=np.concatenate(
      [np.asarray(r.run_test, bool)[k] for r, (_, k) in pairs]
    )
    if official
    else None,
    notes=losses.notes(
      recordings, modalities, classes, width, stride, people or {}
    ),
    people=dict(people or {}),
  )


def _offsets(recordings: Sequence[Recording]) -> list[int]:
  """Computes sample number offsets per recording: 0 but for a second one."""
  next_free: dict[int, int] = {}
  offsets = []
  for recording in recordings:
    persons = np.unique(recording.run_subject).tolist()
    offset = max((next_free.get(p, 0) for p in persons), default=0)
    for person in persons:
      next_free[person] = offset + recording.x.shape[1]
    offsets.append(offset)
  return offsets
