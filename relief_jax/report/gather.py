"""Finds the runs below folders: of comparisons, of sweeps, single ones."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from relief_jax import plugins
from relief_jax.errors import InputError
from relief_jax.report import tables
from relief_jax.storage import axes, job_spec, records


class Found(NamedTuple):
  """Holds a finished run and all that it left behind.

  Attributes:
    run: for the tables.
    folder: its run directory.
    config: its `config.json`.
    devices: the lines of its `devices.jsonl`; none in older runs.
    cosines: those of its `cosines.jsonl`, where it was asked for.
    values: what the sweep or the comparison set, by dotted key.
  """

  run: tables.Run
  folder: pathlib.Path
  config: dict[str, Any]
  devices: list[dict[str, Any]]
  cosines: list[dict[str, Any]]
  values: dict[str, Any]


class Collection(NamedTuple):
  """Holds the runs that a report is about.

  Attributes:
    found: the finished runs.
    baseline: label within a group that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
    commands: that made them.
    unfinished: name of each other run -> how it stands.
    notes: of the campaigns, such as which values were chosen on what.
  """

  found: list[Found]
  baseline: str
  numbers: str
  commands: list[str]
  unfinished: dict[str, str]
  notes: Sequence[str] = ()

  @property
  def runs(self) -> list[tables.Run]:
    """The finished runs as the tables read them."""
    return [one.run for one in self.found]


class Place(NamedTuple):
  """Describes a run that should be there.

  Attributes:
    label: what is compared.
    seed: of the run, or its fold.
    folder: its run directory.
    values: what the sweep or the comparison set, by dotted key.
    standing: how it stood when the manifest was written.
  """

  label: str
  seed: int
  folder: pathlib.Path
  values: dict
  standing: str = ''


def gather(folders: Sequence[pathlib.Path], baseline: str = '') -> Collection:
  """Reads the runs below folders, and lists those that did not finish.

  Args:
    folders: run directories, or folders of a comparison or a sweep. With
      several, labels begin with the folder's name.
    baseline: label that others are compared with; '' for what the comparison
      says, else fedavg, else the first.

  Raises:
    InputError: a folder without runs, or files that cannot be read.
  """
  found: list[Found] = []
  commands: list[str] = []
  unfinished: dict[str, str] = {}
  says: dict[str, str] = {}
  notes: list[str] = []
  for folder in folders:
    if not folder.is_dir():
      raise InputError(
        f'no folder {folder}', 'a run directory, or one of many', 'check it'
      )
    head = f'{folder.resolve().name}/' if len(folders) > 1 else ''
    listed, facts = places(folder)
    commands += facts.pop('commands', [])
    if note := facts.pop('note', ''):
      notes.append(f'{head}: {note}' if head else note)
    says |= facts
    for place in listed:
      one = _load(place, head, alone=place.folder == folder)
      if isinstance(one, Found):
        found.append(one)
      else:
        unfinished[f'{head}{place.label} {place.folder.name}'] = one
  if not found:
    raise InputError(
      f'no finished run below {", ".join(map(str, folders))}',
      'the --workdir of relief run, compare or sweep',
      'finish one, or check the path',
    )
  labels = [tables.short(one.run.label) for one in found]
  base = baseline or says.get('baseline', '')
  if base not in labels:
    if baseline:
      raise InputError(
        f'--baseline={baseline}',
        f'one of {", ".join(dict.fromkeys(labels))}',
        'correct it',
      )
    base = 'fedavg' if 'fedavg' in labels else labels[0]
  return Collection(
    found, base, says.get('numbers', 'seeds'), commands, unfinished, notes
  )


def places(folder: pathlib.Path) -> tuple[list[Place], dict[str, Any]]:
  """Finds where the runs are, and what the folder says of them.

  Args:
    folder: a run directory, or that of a comparison or a sweep.

  Returns:
    The runs, finished or not, and facts about all of them.

  Raises:
    InputError: files that cannot be read.
  """
  if (folder / 'metrics.jsonl').exists():
    config = records.read_json(folder / 'config.json')
    command = f'relief run --config={folder}/config.json --workdir=NEW'
    place = Place(plugins.short(config['method']), config['seed'], folder, {})
    return [place], {'commands': [command]}
  if found := sorted(folder.glob('manifest*.json'), key=_shard):
    return _of_manifests(folder, [records.read_json(p) for p in found])
  path = folder / 'config.json'
  stored = records.read_json(path) if path.exists() else {}
  if 'methods' in stored:
    vary = stored.get('vary', 'seed')
    number = job_spec.over(vary)
    listed = [
      Place(label, numbers[0], own, {})
      for label in stored['labels']
      for own in sorted((folder / label).glob(f'{number}_*'))
      if (numbers := axes.numbers_of(own.name))
    ]
    command = f'relief compare --config={folder}/config.json --workdir=NEW'
    return listed, {
      'commands': [command],
      'baseline': stored['baseline'],
      'numbers': number + 's',
    }
  listed = []
  for one in _run_folders(folder):
    config = records.read_json(one / 'config.json')
    label, seed = one.relative_to(folder), config['seed']
    if label.name.startswith(('seed_', 'fold_')):
      seed, _ = axes.numbers_of(label.name) or (seed, 0)
      label = label.parent
    listed.append(Place(label.as_posix(), seed, one, {}))
  return listed, {}


def _run_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Finds the run directories below a folder, whatever changes in them."""
  found = []
  for path, folders, files in os.walk(folder):
    if 'metrics.jsonl' in files:
      folders.clear()
      found.append(pathlib.Path(path))
  return sorted(found)


