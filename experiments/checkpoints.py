"""Checkpoints of a simulation, written and found again with Orbax.

A snapshot is stored as a flat dictionary of its leaves. Its shape comes from
a fresh simulation of the same config, so nothing but arrays is stored.
"""

import pathlib
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from relief_jax.errors import InputError
from relief_jax.types import PyTree

KEEP = 2


class Checkpoints:
  """The newest few snapshots under a folder; use it in a `with` statement."""

  def __init__(self, folder: pathlib.Path):
    """Opens a folder, removing what a killed process left half written.

    Raises:
      OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.LatestN(KEEP),
        create=False,
        cleanup_tmp_directories=True,
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
      OSError: the folder cannot be written.
    """
    if number == self.newest:
      return
    leaves = {k: v for k, v in _flat(snapshot).items() if v.size}
    self._manager.save(number, args=ocp.args.StandardSave(leaves))

  def read(self) -> dict[str, np.ndarray]:
    """The newest snapshot's leaves by their path, as stored.

    Raises:
      InputError: there is none.
    """
    if self.newest is None:
      raise InputError('no checkpoint', 'one', 'start without --resume')
    with warnings.catch_warnings():
      # Given a target, Orbax would pad or cut arrays.
      warnings.simplefilter('ignore')
      found = self._manager.restore(
        self.newest, args=ocp.args.StandardRestore()
      )
    return {k: np.asarray(v) for k, v in found.items()}

  def restore(self, like: PyTree) -> PyTree:
    """The newest snapshot.

    Args:
      like: a snapshot of the same shapes and types.

    Raises:
      InputError: there is none, or its arrays are others.
    """
    found, shapes = self.read(), _flat(like)
    wanted = {k: _kind(v) for k, v in shapes.items() if v.size}
    stored = {k: _kind(v) for k, v in found.items()}
    if wanted != stored:
      key = min(k for k, _ in wanted.items() ^ stored.items())
      raise InputError(
        f'a checkpoint of round {self.newest} with {key}: {stored.get(key)}',
        f'{wanted.get(key)}, as this config has it',
        'resume with the version that wrote it, or start anew',
      )
    leaves = [found.get(k, v) for k, v in shapes.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _kind(leaf: np.ndarray) -> str:
  """Type and shape, such as float32[2, 3]."""
  return f'{leaf.dtype}{list(leaf.shape)}'


def _flat(tree: PyTree) -> dict[str, np.ndarray]:
  """Leaves by their path."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): np.asarray(leaf)
    for path, leaf in leaves
  }
