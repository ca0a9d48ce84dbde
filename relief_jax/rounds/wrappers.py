"""Wraps the function that is mapped over clients.

Each takes a `ClientFn`, (known, row) -> (sums, record), and gives another one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients.device import ClientStore
from relief_jax.types import Array, PyTree


class Record(NamedTuple):
  """Holds the outputs by participant, [K, ...] after the map.

  Attributes:
    loss: [] mean over the local steps.
    store: its entry of the client store.
    rows: of `Update.rows`.
    factor: of `Update.factor`.
    stacked: of the aggregator.
    finite: of `Update.finite`.
    observed: rows of every observer.
    correct: [] int32, fresh windows classified correctly; () without.
  """

  loss: Array
  store: ClientStore
  rows: PyTree = ()
  factor: PyTree = ()
  stacked: PyTree = ()
  finite: PyTree = ()
  observed: PyTree = ()
  correct: PyTree = ()


ClientFn = Callable[[Any, Any], tuple[PyTree, Record]]


def rest(client: Callable[[Any], Any], row) -> tuple[PyTree, Record]:
  """Gives the outcome of a client that does nothing: it keeps its store.

  Args:
    client: row -> its outcome.
    row: of the client.
  """
  sums, record = tree.zeros_like_output(client, row)
  return sums, record._replace(store=row.store)


def skip_inactive(client: ClientFn, branch: bool) -> ClientFn:
  """Skips the work of padding and of devices that train nothing.

  Args:
    client: of one that works.
    branch: of `tree.choose`.
  """

  def wrapped(known, row):
    one = tree.traced_once(partial(client, known))
    return tree.choose(row.active, one, partial(rest, one), row, branch=branch)

  return wrapped


def drop_nonfinite(client: ClientFn) -> ClientFn:
  """Treats a client whose update is not finite as one that did nothing."""

  def wrapped(known, row):
    one = tree.traced_once(partial(client, known))
    sums, record = one(row)
    kept = partial(jnp.where, record.finite)
    return jax.tree.map(kept, (sums, record), rest(one, row))

  return wrapped


def test_then_train(
  client: ClientFn, test: Callable[[Any, Any], Array]
) -> ClientFn:
  """Tests the model on windows just arrived, before it trains on them.

  Args:
    client: of one client.
    test: (known, row) -> [] int32, windows classified correctly.
  """

  def wrapped(known, row):
    sums, record = client(known, row)
    return sums, record._replace(correct=test(known, row))

  return wrapped
