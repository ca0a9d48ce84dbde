"""Splits the windows into train and test, by person or by time. **Ours.**

No raw sample is in train and test, whatever the windows' overlap:

- 'subjects': the persons in `data.test_subjects` are held out.
- 'folds': the persons, in order, are cut into `data.folds` parts (0: one part
  per person, leave-one-subject-out); part `data.fold` is held out. A sweep over
  `data.fold` tests on every person once.
- 'time': the last `data.test_share` of every run is held out, person by person.
  Between a train and a test window of a person lies at least a window.
- 'official': what the data set's authors chose (UCI-HAR: nine persons;
  MotionSense: the short trials).
"""

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError, unknown
from relief_jax.scoring import targets
from relief_jax.world.partition import Split, no_overlap, split_subjects

KINDS = ('subjects', 'folds', 'time', 'official')

# Samples between train and test in time, at least: the filter of a resampled
# recording reaches 10 samples beyond a window's ends, from both sides.
_LEAST_GUARD = 20


def split(
  windows: Windows,
  data: ml_collections.ConfigDict,
  public_subjects: int,
  rng: np.random.Generator,
) -> Split:
  """Splits the windows into train, test, public and validation rows.

  Args:
    windows: of all persons.
    data: `config.data`: split, test_subjects, folds, fold, test_share.
    public_subjects: persons that `rng` sets aside as public; they are then in
      neither train nor test.
    rng: used only if `public_subjects` is above 0.

  Returns:
    Split. The persons in `data.validation_subjects` are set aside before the
    public ones are drawn.

  Raises:
    InputError: nothing to test on or to train on, a fold that is not there, no
      official split, a raw sample in train and test, or persons to validate on
      that are not in the data or are tested on.
  """
  chosen = tuple(data.validation_subjects)
  if chosen:
    return _validating(windows, data, chosen, public_subjects, rng)
  if data.split == 'subjects':
    return split_subjects(
      windows, tuple(data.test_subjects), public_subjects, rng
    )
  if data.split == 'folds':
    test = fold_subjects(np.unique(windows.subject), data.folds, data.fold)
    return split_subjects(windows, test.tolist(), public_subjects, rng)
  if data.split == 'time':
    train, test = by_time(windows, data.test_share)
  elif data.split == 'official':
    train, test = official(windows)
  else:
    raise unknown('split', data.split, KINDS)
  found = _set_aside(windows, train, test, public_subjects, rng)
  if not no_overlap(windows, found.train, found.test):
    raise InputError(
      'raw samples in both train and test',
      'windows that overlap on one side only',
      'set --config.data.split=subjects, or --config.data.stride to the width',
    )
  return found


def _validating(windows, data, chosen, public_subjects, rng) -> Split:
  """Splits the windows without those of the persons to validate on."""
  known = np.unique(windows.subject)
  number = {name: n for n, name in windows.people.items()}
  chosen = [number.get(person, person) for person in chosen]
  held_out: NDArray = known[:0]
  if data.split == 'subjects':
    held_out = np.array([number.get(one, one) for one in data.test_subjects])
  elif data.split == 'folds':
    held_out = fold_subjects(known, data.folds, data.fold)
  free = np.setdiff1d(known, held_out)
  if not np.isin(chosen, free).all() or len(np.unique(chosen)) >= len(free):
    raise InputError(
      f'config.data.validation_subjects={tuple(chosen)}',
      f'some of {free.tolist()}, the persons that are not tested on, and at '
      'least one of them left to train on',
      f'set --config.data.validation_subjects="({free[-1]},)"',
    )
  is_validation = np.isin(windows.subject, chosen)
  rest, rest_data = (
    np.flatnonzero(~is_validation),
    data.copy_and_resolve_references(),
  )
  with rest_data.unlocked():
    rest_data.validation_subjects = ()
    if data.split == 'folds':  # the persons of the fold, whoever else is there
      rest_data.split = 'subjects'
      rest_data.test_subjects = tuple(held_out.tolist())
  found = split(select(windows, rest), rest_data, public_subjects, rng)
  return Split(
    train=rest[found.train],
    test=rest[found.test],
    public=rest[found.public],
    validation=np.flatnonzero(is_validation),
  )


def notes(windows: Windows, found: Split, kind: str) -> tuple[str, ...]:
  """Lists classes and persons that the split leaves without windows.

  Args:
    windows: of all persons.
    found: the split of them.
    kind: of the split, as in `config.data.split`.
  """
  said = []
  count = len(windows.classes)
  every: NDArray = np.zeros(0)
  if windows.targets == targets.CLASSES:
    every = np.bincount(windows.y, minlength=count)
  known = np.setdiff1d(windows.subject, windows.subject[found.public])
  for part, rows in (('training', found.train), ('test', found.test)):
    lost = []
    if windows.targets == targets.CLASSES:
      here = np.bincount(windows.y[rows], minlength=count)
      lacking = np.flatnonzero((every > 0) & (here == 0))
      lost = [f'class {windows.classes[i]!r}' for i in lacking]
    if kind == 'time':  # the other splits part persons on purpose
      gone = np.setdiff1d(known, windows.subject[rows]).tolist()
      lost += [f'person {windows.people.get(p, str(p))}' for p in gone]
    if lost:
      said.append(f'without a {part} window: {", ".join(lost)}')
  return tuple(said)


