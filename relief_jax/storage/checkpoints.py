"""Checkpoints of a simulation, written and found again with Orbax.

A snapshot is stored as a flat dictionary of its leaves. Its shape comes from
a fresh simulation of the same config, so nothing but arrays is stored, and
beside them their SHA-256: bytes that a disk or a copy has changed are found
out, whatever the storage format notices itself. **Ours.**
"""

import functools
import hashlib
import pathlib
import re
import sys
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from relief_jax import tree as tree_lib
from relief_jax.errors import InputError
from relief_jax.storage import records
from relief_jax.types import PyTree

KEEP = 2
_SUM = 'sha256'
# Counts that versions before did not keep; they start as in a fresh run.
_NEWER = ('picks',)
# How tensorstore names what the system said.
_SYSTEM = re.compile(r"os_error_code='(\d+)'")


class Damaged(Exception):
  """Raised when a checkpoint's bytes are not those that were written."""


class Checkpoints:
  """Keeps the newest snapshots under a folder; use it in a `with` statement.

  Attributes:
    notes: what happened while restoring that a user wants to know.
  """

  def __init__(self, folder: pathlib.Path, read_only: bool = False):
    """Opens a folder, removing what a killed process left half written.

    Args:
      folder: of the snapshots.
      read_only: nothing is written, removed or moved: others may hold it.

    Raises:
      StorageError: the folder cannot be made.
    """
    self._folder, self.notes = folder, list[str]()
    self._read_only = read_only
    _hush_libraries()
    with records.storing(folder):
      if not read_only:
        folder.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        folder.absolute(),
        options=ocp.CheckpointManagerOptions(
          preservation_policy=(
            None if read_only else checkpoint_managers.LatestN(KEEP)
          ),
          create=False,
          read_only=read_only,
          cleanup_tmp_directories=not read_only,
          enable_async_checkpointing=False,
          # Of several processes only this one has anything to do with it.
          multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix='checkpoints',
          ),
        ),
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._manager.close()

  @property
  def newest(self) -> int | None:
    """The round of the newest snapshot."""
    return self._manager.latest_step()

  def save(self, number: int, snapshot: PyTree) -> None:
    """Writes the snapshot after round `number`, unless it is there already.

    Raises:
      StorageError: the folder cannot be written.
    """
    if number == self.newest:
      return
    leaves = {k: v for k, v in _flat(snapshot).items() if v.size}
    leaves[_SUM] = _checksum(leaves)
    with records.storing(self._folder / str(number)):
      try:
        self._manager.save(number, args=ocp.args.StandardSave(leaves))
      except ValueError as error:
        found = _SYSTEM.search(str(error))
        if not found:
          raise
        raise OSError(int(found[1]), 'by tensorstore') from error

  def read(self) -> dict[str, np.ndarray]:
    """Reads the newest whole snapshot's leaves by their path, as stored.

    A damaged one is moved aside, to `damaged_ROUND` beside the folder, and the
    one before it counts; if none is whole, nothing is touched.

    Raises:
      InputError: there is none, or none is whole.
      StorageError: a damaged one cannot be moved.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    if not steps:
      raise InputError('no checkpoint', 'one', 'start without --resume')
    broken: dict[int, Damaged] = {}
    for step in steps:
      try:
        found = self._read(step)
        break
      except Damaged as error:
        broken[step] = error
    else:
      raise InputError(
        f'damaged checkpoints in {self._folder} (round {steps[0]}: '
        f'{broken[steps[0]]})',
        'one that is as it was written',
        'restore the folder from a copy, or start anew in another --workdir',
      )
    for bad, why in broken.items():
      self._put_aside(bad, why, step)
    return found

  def _put_aside(self, bad: int, why: Damaged, instead: int) -> None:
    """Moves a checkpoint out of the way, and takes a note of it."""
    if self._read_only:
      self.notes.append(
        f'the checkpoint of round {bad} is damaged ({why}): that of round '
        f'{instead} is read'
      )
      return
    place = self._folder.with_name(f'damaged_{bad}')
    number = 1
    while place.exists():
      number += 1
      place = self._folder.with_name(f'damaged_{bad}_{number}')
    with records.storing(place):
      (self._folder / str(bad)).rename(place)
    self._manager.reload()
    self.notes.append(
      f'the checkpoint of round {bad} is damaged ({why}): moved to {place}, '
      f'going on from round {instead}'
    )

  def _read(self, step: int) -> dict[str, np.ndarray]:
    """Reads the leaves of one checkpoint.

    Raises:
      Damaged: its bytes are others than those that were written.
    """
    try:
      with warnings.catch_warnings():
        # Given a target, Orbax would pad or cut arrays.
        warnings.simplefilter('ignore')
        found = self._manager.restore(step, args=ocp.args.StandardRestore())
      leaves = {k: np.asarray(v) for k, v in found.items()}
    except MemoryError:
      raise
    except Exception as error:  # whatever the libraries make of broken bytes
      words = str(error).splitlines() or ['']
      raise Damaged(f'{type(error).__name__}: {words[0][:200]}') from error
    stored = leaves.pop(_SUM, None)  # those of older versions have none
    if stored is not None and stored.tolist() != _checksum(leaves).tolist():
      raise Damaged('its checksum is another')
    return leaves

  def restore(self, like: PyTree) -> PyTree:
    """Restores the newest whole snapshot, see `read`.

    Args:
      like: a snapshot of the same shapes and types.

    Raises:
      InputError: there is none, or its arrays are others.
      StorageError: a damaged one cannot be moved.
    """
    found, shapes = self.read(), _flat(like)
    wanted = {k: _kind(v) for k, v in shapes.items() if v.size}
    stored = {k: _kind(v) for k, v in found.items()}
    wanted = {k: v for k, v in wanted.items() if k in stored or k not in _NEWER}
    if wanted != stored:
      key = min(k for k, _ in wanted.items() ^ stored.items())
      raise InputError(
        f'a checkpoint of round {self.newest} with {key}: {stored.get(key)}',
        f'{wanted.get(key)}, as this config has it',
        'resume with the version that wrote it, or start anew',
      )
    leaves = [found.get(k, v) for k, v in shapes.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


# Of Orbax.
_NOISE = (
  '_SignalingThread.run() raised',
  'CheckpointManagerOptions.read_only=True',
  'Given directory is read only',
)


@functools.cache
def _hush_libraries() -> None:
  """Silences what libraries say beside what is raised or was asked for.

  Threads print tracebacks on a full disk, also after `save` failed; what went
  wrong is in what it raises. That a folder is only read was our own wish.
  """
  logging.get_absl_logger().addFilter(
    lambda record: not any(text in str(record.msg) for text in _NOISE)
  )
  before = sys.unraisablehook

  def hook(told):
    # Of tensorstore, for an answer that nobody waits for any more.
    if str(told.exc_value) != 'Event loop is closed':
      before(told)

  sys.unraisablehook = hook


def _checksum(leaves: dict[str, np.ndarray]) -> np.ndarray:
  """Computes the SHA-256 of names, types, shapes and bytes, [32] uint8."""
  found = hashlib.sha256()
  for key, leaf in sorted(leaves.items()):
    found.update(f'{key} {_kind(leaf)} '.encode())
    found.update(np.ascontiguousarray(leaf).data)
  return np.frombuffer(found.digest(), np.uint8)


def _kind(leaf: np.ndarray) -> str:
  """Gives type and shape as text, such as float32[2, 3]."""
  return f'{leaf.dtype}{list(leaf.shape)}'


def _flat(tree: PyTree) -> dict[str, np.ndarray]:
  """Maps the path of each leaf to its value."""
  leaves = tree_lib.named_leaves(jax.device_get(tree))
  return {name: np.asarray(leaf) for name, leaf in leaves.items()}
