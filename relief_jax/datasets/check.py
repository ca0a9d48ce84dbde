"""Describes data of your own, and their faults. **Ours**."""

from pathlib import Path

import numpy as np

from relief_jax.datasets import csv, losses, npz, signals, texts
from relief_jax.datasets.windows import Windows, validate
from relief_jax.scoring import targets

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


def of_windows(windows: Windows) -> list[str]:
  """Describes samples of a table, texts and the like, a line each."""
  y, kind = windows.y, windows.targets
  size, test = len(y), windows.official_test
  persons, count = np.unique(windows.subject, return_counts=True)
  lines = [
    f'samples     {size}, held out {0 if test is None else test.mean():.1%}',
    *(f'{m:<12}{list(x.shape[1:])}' for m, x in windows.x.items()),
    f'clients     {len(persons)}, of {count.min()} to {count.max()} samples',
  ]
  if kind == targets.TOKENS:
    return [
      *lines,
      f'tokens      {(y >= 0).sum()} of a vocabulary of {len(windows.classes)}',
    ]
  if kind == targets.NUMBERS:
    return [
      *lines,
      *(
        f'{name:<12}{v.mean():.4g} ± {v.std():.4g}, {v.min():.4g} to '
        f'{v.max():.4g}'
        for name, v in zip(windows.classes, y.T, strict=True)
      ),
    ]
  if windows.text:
    there = sum((x >= 0).sum() for x in windows.x.values())
    known = len(windows.vocabulary)
    lines.append(f'tokens      {there} of a vocabulary of {known}')
  count = np.bincount(y, minlength=len(windows.classes))
  return [
    *lines,
    f'classes     {len(windows.classes)}',
    *(
      f'  {name:<10}{number} samples, {number / size:.1%}'
      for name, number in zip(windows.classes, count.tolist(), strict=True)
    ),
  ]


def oddities(windows: Windows) -> list[str]:
  """Lists faults and oddities of samples, a line each; empty without any."""
  found = list(windows.notes)
  for name, x in windows.x.items():
    if x.dtype.kind == 'f':
      spread = np.ptp(x.reshape(-1, x.shape[-1]), axis=0)
      flat = np.flatnonzero(spread == 0).tolist()
      found += [f'column {i} of {name} is constant' for i in flat]
  if windows.targets == targets.CLASSES:
    count = np.bincount(windows.y, minlength=len(windows.classes))
    for name, size in zip(windows.classes, count.tolist(), strict=True):
      if not size:
        found.append(f'class {name} never occurs')
      elif size < _RARE * count.mean():
        found.append(f'class {name} is rare: {size / count.sum():.1%}')
  elif windows.targets == targets.NUMBERS:
    found += [
      f'{name} has a deviation of {v.std():.3g}: a squared error of numbers '
      'far from 1 trains badly, scale it'
      for name, v in zip(windows.classes, windows.y.T, strict=True)
      if not 0.05 < v.std() < 20
    ]
  if len(np.unique(windows.subject)) < 2:
    found.append('one client only: set --config.partition=dirichlet')
  return found


def tell(
  path: Path,
  channels: str = '',
  max_gap: float = 0.5,
  width: int = 1,
  label: str = 'label',
  client: str = '',
) -> bool:
  """Prints what data hold; tells whether nothing in them wants a look.

  Args:
    path: of an .npz or .csv file, or of a folder of texts.
    channels: of the modalities, as `npz.read` takes them.
    max_gap: seconds of NaN that are interpolated.
    width: samples in a window, characters of a text.
    label: of a .csv, the column that is predicted.
    client: of a .csv, the column of whose row it is.

  Raises:
    InputError: data that cannot be used.
  """
  if path.is_dir():
    own: npz.Own | Windows = texts.read(path, width)
  elif path.suffix == '.csv':
    own = csv.read(path, label, client, channels)
  else:
    own = npz.read(path, channels)
  if isinstance(own, Windows):
    validate(own)
    lines, found = of_windows(own), oddities(own)
  else:
    lines, found = report(own), problems(own, max_gap, width)
  print('\n'.join(lines))
  for line in found:
    print(f'! {line}')
  print(f'{len(found)} things to look at' if found else 'nothing wrong')
  return not found
