"""The points of a sweep as runs: their names, folders and configs."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from relief_jax import config as config_lib
from relief_jax import plugins
from relief_jax.config.validation import validate
from relief_jax.errors import InputError
from relief_jax.storage import axes, job_spec, naming, records


def label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
  """Builds a point's label, fit for a folder: a long one is cut.

  Args:
    values: of the point.
    keys: those that are named, in order; of a dotted one the last part where
      that is clear.

  >>> label({'hparams.client_lr': 0.1, 'method': 'relief'}, ['method',
  ...   'hparams.client_lr'])
  'method=relief,client_lr=0.1'
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


def jobs_of(
  config,
  found: list[dict],
  folder: pathlib.Path,
  data_dir: str | None = None,
  keep: bool = False,
) -> list[job_spec.Job]:
  """Lists the runs of a sweep.

  Args:
    config: of all.
    found: what each point sets, by dotted key.
    folder: of the sweep.
    data_dir: where real data is looked for.
    keep: finished runs leave a checkpoint of their model.

  Returns:
    One job per point; a label has the points that differ in the seed or the
    fold only.

  Raises:
    InputError: a key that no config has, a value of another type, or one that
      no run can use.
  """
  vary = vary_of(found)
  every = dict.fromkeys(k for p in found for k in p if k not in ('seed', vary))
  both = vary != 'seed' and any('seed' in point for point in found)
  keys = [k for k in every if k != 'method']
  jobs = []
  for point in found:
    run = records.config_from_dict(records.clean(config))
    try:
      records.override(run, nested(point))
      validate(run)
    except InputError as error:
      raise InputError(
        f'point {point}: {error}', 'keys and values of a run', 'correct it'
      ) from error
    config_lib.prune(run)
    run.devices = run.devices or 1  # of each worker process
    name = label(point, keys) if keys or 'method' not in every else ''
    if 'method' in every:  # methods of equal values are a group
      name = f'{name}/{plugins.short(run.method)}'.lstrip('/')
    numbers = {vary: config_lib.get(run, vary)}
    if both:  # seeds within folds
      numbers['seed'] = run.seed
    workdir = str(folder / name / axes.folder_name(numbers))
    jobs.append(
      job_spec.Job(
        name,
        numbers[vary],
        workdir,
        records.clean(run),
        data_dir,
        point,
        keep,
      )
    )
  if len({job.workdir for job in jobs}) < len(jobs):
    raise InputError(
      'two points of the same name', 'values that differ', 'leave one out'
    )
  return jobs


def vary_of(found: list[dict]) -> str:
  """Finds the key by which a label's runs differ: the fold if it is swept."""
  folds = any('data.fold' in point for point in found)
  return 'data.fold' if folds else 'seed'


def nested(point: dict) -> dict:
  """Nests dotted keys.

  >>> nested({'a.b': 1, 'c': 2})
  {'a': {'b': 1}, 'c': 2}
  """
  found: dict = {}
  for key, value in point.items():
    *path, last = key.split('.')
    here = found
    for part in path:
      here = here.setdefault(part, {})
    here[last] = value
  return found


def parse_shard(text: str) -> tuple[int, int]:
  """Parses i/n into numbers.

  >>> parse_shard('2/4')
  (2, 4)

  Raises:
    InputError: anything else.
  """
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise InputError(
      f'--shard={text}', 'i/n with i from 1 to n', 'set --shard=1/4'
    )
  return int(found[1]), int(found[2])


def baseline(jobs: Sequence[job_spec.Job], asked: str = '') -> str:
  """Chooses the label that the others of a group are compared with.

  Args:
    jobs: of the sweep.
    asked: by the user, '' for fedavg, else the first.

  Raises:
    InputError: no label ends so.
  """
  labels = [job.label.rpartition('/')[2] for job in jobs]
  if not asked:
    return 'fedavg' if 'fedavg' in labels else labels[0]
  if asked not in labels:
    raise InputError(
      f'--baseline={asked}',
      f'a label such as {", ".join(list(dict.fromkeys(labels))[:6])}',
      'see --dry_run for all',
    )
  return asked
