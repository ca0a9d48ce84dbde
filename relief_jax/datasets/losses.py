"""Finds the persons and classes that lose windows, and why. **Ours.**

A window needs a value of every sensor and one label from end to end. What
cannot be cut is left out, and said: it is in the warnings of a run.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets.windows import cut

_NOTABLE = 0.1  # of a person's windows
_MOST = 0.5  # of a class's
_SLIGHT = 0.01  # of the samples: a sensor that lacks fewer is not to blame
_NAMED = 12  # persons in a sentence


def notes(
  recordings: Sequence,
  modalities: Mapping[str, Sequence[int]],
  classes: Sequence[str],
  width: int,
  stride: int,
  people: Mapping[int, str],
) -> tuple[str, ...]:
  """Lists the persons and classes that give no window, a sentence each.

  Args:
    recordings: `recording.Recording`s that were not cut yet.
    modalities: {modality: its channels' numbers}.
    classes: names of the classes.
    width: samples in a window.
    stride: samples between window starts.
    people: names of persons that have one.
  """
  could, did = (_count(table, width, stride) for table in _tables(recordings))
  blamed: dict[tuple[str, ...], list[str]] = {}
  short = []
  for person in np.unique(could[:, 2]).tolist():
    mine = could[could[:, 2] == person]
    most = int(mine[:, 3].sum())
    left = int(did[did[:, 2] == person, 3].sum())
    name = people.get(person, str(person))
    if not most:
      short.append(f'{name} ({mine[:, 0].max()} samples)')
    elif most - left > _NOTABLE * most:
      lost = f'{name} ({most - left} of {most}, {1 - left / most:.0%})'
      blamed.setdefault(blame(recordings, modalities, person), []).append(lost)
  found = [
    f'person {_named(who)} lost windows: values are missing of '
    f'{", ".join(why) or "several sensors in turn"}'
    for why, who in blamed.items()
  ]
  if short:
    found.append(
      f'person {_named(short)} gave no window: no label lasts for the {width} '
      'samples of config.data.width'
    )
  for number, name in enumerate(classes):
    mine = could[could[:, 1] == number]
    most, left = mine[:, 3].sum(), did[did[:, 1] == number, 3].sum()
    if left:
      if most - left > _MOST * most:
        found.append(f'class {name!r} lost {most - left} of {most} windows')
      continue
    if not len(mine):
      why = 'it never occurs'
    elif most:
      why = f'all of its {most} windows lack values'
    else:
      why = f'its longest stretch has {mine[:, 0].max()} of {width} samples'
    found.append(f'class {name!r} has no window: {why}')
  return tuple(found)


def blame(
  recordings: Sequence,
  modalities: Mapping[str, Sequence[int]],
  person: int | None = None,
) -> tuple[str, ...]:
  """Lists the sensors that lack values, the worst first, with their share.

  Args:
    recordings: as above.
    modalities: {modality: its channels' numbers}.
    person: whose; None for everybody's.
  """
  total, lacking = 0, {name: 0.0 for name in modalities}
  for recording in recordings:
    if recording.lacking is None or recording.whole is None:
      continue
    if person is not None and person not in recording.whole[:, 2]:
      continue
    size = int(recording.whole[:, 0].sum())
    total += size
    for name, channels in modalities.items():
      lacking[name] += size * recording.lacking[list(channels)].max()
  shares = {k: v / total for k, v in lacking.items() if v > _SLIGHT * total}
  order = sorted(shares, key=lambda name: -shares[name])
  return tuple(f'{name!r} (in {shares[name]:.0%} of samples)' for name in order)


def _tables(recordings: Sequence) -> tuple[NDArray, NDArray]:
  """Tabulates samples, class, person of labelled and of usable stretches."""
  runs = [
    np.stack([r.run_length, r.run_label, r.run_subject], 1).astype(np.int64)
    for r in recordings
  ]
  whole = [
    run if r.whole is None else r.whole
    for r, run in zip(recordings, runs, strict=True)
  ]
  return np.concatenate(whole), np.concatenate(runs)


def _count(table: NDArray, width: int, stride: int) -> NDArray:
  """Adds a fourth column: the number of windows that each stretch gives."""
  _, run = cut(np.zeros(len(table)), table[:, 0], width, stride)
  count = np.bincount(run, minlength=len(table))
  return np.concatenate([table, count[:, None]], 1)


def _named(who: list[str]) -> str:
  more = len(who) - _NAMED
  return ', '.join(who[:_NAMED]) + (f' and {more} more' if more > 0 else '')
