"""Runs simulations and writes their run directories.

config.json    the resolved config
identity.json  sums of the files it names (identity.py)
metrics.jsonl  one line per evaluation
devices.jsonl  likewise: who trained what, and a round's seconds by device
confusion.json of the last evaluation, written with a checkpoint and at the end
columns.json   units and meanings of all these fields (fields.py)
cosines.jsonl  with `config.update_similarity`: how alike updates were, by round
summary.json   how it ended and what came out
checkpoints/   the newest two (Orbax)
tb/            TensorBoard
"""

import contextlib
import os
from collections.abc import Callable, Hashable, Sequence

import ml_collections

from relief_jax import sweep, world
from relief_jax.engine import processes
from relief_jax.storage import identity, job_spec, progress, records
from relief_jax.storage.loop import Going, loop
from relief_jax.storage.opening import Member, open_run


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
  done = perform(member, resume)
  return done if isinstance(done, str) else done.status


def perform(member: Member, resume: bool) -> Going | str:
  """Performs one run, as `run`, which tells more.

  Args:
    member: the run.
    resume: go on from the newest checkpoint.

  Returns:
    The run as it ended, or the status of one that had nothing left to do.

  Raises:
    PeerError: as `run`.
    InputError: as `run`.
    StorageError: as `run`.
  """
  with contextlib.ExitStack() as stack:
    opened = open_run(member, resume, stack)
    if isinstance(opened, str):
      return opened
    going = Going(opened, member)
    loop([going])
    return going


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
  """
  left = set(range(len(members)))

  def end(i, result):
    left.remove(i)
    on_end(i, result)

  with contextlib.ExitStack() as stack:
    groups: dict[Hashable, dict[int, Going]] = {}
    for i, member in enumerate(members):
      try:
        opened = open_run(member, True, stack, worlds.find)
      except Exception as error:
        end(i, error)
        continue
      if isinstance(opened, str):
        end(i, opened)
      else:
        name = sweep.alike(opened.simulation) if len(members) > 1 else ''
        groups.setdefault(name, {})[i] = Going(opened, member)
    for group in groups.values():
      try:
        loop(list(group.values()))
      except Exception as error:
        for i, going in group.items():
          end(i, going.status or error)
      else:
        for i, going in group.items():
          end(i, going.status)
