"""Trains clients of like sensors together, where nothing skips. **Ours.**

Under a vmap an absent encoder costs as much as a present one. Here the clients
are cut into a few buckets on the host, and a bucket's program holds no encoder
that none of its clients has. Rare signatures share a bucket with a superset of
their sensors; masks do the rest, so results agree to rounding.

The buckets are static, so everybody must take part: of a drawn cohort nobody
knows beforehand how many fall into each, and drawing a fixed share of every
bucket instead would be another sampling. A run with `clients_per_round` trains
in one bucket. So does `fill='input'`, where everybody runs everything, and a
layout of one client at a time, which skips by itself.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.engine import placement
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


class Bucket(NamedTuple):
  """Holds clients whose program is the same.

  Attributes:
    clients: their places in the population.
    present: numbers of the modalities that any of them owns.
  """

  clients: tuple[int, ...]
  present: tuple[int, ...]


def bucket(
  owned: np.ndarray, task: Task, most: int, multiple: int
) -> tuple[Bucket, ...]:
  """Cuts a population into at most `most` buckets of little predicted work.

  Begins with one bucket per signature and merges the pair that adds least
  work, until there are few enough and no merge saves any. Small buckets are
  no gain: each is padded to a multiple of what a layout trains together.

  Args:
    owned: [N, M] bool, installed sensors.
    task: the model, for the work of a signature.
    most: buckets, at least 1.
    multiple: of clients that a layout trains together on all devices.

  Returns:
    Buckets of all clients, in order of their first one.

  >>> from relief_jax.models import cnn
  >>> task = cnn.cnn(cnn.Spec(('acc', 'ecg'), (3, 1), 32, 4))
  >>> owned = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], bool)
  >>> bucket(owned, task, 2, 1)
  (Bucket(clients=(0, 2), present=(0, 1)), Bucket(clients=(1, 3), present=(0,)))
  >>> len(bucket(owned, task, 2, 4))
  1
  """

  @functools.cache
  def flops(signature: tuple[bool, ...]) -> float:
    run = jnp.asarray(signature)
    train = blocks.owned_groups(run, task.blocks.modality)
    return float(costs.step_flops(task.work, run, train))

  def work(signature, count) -> float:
    return flops(signature) * -(-count // multiple) * multiple

  found: dict[tuple[bool, ...], list[int]] = {}
  for n, row in enumerate(np.asarray(owned, bool)):
    found.setdefault(tuple(row.tolist()), []).append(n)
  parts = list(found.items())

  def union(a, b):
    signature = tuple(x or y for x, y in zip(a[0], b[0], strict=True))
    return signature, a[1] + b[1]

  def added(a, b) -> float:
    signature, clients = union(a, b)
    apart = work(a[0], len(a[1])) + work(b[0], len(b[1]))
    return work(signature, len(clients)) - apart

  table = np.full((len(parts), len(parts)), np.inf)
  for i, j in zip(*np.triu_indices(len(parts), 1), strict=True):
    table[i, j] = added(parts[i], parts[j])
  while len(parts) > 1 and (len(parts) > most or table.min() <= 0):
    i, j = np.unravel_index(table.argmin(), table.shape)
    merged = union(parts[i], parts[j])
    parts = [p for k, p in enumerate(parts) if k not in (i, j)]
    table = np.delete(np.delete(table, (i, j), 0), (i, j), 1)
    table = np.pad(table, (0, 1), constant_values=np.inf)
    table[:-1, -1] = [added(p, merged) for p in parts]
    parts.append(merged)
  made = [
    # A model needs some input; who owns nothing has it masked.
    Bucket(
      tuple(sorted(clients)),
      tuple(np.flatnonzero(signature).tolist()) or (0,),
    )
    for signature, clients in parts
  ]
  return tuple(sorted(made))


def map_reduce(
  client_of: Callable[[tuple[int, ...] | None], Callable],
  shared: PyTree,
  rows: PyTree,
  layout: placement.Layout,
  buckets: tuple[Bucket, ...],
  work: Array | None = None,
) -> tuple[PyTree, PyTree]:
  """Applies `placement.map_reduce`, bucket by bucket.

  Args:
    client_of: numbers of the modalities that may run (static; None: all) ->
      client function of `placement.map_reduce`.
    shared: what all clients see.
    rows: [K, ...]; with buckets those of the whole population, in its order.
    layout: of the clients.
    buckets: of the population, () for none.
    work: [K] predicted work of each client.

  Returns:
    The sums over K, and the records [K, ...] in the order of the rows.
  """
  if not buckets:
    return placement.map_reduce(client_of(None), shared, rows, layout, work)
  sums, records = [], []
  for one in buckets:
    at = np.array(one.clients)
    part, load = jax.tree.map(lambda v, at=at: v[at], (rows, work))
    more, record = placement.map_reduce(
      client_of(one.present), shared, part, layout, load
    )
    sums.append(more)
    records.append(record)
  back = np.argsort(np.concatenate([one.clients for one in buckets]))
  return (
    jax.tree.map(lambda *v: sum(v), *sums),
    jax.tree.map(lambda *v: jnp.concatenate(v)[back], *records),
  )
