"""Finds the runs below folders: of comparisons, of sweeps, single ones."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from relief_jax import plugins
from relief_jax.errors import InputError
from relief_jax.report import columns, labels, palette
from relief_jax.report import frame as frames
from relief_jax.scoring import metrics
from relief_jax.storage import axes, directory, job_spec, records


class Run(NamedTuple):
  """Holds one finished run.

  Attributes:
    label: what is compared.
    seed: of the run.
    fold: that it is tested on.
    summary: its `summary.json`.
    metrics: the lines of its `metrics.jsonl`.
    folder: its run directory.
    config: its `config.json`.
    values: what the sweep or the comparison set, by dotted key.
  """

  label: str
  seed: int
  fold: int
  summary: dict[str, Any]
  metrics: list[dict[str, Any]]
  folder: pathlib.Path = pathlib.Path()
  config: Mapping[str, Any] = types.MappingProxyType({})
  values: Mapping[str, Any] = types.MappingProxyType({})

  def lines(self, name: str) -> list[dict[str, Any]]:
    """Reads another of its files, `devices` or `cosines`; [] without."""
    return records.read_metrics(self.folder / f'{name}.jsonl')


@dataclasses.dataclass(frozen=True)
class Collection:
  """Holds the runs that a report is about.

  Attributes:
    runs: the finished ones.
    baseline: label within a group that the others are compared with.
    numbers: what a mean is over, 'seeds' or 'folds'.
    commands: that made them.
    unfinished: name of each other run -> how it stands.
    notes: of the campaigns, such as which values were chosen on what.
    score: name of the metric that they are compared by; '': the main one.
  """

  runs: Sequence[Run]
  baseline: str
  numbers: str = 'seeds'
  commands: Sequence[str] = ()
  unfinished: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: Sequence[str] = ()
  score: str = ''

  @functools.cached_property
  def frame(self) -> pd.DataFrame:
    """All that they recorded (`frame.tidy`)."""
    return frames.tidy(self.runs)

  @functools.cached_property
  def values(self) -> pd.DataFrame:
    """The numbers of the tables, run by run (`columns.numbers`)."""
    return columns.numbers(self.frame, self.baseline, self.metric)

  @functools.cached_property
  def metric(self) -> metrics.Metric:
    """The metric that the runs are compared by.

    Raises:
      InputError: the main ones of the runs differ, or `score` is none of
        theirs.
    """
    found = {
      metrics.of(run.metrics[-1]): run.label for run in self.runs if run.metrics
    }
    if len(found) > 1:
      raise InputError(
        f'runs scored by {" and ".join(m.title for m in found)}, of '
        f'{" and ".join(found.values())}',
        'runs of one kind of targets in a report',
        'report them apart',
      )
    main = next(iter(found), metrics.F1)
    known = {one.name: one for one in main.pair}
    if self.score and self.score not in known:
      raise InputError(
        f'--metric={self.score}',
        f'{" or ".join(known)}, which these runs have',
        'correct it',
      )
    return known.get(self.score, main)

  @functools.cached_property
  def scores(self) -> dict[str, float]:
    """The last main metric of every label, mean over its runs."""
    last = frames.last(self.frame, self.metric.name)
    return last.groupby('label', sort=False).value.mean().to_dict()

  @property
  def rank(self) -> dict[str, float]:
    """The same, so that the largest is best."""
    return {k: self.metric.sign * v for k, v in self.scores.items()}

  @functools.cached_property
  def styles(self) -> dict[str, dict[str, Any]]:
    """Colour, dashes and marker of every label, the same in every group.

    Labels that are the best of a group together differ in colour if possible.
    """
    rank = self.rank
    best = sorted(rank, key=lambda label: -rank[label])
    names = dict.fromkeys(map(labels.short, best))
    panels = [
      set(map(labels.short, self.foremost(palette.LINES, group)))
      for group in labels.grouped(rank)
    ]
    number = {self.baseline: 0}
    for name in names:
      beside = set().union(*(panel for panel in panels if name in panel))
      used = {palette.style(number[x])['color'] for x in beside & set(number)}
      free = [n for n in range(len(names) + 50) if n not in number.values()]
      own = [n for n in free if palette.style(n)['color'] not in used]
      number.setdefault(name, (own or free)[0])
    return {label: palette.style(number[labels.short(label)]) for label in rank}

  @functools.cached_property
  def by_label(self) -> dict[str, list[Run]]:
    """The runs of every label, in the order in which labels come."""
    grouped: dict[str, list[Run]] = {}
    for run in self.runs:
      grouped.setdefault(run.label, []).append(run)
    return grouped

  def foremost(self, most: int, group: str | None = None) -> list[str]:
    """Selects labels (`labels.foremost`)."""
    return labels.foremost(self.rank, self.baseline, most, group)

  def firsts(self, name: str, most: int) -> list[tuple[Run, list[dict]]]:
    """Finds the first run of the best labels with another file, and its lines.

    Args:
      name: of the file, as of `Run.lines`.
      most: labels.
    """
    found = []
    for label in self.foremost(most):
      for run in self.by_label[label]:
        if 'fleet' in run.summary and (lines := run.lines(name)):
          found.append((run, lines))
          break
    return found

  def count(self, label: str) -> int:
    """Counts the seeds or folds that a label was run with."""
    number = self.numbers.removesuffix('s')
    return len({getattr(run, number) for run in self.by_label[label]})

  def groups(self, most: int) -> list[str]:
    """Selects groups of labels (`labels.best_groups`)."""
    return labels.best_groups(self.rank, most)


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


def gather(
  folders: Sequence[pathlib.Path], baseline: str = '', score: str = ''
) -> Collection:
  """Reads the runs below folders, and lists those that did not finish.

  Args:
    folders: run directories, or folders of a comparison or a sweep. With
      several, labels begin with the folder's name.
    baseline: label that others are compared with; '' for what the comparison
      says, else fedavg, else the first.
    score: name of the metric that they are compared by; '': the main one.

  Raises:
    InputError: a folder without runs, or files that cannot be read.
  """
  found: list[Run] = []
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
      label, alone = head + place.label, place.folder == folder
      run = load(place.folder, label, place.values, unfinished=alone)
      if run and run.metrics:
        found.append(run)
      else:
        why = place.standing or 'not finished'
        unfinished[f'{label} {place.folder.name}'] = why
  if not found:
    raise InputError(
      f'no finished run below {", ".join(map(str, folders))}',
      'the --workdir of relief run, compare or sweep',
      'finish one, or check the path',
    )
  names = [labels.short(run.label) for run in found]
  base = baseline or says.get('baseline', '')
  if base not in names:
    if baseline:
      raise InputError(
        f'--baseline={baseline}',
        f'one of {", ".join(dict.fromkeys(names))}',
        'correct it',
      )
    base = 'fedavg' if 'fedavg' in names else names[0]
  return Collection(
    found,
    base,
    says.get('numbers', 'seeds'),
    commands,
    unfinished,
    notes,
    score,
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
  for one in directory.run_folders(folder):
    config = records.read_json(one / 'config.json')
    seed, _ = axes.numbers_of(one.name) or (config['seed'], 0)
    label = axes.label_of(one.relative_to(folder))
    listed.append(Place(label, seed, one, {}))
  return listed, {}


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


def load(
  folder: pathlib.Path,
  label: str,
  values: Mapping[str, Any] = types.MappingProxyType({}),
  unfinished: bool = False,
) -> Run | None:
  """Reads a finished run, None where it is not finished.

  Args:
    folder: its run directory.
    label: what is compared.
    values: what the sweep or the comparison set, by dotted key.
    unfinished: reads one on its way, too.

  Raises:
    InputError: a file of the run that cannot be read.
  """
  path = folder / 'summary.json'
  summary = records.read_json(path) if path.exists() else {}
  if summary.get('status') not in records.FINISHED and not unfinished:
    return None
  config = records.read_json(folder / 'config.json')
  try:
    seed, fold = int(config['seed']), int(config['data'].get('fold', 0))
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise InputError(
      f'{folder}/config.json without its seed and data.fold',
      'the config of a run',
      'restore the file',
    ) from error
  metrics = records.read_metrics(folder / 'metrics.jsonl')
  return Run(label, seed, fold, summary, metrics, folder, config, values)