def _shard(path: pathlib.Path) -> tuple[int, int]:
  """Gives the number of a manifest's shard, after how many there are."""
  number, _, parts = path.stem.partition('-')[2].partition('of')
  return (int(parts), int(number)) if parts else (0, 0)


def missing_shards(folder: pathlib.Path) -> list[str]:
  """Lists the parts of a sharded sweep that were never started.

  Args:
    folder: of the sweep.
  """
  shards = {_shard(p) for p in folder.glob('manifest*.json')}
  lacks = [
    [f'{i}/{n}' for i in range(1, n + 1) if (n, i) not in shards]
    for n in {n for n, _ in shards}
  ]
  return min(lacks, key=len, default=[])


def _of_manifests(folder, manifests) -> tuple[list[Place], dict[str, Any]]:
  """Joins the shards' points, in the order in which they were handed out."""
  rows = [
    row
    for i in range(max(len(one['points']) for one in manifests))
    for one in manifests
    for row in one['points'][i : i + 1]
  ]
  listed = {
    row['folder']: Place(
      row['label'],
      row['seed'],
      folder / row['folder'],
      row['values'],
      ': '.join(filter(None, [row['status'], row.get('reason', '')])),
    )
    for row in rows
  }
  known = ('baseline', 'numbers', 'note')
  facts = {k: manifests[0][k] for k in known if k in manifests[0]}
  commands = list(dict.fromkeys(one['command'] for one in manifests))
  return list(listed.values()), {**facts, 'commands': commands}


def _load(place: Place, head: str, alone: bool) -> Found | str:
  """Reads a run, or gives how it stands."""
  folder, label = place.folder, head + place.label
  run = tables.load(folder, label, place.seed)
  if run is None and alone:  # a single run may be looked at on its way
    path = folder / 'summary.json'
    run = tables.Run(
      label,
      place.seed,
      records.read_json(path) if path.exists() else {},
      records.read_metrics(folder / 'metrics.jsonl'),
    )
  if run is None or not run.metrics:
    return place.standing or 'not finished'
  return Found(
    run,
    folder,
    records.read_json(folder / 'config.json'),
    records.read_metrics(folder / 'devices.jsonl'),
    records.read_metrics(folder / 'cosines.jsonl'),
    place.values,
  )


def by_label(found: Sequence[Found]) -> dict[str, list[Found]]:
  """Groups the runs by label, in the order in which labels come."""
  grouped: dict[str, list[Found]] = {}
  for one in found:
    grouped.setdefault(one.run.label, []).append(one)
  return grouped


def f1_of(own: Sequence[Found]) -> float:
  """Averages the last F1, %, over the runs of a label."""
  return 100 * sum(one.run.metrics[-1]['f1'] for one in own) / len(own)


def foremost(
  collection: Collection, most: int, group: str | None = None
) -> dict[str, list[Found]]:
  """Selects the labels with the largest F1, baselines first, at most so many.

  Args:
    collection: of runs.
    most: labels.
    group: of labels; None for all.
  """
  labels = {
    label: own
    for label, own in by_label(collection.found).items()
    if group is None or tables.group_of(label) == group
  }

  def rank(label):
    first = tables.short(label) == collection.baseline
    return (not first, -f1_of(labels[label]))

  kept = set(sorted(labels, key=rank)[:most])
  return {label: own for label, own in labels.items() if label in kept}


def groups(collection: Collection, most: int) -> list[str]:
  """Selects the groups with the largest F1 in them, in their own order."""
  labels = by_label(collection.found).items()
  return tables.best_groups({k: f1_of(own) for k, own in labels}, most)
