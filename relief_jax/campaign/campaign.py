"""The runs of a campaign: one rule for their names, baseline and numbers.

A comparison is a list of points with names, a sweep a grid of points, and a
comparison that is swept a grid of lists. Whatever it came from, a run is
called LABEL/seed_K, and LABEL is GROUP/NAME: GROUP tells the swept values, NAME
the method or what a comparison calls it; either may be missing. Labels of one
group are compared with the group's baseline, and a mean is over the numbers
in which the runs of a label differ: seeds, folds, or seeds within folds.
"""

import contextlib
import fnmatch
import pathlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from relief_jax import config as config_lib
from relief_jax import plugins
from relief_jax.campaign import choices, comparison, manifest
from relief_jax.config.validation import check, validate
from relief_jax.errors import InputError
from relief_jax.keys import flatten, nested
from relief_jax.storage import axes, job_spec, naming, records

_FOLD, _BASELINE = 'data.fold', 'fedavg'


class Campaign(NamedTuple):
  """Lists the runs of a folder, and how they are compared.

  Attributes:
    jobs: all of them; their order is that of the tables.
    config: what they came from.
    baseline: label, within a group, that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
    note: about all runs, for below the tables.
    beside: runs of the same comparison that `config.only` leaves out, and that
      the folder has already; they are reported and not run.
    order: place of each label in tables; {}: that of the jobs.
  """

  jobs: list[job_spec.Job]
  config: ml_collections.ConfigDict
  baseline: str
  numbers: str = 'seeds'
  note: str = ''
  beside: Sequence[manifest.Begun] = ()
  order: Mapping[str, int] = types.MappingProxyType({})

  def listed(self, jobs: Sequence[job_spec.Job]) -> list[job_spec.Job]:
    """Lists runs and those beside them in the order of tables.

    Args:
      jobs: some or all of the campaign's.
    """
    every = [*jobs, *(job for job, _ in self.beside)]
    return sorted(every, key=lambda job: self.order.get(job.label, 0))


class _Point(NamedTuple):
  """Describes a run by what it sets beyond the shared config.

  Attributes:
    label: its GROUP/NAME.
    parts: where values come from -> dotted key -> value; later ones win.
  """

  label: str
  parts: Mapping[str, Mapping[str, Any]]


def of_sweep(
  config: ml_collections.ConfigDict,
  found: Sequence[dict[str, Any]],
  folder: pathlib.Path,
  data_dir: str | None = None,
  keep: bool = False,
  baseline: str = '',
) -> Campaign:
  """Lists the runs of a sweep over one config.

  Args:
    config: of all.
    found: what each point sets, by dotted key.
    folder: of the sweep.
    data_dir: where real data is looked for.
    keep: finished runs leave a checkpoint of their model.
    baseline: asked for; '' for fedavg, else the first label.

  Returns:
    One run per point; a label has the points that differ in the seed or the
    fold only.

  Raises:
    InputError: a key that no config has, a value of another type, or one that
      no run can use; no such baseline.
  """
  every = list(dict.fromkeys(key for point in found for key in point))
  folds = _FOLD in every
  # Seeds within folds, where both are swept.
  numbers = [_FOLD] * folds + ['seed'] * (not folds or 'seed' in every)
  keys = [k for k in every if k not in ('method', *numbers)]
  named = []
  for point in found:
    # Methods of equal values are a group.
    method = plugins.short(point.get('method', config.method))
    parts = [
      *([values_name(point, keys)] if keys or 'method' not in every else []),
      *([method] if 'method' in every else []),
    ]
    named.append(_Point('/'.join(parts), {f'point {point}': point}))
  jobs = _jobs(records.clean(config), named, numbers, folder, data_dir, keep)
  base = choose_baseline(jobs, baseline)
  return Campaign(jobs, config, base, job_spec.over(numbers[0]) + 's')


def of_comparison(
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  data_dir: str | None = None,
  found: Sequence[dict[str, Any]] = ({},),
  keep: bool = True,
  baseline: str = '',
) -> Campaign:
  """Lists the runs of a comparison, swept or not.

  A run has the keys that all share, then those of its label, then the values
  chosen for it (`config.values_file`), then those of the point.

  Args:
    config: see `comparison.build`.
    folder: of the comparison.
    data_dir: where real data is looked for.
    found: of a sweep, dotted key -> value; each is set for all labels, which
      it groups.
    keep: finished runs leave a checkpoint of their model.
    baseline: asked for; '' for the config's own, and where `config.only`
      leaves that out the first label.

  Returns:
    Runs in the order of points, labels, seeds or folds, and seeds within
    folds.

  Raises:
    InputError: no method key, an unknown key, no label left, no such fold or
      baseline, or a file of values that does not fit.
  """
  shared = comparison.with_defaults(records.clean(config))
  own = {}
  for key in comparison.OWN_KEYS:
    if key not in shared:
      raise InputError(
        f'a config without {key!r}',
        'a comparison',
        'use --config=compare, or relief run for one run',
      )
    own[key] = shared.pop(key)
    if key in comparison.ROWS:
      check(key, own[key], comparison.ROWS[key])
  labels, numbers = _labels(own), _numbers(own, shared)
  chosen = _chosen(own)
  keys = list(dict.fromkeys(key for point in found for key in point))
  _check_swept(keys, own['vary'])

  def named(some: Sequence[str]) -> list[_Point]:
    return [
      _Point(
        '/'.join([*([values_name(point, keys)] if keys else []), label]),
        {
          f'methods[{label!r}]': flatten(own['methods'][label]),
          f'values of {label!r} in {own["values_file"]}': chosen.get(label)
          or {},
          f'point {point}': point,
          ', '.join(f'{k}={n}' for k, n in number.items()): number,
        },
      )
      for point in found
      for label in some
      for number in numbers
    ]

  place = list(numbers[0]), folder, data_dir, keep
  jobs = _jobs(shared, named(labels), *place)
  beside: list[manifest.Begun] = []
  shown = set(labels)
  for label in own['labels']:
    for one in () if label in labels else named([label]):
      if (folder / one.label).is_dir():
        # One that no longer fits this comparison is none of its runs.
        with contextlib.suppress(InputError):
          if begun := manifest.begun(_jobs(shared, [one], *place)):
            beside += begun
            shown.add(label)
  every = [*jobs, *(job for job, _ in beside)]
  _check_baseline(own)
  return Campaign(
    jobs,
    config,
    choose_baseline(every, baseline, own['baseline']),
    job_spec.over(own['vary']) + 's',
    choices.note(
      own['values_file'], [label for label in own['labels'] if label in shown]
    ),
    beside,
    {one.label: i for i, one in enumerate(named(own['labels']))},
  )


