"""Tells what a command would run: the resolved config, then the plan.

Nothing is trained but the frozen base of LoRA, which is part of a world, and
no run directory is written.
"""

import collections
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections
from absl import flags

from relief_jax import config as config_lib
from relief_jax import datasets, plugins, simulate
from relief_jax.campaign import manifest, pool
from relief_jax.config import registries
from relief_jax.engine import placement
from relief_jax.keys import flatten, spelled
from relief_jax.storage import directory, identity, job_spec, progress, records

Lines = list[tuple[str, str]]
_SHOWN = 8  # names of a list


def define() -> None:
  """Defines --dry."""
  flags.DEFINE_bool(
    'dry', False, 'prints the resolved config and the plan, runs nothing'
  )


def show(found: tuple[ml_collections.ConfigDict, Lines]) -> None:
  """Prints a config, as flags set it, and a plan.

  Args:
    found: from `of_run` or `of_campaign`.
  """
  config, lines = found
  values = config.to_dict()
  values.pop('methods', None)  # a comparison's: told by its labels
  for key, value in sorted(flatten(values).items()):
    print(f'--config.{key}={spelled(value)}')
  print()
  wide = max(len(name) for name, _ in lines)
  for name, text in lines:
    print(f'{name:{wide}}  {text}')


def of_run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  data_dir: str | None = None,
) -> tuple[ml_collections.ConfigDict, Lines]:
  """Plans a single run.

  Args:
    config: of the run; not changed.
    workdir: its run directory.
    data_dir: where real data is looked for.

  Returns:
    The resolved config, and lines of a name and a text.

  Raises:
    InputError: whatever would keep it from running.
  """
  config = config.copy_and_resolve_references()
  registries.settle(config)
  config_lib.prune(config)
  asked = config.layout
  if asked in placement.OPEN:  # `tune` would measure
    config.layout = 'auto'
  simulation = simulate.Simulation(config, data_dir)
  facts, resolved = simulation.description, simulation.config
  layout = facts['layout']
  if asked == 'tune':
    layout, resolved.layout = 'measured when it runs', asked
  people, windows = facts['subjects'], facts['windows']
  samples = facts['samples_per_client']
  tests = resolved.rounds // resolved.eval_every
  tests += bool(resolved.rounds % resolved.eval_every)
  lines = [
    (
      'method',
      f'{plugins.short(resolved.method)}, {resolved.backbone}, '
      f'{facts["parameters"]:,} parameters in {len(facts["groups"])} blocks, '
      f'seed {resolved.seed}',
    ),
    (
      'data',
      f'{facts["dataset"]}: '
      + ', '.join(f'{n:,} windows to {use}' for use, n in _uses(windows)),
    ),
    *((f'  {use}', f'persons {_some(p)}') for use, p in people.items() if p),
    (
      'devices',
      f'{facts["clients"]:,}, {facts["clients_per_round"]:,} a round, '
      f'{samples[0]:,} to {samples[1]:,} windows each',
    ),
    ('  kinds', _counted(facts['tiers'])),
    ('  sensors', _counted(facts['cohorts'])),
    ('budgets', _deadline(resolved, facts['deadline'])),
    (
      'rounds',
      f'{resolved.rounds:,}, tested {tests:,} times after the start',
    ),
    ('layout', layout),
    ('workdir', _state(workdir, resolved, data_dir)),
  ]
  return resolved, lines


def of_campaign(
  config: ml_collections.ConfigDict,
  jobs: Sequence[job_spec.Job],
  folder: pathlib.Path,
  workers: int = 0,
) -> tuple[ml_collections.ConfigDict, Lines]:
  """Plans the runs of a comparison or of a sweep.

  Args:
    config: that they came from.
    jobs: the runs.
    folder: theirs.
    workers: processes; 0: as many as the machine has places for.

  Returns:
    The config, and lines of a name and a text.

  Raises:
    InputError: whatever would keep them from running.
  """
  stands = collections.Counter(
    manifest.status_of(job)['status'] for job in jobs
  )
  labels = dict.fromkeys(job.label for job in jobs)
  programs = {job_spec.structure(job.config) for job in jobs}
  rounds = [job.config['rounds'] for job in jobs]
  lines = [
    ('runs', f'{len(jobs):,}: {_counted(stands)}'),
    ('labels', f'{len(labels):,}: {_some(labels)}'),
    ('seeds', _values(jobs, 'seed')),
    ('programs', f'{len(programs):,}, each compiled once a worker'),
    ('data', datasets.remark(manifest.data_of(jobs)).removeprefix('Data: ')),
    (
      'devices',
      f'{_values(jobs, "clients")}, {_values(jobs, "clients_per_round")} a '
      f'round (0: all); fleet {_values(jobs, "fleet")}',
    ),
    (
      'budgets',
      f'deadline {_values(jobs, "deadline")}, where a method has one',
    ),
    ('rounds', f'{_values(jobs, "rounds")} a run, {sum(rounds):,} in all'),
    ('workers', str(workers or pool.default_workers())),
    ('workdir', str(folder)),
  ]
  return config, lines


def _uses(windows: dict[str, int]) -> list[tuple[str, int]]:
  words = {
    'train': 'train on',
    'test': 'test on',
    'public': 'pre-train on',
    'validation': 'choose by',
  }
  return [(words.get(use, f'test on ({use})'), n) for use, n in windows.items()]


def _counted(found: dict[str, int]) -> str:
  return ', '.join(f'{n:,} {name}' for name, n in found.items())


def _some(names: Iterable[Any]) -> str:
  """Joins names, of a long list the first ones."""
  every = [str(name) for name in names]
  more = f', ... ({len(every):,})' if len(every) > _SHOWN else ''
  return ', '.join(every[:_SHOWN]) + more


def _values(jobs: Sequence[job_spec.Job], key: str) -> str:
  return _some(dict.fromkeys(job.config[key] for job in jobs))


def _deadline(config, seconds: Sequence[float]) -> str:
  """Describes the deadline of a round, in simulated time."""
  first, last = seconds
  if math.isinf(first):
    return 'none: every device trains all it owns'
  text = f'deadline {config.deadline}, {progress.duration(first)} a round'
  if last != first:
    text += f', {progress.duration(last)} in the last one'
  return text


def _state(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  data_dir: str | None,
) -> str:
  """Tells how the run directory stands.

  Raises:
    InputError: it holds another run.
  """
  stored = directory.stored_config(workdir, resume=True)
  if stored is None:
    return f'{workdir}, new'
  config = config.copy_and_resolve_references()
  identity.adopt(config, stored)
  identity.refuse_other(workdir, config, data_dir, stored)
  path = workdir / 'summary.json'
  summary = records.read_json(path) if path.exists() else {'status': 'begun'}
  over = directory.is_over(summary, config.rounds)
  what = 'nothing is left to do' if over else 'goes on with --resume'
  return f'{workdir}, {summary["status"]}: {what}'
