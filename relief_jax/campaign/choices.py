"""Values chosen by a sweep: found, written, read again. **Ours.**

A value is to be chosen on data that no table is about: on the validation
persons (`data.validation_subjects`), whose score is `f1_validation`.
"""

import json
import math
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relief_jax import plugins
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.keys import differing
from relief_jax.report import frame, gather
from relief_jax.scoring import metrics
from relief_jax.storage import axes, records

# What runs of a candidate differ in: its score is the mean over them.
_AVERAGED = ('seed', 'data.fold', 'method')
# Scores that values can be chosen by.
_SCORES = tuple(metrics.EVERY)


class Candidate(NamedTuple):
  """Holds the values that a label was run with, and their score.

  Attributes:
    values: swept key -> value.
    score: mean of the criterion over the runs; None where one diverged.
    runs: how many.
    diverged: of these, or ended with a score that is no finite number.
  """

  values: dict[str, Any]
  score: float | None
  runs: int
  diverged: int


def is_test(field: str) -> bool:
  """Tells whether a score is of the windows that tables are about.

  >>> is_test('f1_own'), is_test('f1_validation')
  (True, False)
  """
  return 'validation' not in field


def choose(
  folder: pathlib.Path, by: str, last: int = 1, allow_test: bool = False
) -> dict[str, Any]:
  """Chooses the best values of every label of a finished sweep.

  Of candidates with equal scores the first of the sweep is taken and the
  others are listed as `tied`. A candidate with a diverged run is never taken.

  Args:
    folder: of `relief sweep`.
    by: the criterion, a score in metrics.jsonl.
    last: evaluations at the end of every run that it is averaged over.
    allow_test: lets `by` be a test score.

  Returns:
    What `relief select` writes: the criterion, the folder, the persons
    that it was chosen on, and by label the values, their score and all
    candidates.

  Raises:
    InputError: a test score, a field that runs lack, runs that are not
      finished, nothing swept, or candidates over unlike seeds or folds.
  """
  _check_criterion(by, last, allow_test)
  stored = records.read_json(folder / 'config.json')
  places, _ = gather.places(folder)
  _check_finished(folder, places)
  grouped: dict[str, list[gather.Place]] = {}
  for place in places:
    grouped.setdefault(_label(place, stored), []).append(place)
  if not grouped:
    raise InputError(f'no run in {folder}', 'a finished sweep', 'check it')
  persons: set[Any] = set()
  labels = {}
  for label, own in grouped.items():
    keys = _swept(own)
    if not keys:
      raise InputError(
        f'the label {label} with one value of every key in {folder}',
        'a sweep over a key other than the seed and the fold',
        'run relief sweep --config=COMPARISON '
        '--sweep.hparams.client_lr=.02,.05,.1',
      )
    labels[label] = _best(label, keys, own, by, last)
    for place in own:
      config = records.read_json(place.folder / 'config.json')
      persons |= set(config['data'].get('validation_subjects') or ())
  return {
    'schema': records.SCHEMA,
    'by': by,
    'test_score': is_test(by),
    'last': last,
    'runs': len(places),
    'folder': str(folder),
    'validation_subjects': sorted(persons, key=str),
    'ties': 'the first of the sweep',
    'labels': labels,
  }


def _check_criterion(by: str, last: int, allow_test: bool) -> None:
  if not by.startswith(_SCORES):
    raise InputError(
      f'--by={by}',
      'a score: f1_..., accuracy, perplexity_..., token_accuracy or rmse_...',
      'set --by=f1_validation, or the like',
    )
  if is_test(by) and not allow_test:
    raise InputError(
      f'--by={by}, a test score: values chosen by it leak what they are '
      'tested on',
      'the score of the validation persons',
      'set config.data.validation_subjects in the sweep and '
      '--by=f1_validation, or --allow_test where no result is to be reported',
    )
  if last < 1:
    raise InputError(f'--last={last}', '1 or more evaluations', 'correct it')


def _check_finished(folder: pathlib.Path, places) -> None:
  if lacking := gather.missing_shards(folder):
    raise InputError(
      f'{folder} without the parts {", ".join(lacking)}',
      'a finished sweep',
      f'start the command of the sweep with --shard={lacking[0]}',
    )
  left = [p for p in places if _status(p) not in records.ENDED]
  if left:
    raise InputError(
      f'{len(left)} of {len(places)} runs in {folder} that are not finished '
      f'(first: {left[0].label} {left[0].folder.name})',
      'a finished sweep',
      'start the command of the sweep again: it goes on',
    )


def _status(place: gather.Place) -> str:
  path = place.folder / 'summary.json'
  return records.read_json(path).get('status', '') if path.exists() else ''


def _label(place: gather.Place, stored: Mapping[str, Any]) -> str:
  """Gives the label that is tuned, without what the sweep put before it."""
  if 'methods' not in stored:  # a sweep of one config
    stored = records.read_json(place.folder / 'config.json')
    return plugins.short(stored['method'])
  if place.label in stored['methods']:
    return place.label
  return place.label.partition('/')[2]


