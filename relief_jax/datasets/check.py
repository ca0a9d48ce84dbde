"""Describes a file of your own data (`npz.py`), and its faults. **Ours**."""

from pathlib import Path

import numpy as np

from relief_jax.datasets import losses, npz, signals

_RARE = 0.2  # of the mean class size
_PAIRS = 50  # neighbouring windows looked at


def report(own: npz.Own) -> list[str]:
  """Describes a file's content, a line each."""
  if own.x.ndim > 3:
    shape = f'{len(own.x)} samples of shape {list(own.x.shape[1:])}'
  elif own.x.ndim == 3:
    shape = f'{len(own.x)} windows of {own.x.shape[1]} samples'
  else:
    hours = len(own.x) / own.rate / 3600
    shape = f'continuous, {len(own.x)} samples ({hours:.2f} h)'
  used = own.label >= 0
  lines = [
    f'layout      {shape} at {own.rate:g} Hz',
    f'labelled    {used.mean():.1%}',
    f'NaN         {np.isnan(own.x).mean():.3%}',
    f'modalities  {len(own.modalities)}',
  ]
  for name, numbers in own.modalities.items():
    names = ', '.join(own.channels[i] for i in numbers)
    bad = np.isnan(own.x[..., numbers]).mean()
    lines.append(
      f'  {name:<10}{len(numbers)} channels ({names}), NaN {bad:.3%}'
    )
  unit = 'windows' if own.x.ndim >= 3 else 'samples'
  persons, count = np.unique(own.subject, return_counts=True)
  lines.append(f'subjects    {len(persons)}')
  for person, size in zip(persons.tolist(), count.tolist(), strict=True):
    name = own.subjects.get(person, '')
    lines.append(
      f'  {person:<10}{size} {unit}' + (f' ({name})' if name else '')
    )
  lines.append(f'classes     {len(own.classes)}')
  count = np.bincount(own.label[used], minlength=len(own.classes))
  for name, size in zip(own.classes, count.tolist(), strict=True):
    lines.append(f'  {name:<10}{size} {unit}, {size / count.sum():.1%}')
  return lines


def problems(own: npz.Own, max_gap: float = 0.5, width: int = 1) -> list[str]:
  """Lists faults and oddities of a file, a line each; empty without any.

  Args:
    own: from `npz.read`.
    max_gap: seconds of NaN that are interpolated.
    width: samples in a window, of continuous data; 1: losses are
      counted in samples.
  """
  found = []
  windows = own.x.ndim >= 3
  flat = own.x.reshape(-1, own.x.shape[-1])
  mapped = {i for numbers in own.modalities.values() for i in numbers}
  for i, name in enumerate(own.channels):
    channel = flat[:, i]
    known = channel[np.isfinite(channel)]
    if i not in mapped:
      found.append(f'channel {name} is in no modality')
    if not len(known):
      found.append(f'channel {name} holds no number')
    elif np.ptp(known) == 0:
      found.append(f'channel {name} is constant ({known[0]:g})')
    if np.isinf(channel).any():
      found.append(f'channel {name} holds infinite numbers')
    if windows and np.isnan(channel).any():
      found.append(f'channel {name} holds NaN: fill it, or drop the windows')
    elif not windows:
      begin, end = signals.stretches(np.isnan(channel))
      long = int((end - begin > max_gap * own.rate).sum())
      if long:
        found.append(
          f'channel {name} has {long} gaps above {max_gap:g} s: they cut runs'
        )
  if not windows:
    found += losses.notes(
      npz.recordings(own, max_gap),
      own.modalities,
      own.classes,
      width,
      width,
      own.subjects,
    )
  used = own.label >= 0
  count = np.bincount(own.label[used], minlength=len(own.classes))
  for name, size in zip(own.classes, count.tolist(), strict=True):
    if not size:
      if windows:  # else told above
        found.append(f'class {name} never occurs')
    elif size < _RARE * count.mean():
      found.append(f'class {name} is rare: {size / count.sum():.1%}')
  for person in np.unique(own.subject).tolist():
    seen = np.unique(own.label[(own.subject == person) & used])
    if not len(seen):
      found.append(f'subject {person} has no label')
    elif len(seen) < len(own.classes):
      lacking = len(own.classes) - len(seen)
      found.append(f'subject {person} lacks {lacking} of the classes')
  if len(np.unique(own.subject)) < 2:
    found.append('one subject only: nobody can be held out')
  if own.x.ndim == 3 and own.start is None and _overlap(own):
    found.append(f'windows overlap by {_overlap(own)} samples: add start')
  return found


def _overlap(own: npz.Own) -> int:
  """Counts the samples that most neighbouring windows share; 0 for none."""
  width = own.x.shape[1]
  same = np.flatnonzero(own.subject[1:] == own.subject[:-1])[:_PAIRS]
  for shift in range(1, width):
    tail, head = own.x[same, shift:], own.x[same + 1, : width - shift]
    equal = (tail == head).all((1, 2))
    # A constant signal is equal at every shift.
    moving = np.ptp(tail, axis=1).any(1) if shift < width - 1 else False
    if len(same) and (equal & moving).mean() > 0.5:
      return width - shift
  return 0


def tell(
  path: Path, channels: str = '', max_gap: float = 0.5, width: int = 1
) -> bool:
  """Prints what a file holds; tells whether nothing in it wants a look.

  Args:
    path: of an .npz file.
    channels: of the modalities, as `npz.read` takes them.
    max_gap: seconds of NaN that are interpolated.
    width: samples in a window.

  Raises:
    InputError: a file that cannot be used.
  """
  own = npz.read(path, channels)
  print('\n'.join(report(own)))
  found = problems(own, max_gap, width)
  for line in found:
    print(f'! {line}')
  print(f'{len(found)} things to look at' if found else 'nothing wrong')
  return not found
