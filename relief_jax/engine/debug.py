"""Runs one client after the other without jit: layout `debug`. **Ours.**

Values are numbers and not tracers, so that `print` and a debugger show them,
and an error of one client's computation says whose it is.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from relief_jax.errors import Portable
from relief_jax.task import Task
from relief_jax.types import PyTree


class ClientError(Portable, RuntimeError):
  """Raised when the computation of one client fails, from the error itself.

  Attributes:
    round: number of the round, from 1; None where it is not known.
    client: its id.
    tier: its number; `Simulation` puts the name here.
    block: first block of the model that is not finite, or ''.
  """

  def __init__(
    self, round: int | None, client: int, tier: int | str, why: str, block: str
  ):
    where = f'client {client} of tier {tier}'
    if round is not None:
      where = f'round {round}, {where}'
    if block:
      where += f', block {block!r}'
    super().__init__(f'{where}: {why}')
    self.round, self.client, self.tier = round, client, tier
    self.block, self.why = block, why

  def named(self, tiers: tuple[str, ...]) -> 'ClientError':
    """Gives the same error with the name of its tier."""
    tier = tiers[self.tier] if isinstance(self.tier, int) else self.tier
    return ClientError(self.round, self.client, tier, self.why, self.block)


class _NotFinite(Portable, FloatingPointError):
  """Raised when a number in a block is not finite."""

  def __init__(self, block: str):
    super().__init__('the update is not finite')
    self.block = block


def _concrete(value: Any) -> bool:
  return not isinstance(value, jax.core.Tracer)


@contextlib.contextmanager
def located(shared: PyTree, row: PyTree) -> Iterator[None]:
  """Adds round, client and tier to an error of the client function.

  Args:
    shared: what all clients see; it, or a part of it, has a `round_index`.
    row: of the client, with its `fleet`.

  Raises:
    ClientError: from any other error.
  """
  try:
    yield
  except ClientError:
    raise
  except Exception as error:
    fleet = getattr(row, 'fleet', None)
    if fleet is None or not _concrete(fleet.id):
      raise
    found = _round_index(shared)
    why = str(error)
    if not isinstance(error, _NotFinite):
      why = f'{type(error).__name__}: {error}'
    raise ClientError(
      None if found is None else int(found) + 1,
      int(fleet.id),
      int(fleet.tier),
      why,
      getattr(error, 'block', ''),
    ) from error


def _round_index(shared: PyTree) -> Any:
  """Finds the number of the round in what clients share; None without."""
  for part in (shared, *(shared if isinstance(shared, tuple) else ())):
    found = getattr(part, 'round_index', None)
    if found is not None and _concrete(found):
      return found
  return None


def check_finite(task: Task, loss: Any, delta: PyTree) -> None:
  """Refuses an update that is not finite; nothing while tracing.

  Args:
    task: the model.
    loss: [] of the training.
    delta: P.

  Raises:
    FloatingPointError: with the `block`; inside of `located`.
  """
  if not all(map(_concrete, jax.tree.leaves((loss, delta)))):
    return
  broken = jax.tree.map(
    lambda g, part: (
      int(g)
      if not all(map(_finite, jax.tree.leaves(part)))
      else task.num_blocks
    ),
    task.groups,
    delta,
  )
  first = min(jax.tree.leaves(broken))
  if first < task.num_blocks:
    raise _NotFinite(task.blocks.name[first])
  if not _finite(loss):
    raise FloatingPointError(f'the loss is {float(loss)}')


def _finite(value: Any) -> bool:
  return bool(np.isfinite(np.asarray(value)).all())


def eager(function: Callable) -> Callable:
  """Gives a function that runs without jit, operation by operation."""

  def run(*args):
    with jax.disable_jit():
      return function(*args)

  return run