def values_name(values: Mapping[str, Any], keys: Sequence[str]) -> str:
  """Names swept values, fit for a folder: a long name is cut.

  Args:
    values: of the point.
    keys: those that are named, in order; of a dotted one the last part where
      that is clear.

  >>> values_name({'hparams.client_lr': 0.1, 'batch': 8}, ['batch',
  ...   'hparams.client_lr'])
  'batch=8,client_lr=0.1'
  """
  last = [key.rpartition('.')[2] for key in keys]
  parts = []
  for key, short in zip(keys, last, strict=True):
    if key in values:
      name = short if last.count(short) == 1 else key
      value = values[key]
      if plugins.is_reference(value):
        value = plugins.short(value)
      text = repr(value).replace("'", '').replace(' ', '')
      parts.append(f'{name}={re.sub(r"[^A-Za-z0-9_.+*()=,:-]", "_", text)}')
  return naming.fit(','.join(parts) or 'run')


def choose_baseline(
  jobs: Sequence[job_spec.Job], asked: str = '', default: str = _BASELINE
) -> str:
  """Chooses the label that the others of a group are compared with.

  Args:
    jobs: of the campaign.
    asked: by the user.
    default: where nothing was; where that is not run, the first label.

  Raises:
    InputError: no label has the name that was asked for.
  """
  names = list(dict.fromkeys(job.label.rpartition('/')[2] for job in jobs))
  if asked and asked not in names:
    raise InputError(
      f'--baseline={asked}',
      f'a label such as {", ".join(names[:6])}',
      'see --dry for all',
    )
  return asked or (default if default in names else names[0])


def _jobs(
  shared: dict[str, Any],
  named: Sequence[_Point],
  numbers: Sequence[str],
  folder: pathlib.Path,
  data_dir: str | None,
  keep: bool,
) -> list[job_spec.Job]:
  """Makes a run of every point.

  Args:
    shared: keys of all runs.
    named: the points.
    numbers: keys in which the runs of a label differ.
    folder: of the campaign.
    data_dir: where real data is looked for.
    keep: finished runs leave a checkpoint of their model.
  """
  jobs = []
  for label, parts in named:
    run = _config(shared, label, parts)
    number = {key: config_lib.get(run, key) for key in numbers}
    jobs.append(
      job_spec.Job(
        label,
        number[numbers[0]],
        str(folder / label / axes.folder_name(number)),
        records.clean(run),
        data_dir,
        {k: v for part in parts.values() for k, v in part.items()} | number,
        keep,
      )
    )
  if len({job.workdir for job in jobs}) < len(jobs):
    raise InputError(
      'two points of the same name', 'values that differ', 'leave one out'
    )
  return jobs


def _config(
  shared: dict[str, Any], label: str, parts: Mapping[str, Mapping[str, Any]]
) -> ml_collections.ConfigDict:
  """Builds the config of a run.

  Raises:
    InputError: a key or a value that no run can use.
  """
  run = records.config_from_dict(shared)
  where = label
  try:
    for name, values in parts.items():
      where = name
      records.override(run, nested(values))
    where = label
    validate(run)
  except InputError as error:
    raise InputError(
      f'{where}: {error}', 'keys and values of a run', 'correct it'
    ) from error
  config_lib.prune(run)
  run.devices = run.devices or 1  # of each worker process
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


def _check_baseline(own: dict[str, Any]) -> None:
  """Refuses a baseline that no label of the comparison is called."""
  # Groups share names, and a list that repeats them tells nothing.
  names = list(
    dict.fromkeys(label.rpartition('/')[2] for label in own['labels'])
  )
  if own['baseline'] not in (_BASELINE, *names):
    raise InputError(
      f'config.baseline={own["baseline"]!r}',
      f'a label, without its group, such as {", ".join(names[:6])}',
      'correct it, or leave it out',
    )


def _numbers(
  own: dict[str, Any], shared: dict[str, Any]
) -> list[dict[str, int]]:
  """Lists the seeds or folds of a label's runs, by config key."""
  vary, seeds, repeats = own['vary'], own['seeds'], own['repeats']
  if vary == _FOLD and not seeds:
    seeds = range(shared['data']['folds'])
  if not seeds:
    raise InputError(
      f'no run in seeds={seeds}',
      'one or more seeds',
      "write --config.seeds='(0,1,2)'",
    )
  if repeats and vary != _FOLD:
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