def fold_subjects(subjects: NDArray, folds: int, fold: int) -> NDArray:
  """Finds the persons of one fold.

  >>> fold_subjects(np.arange(1, 9), folds=3, fold=1)
  array([2, 5, 8])

  Args:
    subjects: [persons] ascending.
    folds: their number; 0 for one per person.
    fold: which part, from 0.

  Raises:
    InputError: fewer than two parts, more parts than persons, or no such part.
  """
  folds = folds or len(subjects)
  if not 2 <= folds <= len(subjects) or not 0 <= fold < folds:
    raise InputError(
      f'fold {fold} of {folds} over {len(subjects)} subjects',
      f'2 to {len(subjects)} folds, and one of them',
      'set --config.data.folds=0 --config.data.fold=0',
    )
  return subjects[fold::folds]


def by_time(
  windows: Windows, share: float, least: int = 1
) -> tuple[NDArray, NDArray]:
  """Splits every run in time, a window's length between the two sides.

  Windows in between are in neither. A run that is too short to hold both sides
  is for training.

  Args:
    windows: of all persons.
    share: of a run's windows to test on.
    least: windows of a run to test on, where it holds both sides; 0 takes no
      more than the share.

  Returns:
    train and test, ascending rows.
  """
  order = np.lexsort((windows.start, windows.run))
  run, first, count = np.unique(
    windows.run[order], return_index=True, return_counts=True
  )
  del run
  rank = np.empty(len(order), np.int64)
  rank[order] = np.arange(len(order)) - np.repeat(first, count)
  size = np.empty(len(order), np.int64)
  size[order] = np.repeat(count, count)
  begin = windows.start[order][first]
  end = windows.start[order][first + count - 1]
  width = windows.width
  guard = max(width, _LEAST_GUARD)
  roomy = np.empty(len(order), bool)
  roomy[order] = np.repeat(end - begin >= width + guard, count)
  wanted = np.rint(share * size) if least else np.floor(share * size + 1e-9)
  is_test = roomy & (rank >= size - np.maximum(least, wanted))
  # Also against the test windows of a run that ends where this one begins.
  near = _near(windows, is_test, width + guard)
  return np.flatnonzero(~is_test & ~near), np.flatnonzero(is_test)


def select(windows: Windows, rows: NDArray) -> Windows:
  """Takes some of the windows, without their samples.

  Args:
    windows: of all persons.
    rows: ascending.

  Returns:
    Windows with an empty `x`.
  """
  is_test = windows.official_test
  return windows._replace(
    x={},
    y=windows.y[rows],
    subject=windows.subject[rows],
    run=windows.run[rows],
    start=windows.start[rows],
    official_test=None if is_test is None else is_test[rows],
  )


def official(windows: Windows) -> tuple[NDArray, NDArray]:
  """Gives the train and test rows chosen by the data set's authors.

  Raises:
    InputError: they chose none.
  """
  if windows.official_test is None:
    raise InputError(
      'config.data.split=official for data without one',
      'ucihar, motionsense, or an npz file with official_test',
      'set --config.data.split=folds',
    )
  is_test = windows.official_test.astype(bool)
  return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _near(windows: Windows, is_test: NDArray, distance: int) -> NDArray:
  """Marks windows that start within `distance` of a person's test window.

  [windows] bool; the distance itself is not within.
  """
  near = np.zeros(len(is_test), bool)
  for person in np.unique(windows.subject):
    rows = np.flatnonzero(windows.subject == person)
    tested = np.sort(windows.start[rows[is_test[rows]]])
    if not len(tested):
      continue
    start = windows.start[rows]
    after = np.searchsorted(tested, start)
    gap = np.minimum(
      np.abs(tested[np.minimum(after, len(tested) - 1)] - start),
      np.abs(tested[np.maximum(after - 1, 0)] - start),
    )
    near[rows] = gap < distance
  return near


def _set_aside(
  windows: Windows,
  train: NDArray,
  test: NDArray,
  public_subjects: int,
  rng: np.random.Generator,
) -> Split:
  """Takes whole persons out of train and test for the public part."""
  persons = np.unique(windows.subject[train])
  public = persons[:0]
  if 0 < public_subjects < len(persons):
    public = rng.choice(persons, public_subjects, replace=False)
  is_public = np.isin(windows.subject, public)
  train, test = train[~is_public[train]], test[~is_public[test]]
  if not len(train) or not len(test) or public_subjects >= len(persons):
    raise InputError(
      f'{len(train)} windows to train on and {len(test)} to test on, '
      f'{public_subjects} of {len(persons)} subjects public',
      'at least one of each',
      'cut shorter windows (--config.data.width), change '
      '--config.data.test_share, or lower --config.data.public_subjects',
    )
  return Split(train, test, np.flatnonzero(is_public))
