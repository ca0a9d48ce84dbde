"""Runs simulations and writes their run directories.

config.json    the resolved config
identity.json  sums of the files it names (identity.py)
metrics.jsonl  one line per evaluation
devices.jsonl  likewise: who trained what, and a round's seconds by device
confusion.json of the last evaluation
columns.json   units and meanings of all these fields (fields.py)
cosines.jsonl  with `config.cosines`: how alike updates were, a line per round
summary.json   how it ended and what came out
checkpoints/   the newest two (Orbax)
tb/            TensorBoard
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import ml_collections

from relief_jax import config as config_lib
from relief_jax import datasets, plugins, simulate, sweep, world
from relief_jax.config import registries
from relief_jax.engine import processes
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.storage import (
  board,
  directory,
  identity,
  job_spec,
  locks,
  progress,
  records,
)
from relief_jax.storage.checkpoints import Checkpoints
from relief_jax.storage.stop import Stop


def run(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  data_dir: str | None = None,
  resume: bool = False,
  reporter: progress.Quiet | None = None,
) -> str:
  """Runs a config to its end, or until it is asked to stop.

  Args:
    config: of the run.
    workdir: its run directory.
    data_dir: where real data is looked for.
    resume: go on from the newest checkpoint; in a new directory, begin.
    reporter: shows the progress.

  Returns:
    The status: 'complete', 'interrupted' or 'diverged'.

  Of several processes all call this, and the first one alone touches the
  directory.

  Raises:
    PeerError: another process of the run refused or failed.
    InputError: bad config or data, a directory that already holds a run
      (without `resume`) or one of another config (with it).
    StorageError: the directory cannot be written.
  """
  member = Member(config, workdir, data_dir, reporter or progress.Quiet())
  with contextlib.ExitStack() as stack:
    opened = _open(member, resume, stack)
    if not isinstance(opened, str):
      _loop([opened])
      opened = opened.status
  return opened


class Member(NamedTuple):
  """Describes one of several runs.

  Attributes:
    config: of the run, a config or its plain JSON form.
    workdir: its run directory.
    data_dir: where real data is looked for.
    reporter: shows the progress.
    keep: a finished run leaves a checkpoint of its model. Nothing else needs
      it, and for a run of seconds it is a good part of its time.
  """

  config: ml_collections.ConfigDict | dict
  workdir: str | os.PathLike
  data_dir: str | None = None
  reporter: progress.Quiet = progress.Quiet()
  keep: bool = True


class Worlds:
  """Keeps the world built last: runs that differ in training share it."""

  def __init__(self) -> None:
    """Starts without a world."""
    self._name = ''
    self._world: world.World | None = None

  def find(self, config, data_dir: str | None):
    """Finds the world of a config, None where the simulation makes its own.

    Args:
      config: of the run.
      data_dir: where real data is looked for.

    Raises:
      InputError: whatever is wrong with the config, the data or the fleet.
    """
    if config.devices != 1 or processes.count() > 1:
      return None
    about = identity.of(config, data_dir), job_spec.world(records.clean(config))
    name = f'{data_dir} {about}'
    if name != self._name:
      self._world = world.build(config, data_dir)
      self._name = name
    return self._world


def run_together(
  members: Sequence[Member],
  worlds: Worlds,
  on_end: Callable[[int, str | Exception], None],
) -> None:
  """Runs several configs of one structure, and resumes those begun.

  Those that stand at the same round go on in one program. What goes wrong
  with one is its own affair.

  Args:
    members: the runs.
    worlds: shared by them and by calls to come.
    on_end: called with the number of a run and its status, as `run` returns
      it, or what it raised.

  Raises:
    BrokenPipeError: nobody listens to a reporter any more.
  """
  left = set(range(len(members)))

  def end(i, result):
    left.remove(i)
    on_end(i, result)

  with contextlib.ExitStack() as stack:
    groups: dict[Hashable, dict[int, _Open]] = {}
    for i, member in enumerate(members):
      try:
        opened = _open(member, True, stack, worlds)
      except BrokenPipeError:
        raise
      except Exception as error:
        end(i, error)
        continue
      if isinstance(opened, str):
        end(i, opened)
      else:
        name = sweep.alike(opened.simulation) if len(members) > 1 else ''
        groups.setdefault(name, {})[i] = opened
    for group in groups.values():
      try:
        _loop(list(group.values()))
      except BrokenPipeError:
        raise
      except Exception as error:
        for i, opened in group.items():
          end(i, opened.status or error)
      else:
        for i, opened in group.items():
          end(i, opened.status)


def refuse_comparison(config: ml_collections.ConfigDict | dict) -> None:
  """Refuses the config of several runs.

  Raises:
    InputError: it is one.
  """
  if 'methods' in config:
    raise InputError(
      'a comparison', 'the config of one run', 'use relief compare'
    )


def _open(
  member: Member,
  resume: bool,
  stack: contextlib.ExitStack,
  worlds: Worlds | None = None,
) -> '_Open | str':
  """Claims the directory and restores; the status where nothing is left."""
  config = member.config
  refuse_comparison(config)
  if isinstance(config, dict):
    config = records.config_from_dict(config)
  folder = pathlib.Path(paths.expand(member.workdir, 'workdir'))
  config = config.copy_and_resolve_references()
  registries.settle(config)
  config_lib.prune(config)
  with processes.together():
    stored = (
      directory.stored_config(folder, resume) if processes.is_main() else None
    )
  stored = processes.share(stored)
  if stored:
    identity.adopt(config, stored)
    with processes.together():
      if processes.is_main():  # before a world is built
        identity.refuse_other(
          folder, identity.resolved(config), member.data_dir, stored
        )
  # Called by the simulation: its clock runs while a world is built.
  found = (
    functools.partial(worlds.find, config, member.data_dir) if worlds else None
  )
  simulation = simulate.Simulation(config, member.data_dir, found=found)
  checkpoints, done = None, ''
  with processes.together():
    if processes.is_main():
      with records.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
      stack.enter_context(locks.claim(folder))
      records.remove_drafts(folder)
      done = directory.identify(
        folder, simulation, stored, member.data_dir, member.reporter.note
      )
      if not done:
        checkpoints = stack.enter_context(Checkpoints(folder / 'checkpoints'))
  done = processes.share(done)
  if done:
    return done
  directory.restore(simulation, folder, checkpoints, member.reporter.note)
  file = None
  with processes.together():
    if processes.is_main():
      file = stack.enter_context(
        board.Board(folder / 'tb', purge=simulation.round + 1)
      )
  return _Open(simulation, folder, checkpoints, file, member)


class _Open:
  """Holds a simulation and its open run directory.

  Attributes:
    simulation: the run.
    status: how it ended, '' while it goes on.
    invented: its data are synthetic though the config did not say so.
    reporter: shows the progress.
  """

  def __init__(self, simulation, folder, checkpoints, file, member: Member):
    self.simulation, self.status = simulation, ''
    self.invented = (
      member.config['dataset'] == 'auto'
      and simulation.config.dataset == 'synthetic'
    )
    self.reporter, self._keep = member.reporter, member.keep
    self._folder, self._checkpoints, self._board = folder, checkpoints, file
    self._saved = simulation.round

  def record(self, record: dict) -> None:
    """Writes an evaluation."""
    if processes.is_main():
      if self.simulation.run.confusion:
        records.write_json(
          self._folder / 'confusion.json', self.simulation.run.confusion
        )
      records.append_line(self._folder / 'metrics.jsonl', record)
      if self.simulation.run.devices:
        records.append_line(
          self._folder / 'devices.jsonl', self.simulation.run.devices
        )
      for line in self.simulation.run.cosines:
        records.append_line(self._folder / 'cosines.jsonl', line)
      self._board.write(board.scalars(record), record['round'])
    self.reporter.update(record)

  def take(self, outcome: dict | simulate.Diverged | None) -> None:
    """Takes what came out of a call; None where the run had ended before."""
    if isinstance(outcome, dict):
      self.record(outcome)
    elif outcome:
      self.finish(
        records.DIVERGED,
        diverged_round=outcome.round,
        diverged_group=outcome.group,
        reason=str(outcome),
      )

  def settle(self, requested: bool) -> None:
    """Saves where it is time to, and ends where it is over."""
    run = self.simulation
    due = 0 < run.config.checkpoint_every <= run.round - self._saved
    if self._keep if run.done else due or requested:
      if self._checkpoints:
        self._checkpoints.save(run.round, run.snapshot())
      self._saved = run.round
    if run.done or requested:
      self.finish(records.COMPLETE if run.done else records.INTERRUPTED)

  def finish(self, status: str, **failure) -> None:
    """Writes the summary."""
    summary = {
      'schema': records.SCHEMA,
      'status': status,
      'round': self.simulation.round,
      **self.simulation.summary(),
      **failure,
      **records.environment(),
    }
    if processes.is_main():
      records.write_json(self._folder / 'summary.json', summary)
    self.status = status
    self.reporter.finish(summary)


def _loop(runs: list[_Open]) -> None:
  """Runs simulations to their ends: evaluates, records and saves."""
  first = runs[0].simulation
  together = (
    sweep.Together([run.simulation for run in runs]) if len(runs) > 1 else None
  )
  with Stop() as stop:
    for run in runs:
      config = run.simulation.config
      run.reporter.start(
        title(run.simulation), config.rounds, run.simulation.round
      )
      if run.invented:
        run.reporter.note(datasets.remark(['synthetic']))
      run.reporter.note(str(run.simulation.choice))
    estimate = str((together or first).prepare())
    for run in runs:
      run.reporter.note(estimate)
      if run.simulation.done:  # killed before the summary
        run.finish(records.COMPLETE)
    while not all(run.status for run in runs):
      outcomes = together.advance() if together else [_advance(first)]
      # A signal may have reached one process only.
      requested = any(processes.gather(stop.requested))
      with processes.together():  # only the first one meets a full disk
        for run, outcome in zip(runs, outcomes, strict=True):
          run.take(outcome)
          if not run.status:
            run.settle(requested)


def _advance(simulation) -> dict | simulate.Diverged:
  """Advances one simulation, as `sweep.Together.advance` does several."""
  try:
    return simulation.advance()
  except simulate.Diverged as error:
    return error


def title(simulation) -> str:
  """Describes a run in a few words."""
  config, facts = simulation.config, simulation.description
  tiers = ', '.join(f'{n} {k}' for k, n in facts['tiers'].items())
  return (
    f'{plugins.short(config.method)} on {facts["dataset"]}, {config.backbone}, '
    f'seed {config.seed}: {facts["clients_per_round"]} of '
    f'{facts["clients"]} clients a round ({tiers}), speed ratio '
    f'{facts["speed_ratio"]:.0f}, deadline {facts["deadline"][0]:.3g}, '
    f'{facts["parameters"]:,} parameters, {facts["layout"]}'
  )
