"""Opens a run: claims its directory, adopts what is there, and restores."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections

from relief_jax import config as config_lib
from relief_jax.config import registries
from relief_jax.engine import processes
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.runs import simulation as simulation_lib
from relief_jax.storage import (
  board,
  directory,
  identity,
  locks,
  progress,
  records,
)
from relief_jax.storage.callback import Callback
from relief_jax.storage.checkpoints import Checkpoints
from relief_jax.world import World


class Member(NamedTuple):
  """Describes a run, alone or one of several.

  Attributes:
    config: of the run, a config or its plain JSON form.
    workdir: its run directory; None: nothing is written.
    data_dir: where real data is looked for.
    reporter: shows the progress.
    keep: a finished run leaves a checkpoint of its model. Nothing else needs
      it, and for a run of seconds it is a good part of its time.
    callbacks: called while it goes on.
  """

  config: ml_collections.ConfigDict | dict
  workdir: str | os.PathLike | None
  data_dir: str | None = None
  reporter: progress.Quiet = progress.Quiet()
  keep: bool = True
  callbacks: Sequence[Callback] = ()


class Files:
  """Writes the run directory of one simulation.

  Args:
    folder: the run directory.
    checkpoints: below it.
    events: TensorBoard's file below it.
  """

  def __init__(
    self, folder: pathlib.Path, checkpoints: Checkpoints, events: board.Board
  ):
    self._folder, self._checkpoints, self._board = folder, checkpoints, events

  def record(self, simulation, record: dict) -> None:
    """Writes an evaluation and what belongs to it."""
    records.append_line(self._folder / 'metrics.jsonl', record)
    if simulation.run.devices:
      records.append_line(
        self._folder / 'devices.jsonl', simulation.run.devices
      )
    for line in simulation.run.cosines:
      records.append_line(self._folder / 'cosines.jsonl', line)
    self._board.write(board.scalars(record), record['round'])

  def save(self, simulation) -> None:
    """Writes a checkpoint, and what of the last evaluation is in no line."""
    self._confusion(simulation)
    self._checkpoints.save(simulation.round, simulation.snapshot())

  def finish(self, simulation, summary: dict) -> None:
    """Writes the summary, and what of the last evaluation is in no line."""
    self._confusion(simulation)
    records.write_json(self._folder / 'summary.json', summary)

  def _confusion(self, simulation) -> None:
    # Not at every evaluation: a whole file costs ten times a line.
    if simulation.run.confusion:
      records.write_json(
        self._folder / 'confusion.json', simulation.run.confusion
      )


class Opened(NamedTuple):
  """Holds a run that can go on.

  Attributes:
    simulation: where its newest checkpoint was made.
    folder: the run directory, None where nothing is written.
    files: writes it; None there, and in all processes but the first.
  """

  simulation: simulation_lib.Simulation
  folder: pathlib.Path | None = None
  files: Files | None = None


def refuse_comparison(config: ml_collections.ConfigDict | dict) -> None:
  """Refuses the config of several runs.

  Raises:
    InputError: it is one.
  """
  if 'methods' in config:
    raise InputError(
      'a comparison', 'the config of one run', 'use relief compare'
    )


def open_run(
  member: Member,
  resume: bool,
  stack: contextlib.ExitStack,
  find: Callable[..., World | None] | None = None,
) -> Opened | str:
  """Opens a run at its beginning, or where it was left.

  Args:
    member: the run.
    resume: go on from the newest checkpoint; in a new directory, begin.
    stack: holds the directory, until it is closed.
    find: (config, data_dir) -> its world; None: the simulation builds it.

  Returns:
    The run, or the status of one that has nothing left to do.

  Raises:
    InputError: bad config or data, a directory that already holds a run
      (without `resume`) or one of another config (with it).
    PeerError: another process of the run refused or failed.
    StorageError: the directory cannot be written.
  """
  config = _settled(member.config)
  folder, stored = None, None
  if member.workdir is not None:
    folder = pathlib.Path(paths.expand(member.workdir, 'workdir'))
    stored = _adopt(config, folder, resume, member.data_dir)
  elif resume:
    raise InputError('resume without a workdir', 'one', 'name the directory')
  # Called by the simulation: its clock runs while a world is built.
  found = functools.partial(find, config, member.data_dir) if find else None
  simulation = simulation_lib.Simulation(config, member.data_dir, found=found)
  if folder is None:
    return Opened(simulation)
  note = member.reporter.note
  checkpoints, done = None, ''
  with processes.together():
    if processes.is_main():
      _claim(folder, stack)
      done = directory.identify(
        folder, simulation, stored, member.data_dir, note
      )
      if not done:
        checkpoints = stack.enter_context(Checkpoints(folder / 'checkpoints'))
  done = processes.share(done)
  if done:
    return done
  directory.restore(simulation, folder, checkpoints, note)
  files = None
  with processes.together():
    if checkpoints:
      events = board.Board(folder / 'tb', purge=simulation.round + 1)
      files = Files(folder, checkpoints, stack.enter_context(events))
  return Opened(simulation, folder, files)


def _settled(
  config: ml_collections.ConfigDict | dict,
) -> ml_collections.ConfigDict:
  """Copies a config, with all keys that it needs and no others."""
  refuse_comparison(config)
  if isinstance(config, dict):
    config = records.config_from_dict(config)
  config = config.copy_and_resolve_references()
  registries.settle(config)
  config_lib.prune(config)
  return config


def _adopt(
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  resume: bool,
  data_dir: str | None,
) -> dict | None:
  """Reads the config of a begun run, takes up what it left open.

  Returns:
    The stored config, None in a new directory.
  """
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
          folder, identity.resolved(config), data_dir, stored
        )
  return stored


def _claim(folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
  """Makes the directory and holds it until the stack is closed."""
  with records.storing(folder):
    folder.mkdir(parents=True, exist_ok=True)
  stack.enter_context(locks.claim(folder))
  records.remove_drafts(folder)