def _swept(own: Sequence[gather.Place]) -> list[str]:
  """Lists the keys whose values differ between the runs of a label."""
  found = differing([place.values for place in own])
  return [key for key in found if key not in _AVERAGED]


def _best(label: str, keys, own, by: str, last: int) -> dict[str, Any]:
  """Scores the candidates of a label."""
  grouped: dict[str, list[gather.Place]] = {}
  for place in own:
    values = {k: place.values[k] for k in keys if k in place.values}
    grouped.setdefault(json.dumps(records.clean(values)), []).append(place)
  over = {
    name: sorted(axes.numbers_of(p.folder.name) or (p.seed, 0) for p in some)
    for name, some in grouped.items()
  }
  first = next(iter(over.values()))
  for name, numbers in over.items():
    if numbers != first:
      raise InputError(
        f'{label} with {name} over {len(numbers)} runs, others over '
        f'{len(first)}',
        'the same seeds and folds for every candidate',
        'finish the grid: start the sweep with all seeds and folds',
      )
  candidates = [
    _candidate(json.loads(name), some, by, last)
    for name, some in grouped.items()
  ]
  scored = [c for c in candidates if c.score is not None]
  sign = 1 if metrics.largest(by) else -1
  best = max(scored, key=lambda c: sign * (c.score or 0.0), default=None)
  tied = [c.values for c in scored if best and c.score == best.score][1:]
  return {
    'values': best.values if best else None,
    'score': best.score if best else None,
    'tied': tied,
    'candidates': [c._asdict() for c in candidates],
  }


def _candidate(values, own, by: str, last: int) -> Candidate:
  scores = []
  for place in own:
    run = gather.load(place.folder, place.label)
    if run is None:  # diverged
      continue
    rows = run.metrics[-last:]
    found = [row[by] for row in rows if frame.is_number(row.get(by))]
    if len(found) < last:
      if any(frame.is_number(row.get(by)) for row in run.metrics[:-last]):
        continue  # it had numbers, and then none that are finite
      raise InputError(
        f'{place.folder} without {by} in each of its last {last} evaluations',
        f'a run that recorded {by} so often',
        'set config.data.validation_subjects in the sweep, or another --by',
      )
    scores.append(math.fsum(found) / last)
  diverged = len(own) - len(scores)
  mean = None if diverged else math.fsum(scores) / len(scores)
  return Candidate(values, mean, len(own), diverged)


class Chosen(NamedTuple):
  """Holds the content of a file of chosen values.

  Attributes:
    values: label -> dotted key -> value; None where every candidate diverged.
    how: what they were chosen by, for people.
  """

  values: dict[str, dict[str, Any] | None]
  how: str


def read(path: pathlib.Path) -> Chosen:
  """Reads what `relief select` wrote.

  Args:
    path: of the file.

  Raises:
    InputError: no such file, or another one.
  """
  path = pathlib.Path(paths.expand(path, 'config.values'))
  stored = records.read_json(path)
  try:
    persons = stored['validation_subjects']
    values = {
      str(label): None if one['values'] is None else dict(one['values'])
      for label, one in stored['labels'].items()
    }
    leak = (
      'LEAK: values chosen on a test score, ' if stored['test_score'] else ''
    )
    how = (leak or 'Values chosen on ') + str(stored['by'])
    if persons:
      how += f' (persons {", ".join(map(str, persons))})'
    how += f' of {int(stored["runs"])} runs'
    if stored['last'] > 1:
      how += f', mean of the last {int(stored["last"])} evaluations'
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise InputError(
      f'{path}: no chosen values in it ({error!r})',
      'a file written by relief select',
      'check --config.values',
    ) from error
  return Chosen(values, how)


def check_labels(
  chosen: Chosen, path: pathlib.Path, labels: Collection[str]
) -> None:
  """Refuses values of labels that a comparison does not have.

  Args:
    chosen: from `path`.
    path: of the file.
    labels: of the comparison.

  Raises:
    InputError: such a label.
  """
  for label in chosen.values:
    if label not in labels:
      raise InputError(
        f'values of the label {label!r} in {path}',
        f'a label of the comparison, such as {", ".join(list(labels)[:6])}',
        'sweep this comparison, or correct the file',
      )


def note(path: str, labels: Iterable[str]) -> str:
  """Says which values are used, for below a table.

  Args:
    path: of the file; '' for none.
    labels: that are run.

  Returns:
    '' without a file.

  Raises:
    InputError: as `read`.
  """
  if not path:
    return ''
  chosen = read(pathlib.Path(path))
  groups: dict[str, list[str]] = {}
  kept = []
  for label in labels:
    values = chosen.values.get(label)
    if values is None:
      kept.append(label)
      continue
    text = ' '.join(f'{k.rpartition(".")[2]}={v}' for k, v in values.items())
    groups.setdefault(text, []).append(label)
  listed = [f'{text} for {", ".join(own)}' for text, own in groups.items()]
  found = f'{chosen.how}: {"; ".join(listed) or "none"}.'
  if kept:
    found += f' None were chosen for {", ".join(kept)}, which keep their own.'
  return found
