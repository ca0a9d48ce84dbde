"""A run's directory as it is found: begun or new, the same run or another."""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from relief_jax import config as config_lib
from relief_jax.engine import processes
from relief_jax.errors import InputError
from relief_jax.keys import flatten
from relief_jax.scoring import metrics
from relief_jax.storage import fields, identity, records


def stored_config(folder: pathlib.Path, resume: bool) -> dict | None:
  """Reads the config of a begun run, None where there is none."""
  begun = [
    name
    for name in ('config.json', 'metrics.jsonl', 'summary.json', 'checkpoints')
    if (folder / name).exists()
  ]
  if folder.exists() and not folder.is_dir():
    raise InputError(f'the file {folder}', 'a folder', 'another --workdir')
  if begun and not resume:
    raise InputError(
      f'a run in {folder} ({", ".join(begun)})',
      'a new or empty --workdir',
      'add --resume to go on with it, or name another folder',
    )
  if not (folder / 'config.json').exists():
    if begun:
      raise InputError(
        f'{folder} without its config.json',
        'a run directory',
        'name another --workdir',
      )
    return None
  return read_config(folder)


def read_config(folder: pathlib.Path) -> dict:
  """Reads the config of a run.

  Raises:
    InputError: it was begun by an older version, with other keys.
  """
  stored = records.read_json(folder / 'config.json')
  try:
    for key in flatten(stored):
      config_lib.refuse_renamed(key)
  except InputError as error:
    raise InputError(
      f'{folder}, begun by an older version (config.json: {error})',
      'a run of this version: checkpoints have other names now, too',
      'resume it with the version that wrote it, or start anew',
    ) from None
  return stored


def is_over(summary: dict[str, Any], rounds: int) -> bool:
  """Tells whether a run has nothing left to do.

  Args:
    summary: its summary.json, {} where there is none.
    rounds: that it is to have; a finished run may be lengthened.
  """
  status, done = summary.get('status', ''), summary.get('round', 0)
  return (
    status == records.DIVERGED or status == records.COMPLETE and done >= rounds
  )


def identify(
  folder: pathlib.Path,
  simulation,
  stored: dict | None,
  data_dir: str | None,
  note: Callable[[str], None],
) -> str:
  """Writes what makes a run the same one, and takes up what may change.

  Returns:
    The status of a run that has nothing left to do, '' of any other.

  Raises:
    InputError: rounds that it cannot be given.
    StorageError: the folder cannot be written.
  """
  config = simulation.config
  if stored is None:
    now = identity.of(config, data_dir)
    records.write_json(folder / identity.FILE, now)
    metric = metrics.OF[simulation.task.targets]
    records.write_json(folder / fields.FILE, fields.table(metric))
    # Last of the two: without it the folder is no run.
    records.write_json(folder / 'config.json', config)
    return ''
  changed = identity.changes(config, stored)
  path = folder / 'summary.json'
  summary = records.read_json(path) if path.exists() else {}
  status, done = summary.get('status', ''), summary.get('round', 0)
  identity.refuse_rounds(config, stored, done)
  if is_over(summary, config.rounds):
    unused = ', '.join(f'config.{key}' for key in changed if key != 'rounds')
    note(
      f'{folder} is {status} after round {done}: nothing is left to do'
      + (f', and {unused} would change nothing' if unused else '')
    )
    return status
  if 'rounds' in changed and simulation.plans():
    raise identity.planned(config, stored, f'config.method={config.method}')
  if not (folder / identity.FILE).exists():
    note(
      'the files of this run were not recorded before: they are from here on'
    )
    records.write_json(folder / identity.FILE, identity.of(config, data_dir))
  if status == records.COMPLETE and done % config.eval_every:
    note(f'round {done}, which was the last one, stays tested')
  if changed:
    for key, (now, then) in changed.items():
      note(f'config.{key}={now!r} from here on, {then!r} before')
    records.write_json(folder / 'config.json', config)
  if status in records.FINISHED:  # it is to go on
    records.write_json(path, summary | {'status': records.INTERRUPTED})
  return ''


def restore(simulation, folder: pathlib.Path, checkpoints, note) -> None:
  """Puts the simulation where the newest whole checkpoint was made."""
  like, found, history = simulation.snapshot(), None, None
  with processes.together():
    if checkpoints and checkpoints.newest is not None:
      found = checkpoints.restore(like)
    if checkpoints:
      history = cut_records(folder, checkpoints.newest, note)
      for text in checkpoints.notes:
        note(text)
  begun = processes.share(found is not None)
  history = processes.share(history)
  if begun:
    simulation.restore(processes.share_arrays(like, found), history)


def cut_records(folder: pathlib.Path, newest: int | None, note) -> list[dict]:
  """Cuts the records off after the checkpoint; returns those up to it."""
  beside = ('devices.jsonl', 'cosines.jsonl')
  for name in ('metrics.jsonl', *beside):
    if lost := records.half_a_line(folder / name):
      note(f'{folder / name} ended in half a line: {lost} bytes cut off')
  last = -1 if newest is None else newest
  metrics = folder / 'metrics.jsonl'
  if newest is not None and newest not in [
    row['round'] for row in records.read_metrics(metrics)
  ]:
    raise InputError(
      f'{metrics} without round {newest}, of which there is a checkpoint',
      'a line for every evaluation up to it',
      'restore the file, or start anew in another --workdir',
    )
  for name in beside:
    records.truncate_metrics(folder / name, last)
  return records.truncate_metrics(metrics, last)


def run_folders(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Finds the run directories below a folder, in the order of their names."""
  for path, folders, files in os.walk(folder):
    folders.sort()
    if 'metrics.jsonl' in files:
      folders.clear()
      yield pathlib.Path(path)
