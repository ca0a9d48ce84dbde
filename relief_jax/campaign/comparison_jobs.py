"""The runs of a comparison: their names, folders and configs."""

import fnmatch
import pathlib
from collections.abc import Sequence
from typing import Any

from relief_jax import config as config_lib
from relief_jax.campaign import choices, sweep_jobs
from relief_jax.campaign import comparison as comparisons
from relief_jax.config.validation import check, validate
from relief_jax.errors import InputError
from relief_jax.storage import axes, job_spec, naming, records


def expand(
  config,
  folder: pathlib.Path,
  data_dir: str | None = None,
  points: Sequence[dict[str, Any]] = ({},),
  keep: bool = True,
) -> list[job_spec.Job]:
  """Lists every run of a comparison.

  A run has the keys that all share, then those of its label, then the values
  chosen for it (`config.values_file`), then those of the point.

  Args:
    config: see `comparison.build`.
    folder: of the comparison.
    data_dir: where real data is looked for.
    points: of a sweep, dotted key -> value; each is set for all labels, which
      it groups: its name stands before the label.
    keep: finished runs leave a checkpoint of their model.

  Returns:
    Jobs, in the order of points, labels, seeds or folds, and seeds within
    folds.

  Raises:
    InputError: no method key, an unknown key, no label left or no such fold,
      or a file of values that does not fit.
  """
  shared = comparisons.with_defaults(records.clean(config))
  own = {}
  for key in comparisons.OWN_KEYS:
    if key not in shared:
      raise InputError(
        f'a config without {key!r}',
        'a comparison',
        'use --config=compare, or relief run for one run',
      )
    own[key] = shared.pop(key)
    if key in comparisons.ROWS:
      check(key, own[key], comparisons.ROWS[key])
  labels = _labels(own)
  numbers = _numbers(own, shared)
  chosen = _chosen(own)
  keys = list(dict.fromkeys(k for point in points for k in point))
  _check_swept(keys, own['vary'])
  jobs = []
  for point in points:
    head = f'{sweep_jobs.label(point, keys)}/' if keys else ''
    for label in labels:
      parts = {
        f'methods[{label!r}]': records.flatten(own['methods'][label]),
        f'values of {label!r} in {own["values_file"]}': chosen.get(label) or {},
        f'point {point}': point,
      }
      run = _config(shared, parts)
      config_lib.prune(run)
      for number in numbers:
        records.override(run, sweep_jobs.nested(number))
        try:
          validate(run)
        except InputError as error:
          raise InputError(
            f'{head}{label}: {error}', 'what a run can use', 'correct it'
          ) from error
        jobs.append(
          job_spec.Job(
            head + label,
            next(iter(number.values())),
            str(folder / head / label / axes.folder_name(number)),
            records.clean(run),
            data_dir,
            {k: v for part in parts.values() for k, v in part.items()} | number,
            keep,
          )
        )
  return jobs


def _config(shared: dict, parts: dict[str, dict[str, Any]]):
  """Builds a run's config from shared keys and each part's, by dotted key."""
  run = records.config_from_dict(shared)
  for where, values in parts.items():
    try:
      records.override(run, sweep_jobs.nested(values))
    except InputError as error:
      raise InputError(
        f'{where}: {error}', 'keys of a run', 'correct it'
      ) from error
  return run


def _labels(own: dict[str, Any]) -> list[str]:
  """Selects the labels that are run."""
  for label in own['labels']:
    naming.check_label(label)
  patterns = [p for p in own['only'].split(',') if p] or ['*']
  labels = [
    label
    for label in own['labels']
    if any(fnmatch.fnmatch(label, p) for p in patterns)
  ]
  if not labels:
    raise InputError(
      f'no run in only={own["only"]!r}',
      f'patterns for labels such as {", ".join(own["labels"][:6])}',
      'leave --config.only out',
    )
  return labels


def _numbers(own: dict[str, Any], shared: dict) -> list[dict[str, int]]:
  """Lists the seeds or folds of a label's runs, by config key."""
  vary, seeds, repeats = own['vary'], own['seeds'], own['repeats']
  if vary == 'data.fold' and not seeds:
    seeds = range(shared['data']['folds'])
  if not seeds:
    raise InputError(
      f'no run in seeds={seeds}',
      'one or more seeds',
      "write --config.seeds='(0,1,2)'",
    )
  if repeats and vary != 'data.fold':
    raise InputError(
      f'repeats={repeats} of runs over {vary}',
      'a comparison over folds, each with these seeds',
      "leave repeats out, or build the comparison with vary='data.fold'",
    )
  if repeats:
    return [{vary: n, 'seed': seed} for n in seeds for seed in repeats]
  return [{vary: n} for n in seeds]


def _chosen(own: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
  """Reads the values chosen for labels."""
  if not own['values_file']:
    return {}
  path = pathlib.Path(own['values_file'])
  found = choices.read(path)
  choices.check_labels(found, path, own['labels'])
  return found.values


def _check_swept(keys: Sequence[str], vary: str) -> None:
  for key in keys:
    if key in ('method', 'seed', vary):
      raise InputError(
        f'{key} swept over a comparison',
        'a key that its labels and its seeds or folds do not set',
        "set --config.only=LABELS, --config.seeds='(0,1)' or --config.repeats",
      )
