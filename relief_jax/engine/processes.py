"""Joins several processes in one simulation, and makes them agree.

`jax.distributed` joins the devices of all processes into one mesh; the round
itself (`placement.py`) does not know the difference. Every process runs the
same program on the host too. What only one of them can know (a file that is
there, an error, a signal) is told to all before anything depends on it: a
process that waits for another in a collective waits for ever.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from relief_jax.errors import InputError
from relief_jax.types import PyTree

AUTO = 'auto'
# Seconds. All processes are started together; a dead one is found out later.
_START, _HEARTBEAT, _SHUTDOWN = 120, 30, 30


class PeerError(RuntimeError):
  """Raised when another process of this run failed; its message is included."""


def start(
  coordinator: str | None, count: int | None, number: int | None
) -> None:
  """Joins the other processes; must come before JAX starts its backend.

  Args:
    coordinator: `host:port` of process 0, 'auto' to read all three from the
      environment (Slurm, Open MPI, Kubernetes, Cloud TPU), None for a run of
      one process.
    count: number of processes.
    number: of this process, from 0.

  Raises:
    InputError: an incomplete or impossible set, nothing to read, or the
      others did not come.
  """
  if (coordinator, count, number) == (None, None, None):
    return
  if (coordinator, count, number) == (AUTO, None, None):
    _join({})
    return
  if coordinator is None or count is None or number is None:
    raise InputError(
      f'--coordinator={coordinator} --num_processes={count} '
      f'--process_id={number}',
      'all three, or --coordinator=auto alone',
      'add --coordinator=HOST:PORT --num_processes=2 --process_id=0',
    )
  if not 0 <= number < count:
    raise InputError(
      f'process {number} of {count}',
      f'a number from 0 to {count - 1}',
      'set --process_id, counted from 0',
    )
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdigit():
    raise InputError(
      f'--coordinator={coordinator}',
      'the address HOST:PORT of process 0',
      'set --coordinator=127.0.0.1:12321 where all run on one machine',
    )
  if count == 1:
    return
  _join(
    dict(
      coordinator_address=coordinator,
      num_processes=count,
      process_id=number,
      cluster_detection_method='deactivate',
    )
  )


def _join(options: dict[str, Any]) -> None:
  # It would take SIGTERM for itself; a stop is agreed on between rounds.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      initialization_timeout=_START,
      heartbeat_timeout_seconds=_HEARTBEAT,
      shutdown_timeout_seconds=_SHUTDOWN,
      **options,
    )
  except (ValueError, RuntimeError) as error:
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    raise InputError(
      f'no run of several processes ({reason})',
      f'all processes to be started within {_START} s of each other'
      if options
      else 'the environment of Slurm, Open MPI, Kubernetes or Cloud TPU',
      'check the address and that process 0 runs'
      if options
      else 'give --coordinator=HOST:PORT --num_processes --process_id',
    ) from error


def started() -> bool:
  """Tells whether `start` joined others; starts no backend, as `count` does."""
  return jax.distributed.is_initialized()


def count() -> int:
  """Counts the processes of this run."""
  return jax.process_count()


def is_main() -> bool:
  """Tells whether this process is the one that writes files."""
  return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
  """Gathers the values of all processes, in their order; JSON types only."""
  if count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array([text.size], np.int32))
  sizes = np.asarray(sizes).ravel()
  # One of few lengths, since each is a small program of its own.
  length = max(64, 1 << int(sizes.max() - 1).bit_length())
  padded = np.pad(text, (0, length - text.size))
  found = np.asarray(multihost_utils.process_allgather(padded))
  return [
    json.loads(bytes(row[:size]))
    for row, size in zip(found, sizes, strict=True)
  ]


def share(value: Any) -> Any:
  """Broadcasts process 0's value; JSON types only."""
  return gather(value if is_main() else None)[0]


def share_arrays(like: PyTree, value: PyTree | None) -> PyTree:
  """Broadcasts process 0's arrays, bit for bit.

  Args:
    like: numpy arrays of the same shapes and types, on every process.
    value: on process 0.
  """
  if count() == 1:
    return value
  leaves, structure = jax.tree.flatten(like)
  leaves = [np.asarray(v) for v in leaves]
  send = leaves
  if is_main():
    send = [np.asarray(v) for v in jax.tree.leaves(value)]
  # As bytes: on its own a collective would round float64 to float32.
  flat = np.concatenate(
    [np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in send]
  )
  flat = np.asarray(multihost_utils.broadcast_one_to_all(flat))
  ends = np.cumsum([v.nbytes for v in leaves])
  parts = np.split(flat, ends[:-1])
  return jax.tree.unflatten(
    structure,
    [
      np.frombuffer(part.tobytes(), v.dtype).reshape(v.shape)
      for part, v in zip(parts, leaves, strict=True)
    ],
  )


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Makes all processes leave the block well, or all of them with an error.

  The block itself must hold no collective.

  Raises:
    PeerError: in all that were well, what the first other one said.
  """
  if count() == 1:
    yield
    return
  failure: Exception | None = None
  try:
    yield
  except Exception as error:  # told to the others, raised below
    failure = error
  said = gather(f'{type(failure).__name__}: {failure}' if failure else None)
  if failure:
    raise failure
  for number, text in enumerate(said):
    if text:
      raise PeerError(f'process {number} of {count()} failed. {text}')


def agree(what: str, value: str) -> None:
  """Requires that all processes hold the same text.

  Raises:
    InputError: in every process, where they differ.
  """
  values = gather(value)
  for number, other in enumerate(values):
    if other != values[0]:
      raise InputError(
        f'process {number} with another {what} than process 0 '
        f'({_difference(values[0], other)})',
        'the same in all processes',
        'start all of them with the same command but for --process_id',
      )


def _difference(a: str, b: str) -> str:
  """Finds the first line in which two texts differ."""
  for left, right in zip(a.splitlines(), b.splitlines(), strict=False):
    if left != right:
      return f'{right.strip()} instead of {left.strip()}'
  return 'one is longer'
