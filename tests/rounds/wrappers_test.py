"""Wrappers of the function that is mapped over clients, without a round."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.clients.device import ClientStore
from relief_jax.rounds import wrappers
from tests.support.handmade import same

STORE = ClientStore(method=jnp.arange(3.0), updates=((), jnp.float32(7)))


class Row(NamedTuple):
  """What wrappers look at, and a number to divide by."""

  active: jax.Array
  value: jax.Array
  store: ClientStore


def row(active=True, value=2.0):
  return Row(jnp.asarray(active), jnp.float32(value), STORE)


def client(known, row):
  """Sends known / value; what it keeps grows by one."""
  sent = known / row.value
  store = jax.tree.map(lambda v: v + 1, row.store)
  finite = jnp.isfinite(sent)
  return {'sum': sent}, wrappers.Record(loss=sent, store=store, finite=finite)


KNOWN = jnp.float32(6)


@pytest.mark.parametrize('branch', [True, False])
def test_who_is_inactive_sends_zeros_and_keeps_its_store(branch):
  found = wrappers.skip_inactive(client, branch)
  same(found(KNOWN, row()), client(KNOWN, row()))
  # What it would have sent is no number: zeros are no zero times that.
  summed, record = found(KNOWN, row(active=False, value=0.0))
  same(summed, {'sum': 0.0})
  assert record.loss == 0 and not record.finite
  same(record.store, STORE)


def test_a_skipped_client_is_not_computed():
  """A real branch: under it nothing of the client runs."""
  ran = []

  def noted(known, row):
    jax.debug.callback(lambda: ran.append(0))
    return client(known, row)

  found = jax.jit(wrappers.skip_inactive(noted, True))
  for active, count in ((False, 0), (True, 1), (False, 1)):
    jax.block_until_ready(found(KNOWN, row(active=active)))
    jax.effects_barrier()
    assert len(ran) == count


def test_who_is_not_finite_did_nothing():
  found = wrappers.drop_nonfinite(client)
  same(found(KNOWN, row()), client(KNOWN, row()))
  summed, record = found(KNOWN, row(value=0.0))
  same(summed, {'sum': 0.0})
  assert record.loss == 0
  same(record.store, STORE)
  # Who asks who was dropped reads this.
  assert not record.finite


def test_dropped_and_inactive_are_alike():
  both = wrappers.skip_inactive(wrappers.drop_nonfinite(client), True)
  same(both(KNOWN, row(value=0.0)), both(KNOWN, row(active=False)))


def test_what_arrives_is_tested_before_it_is_trained_on():
  """With the model as received and the row as it was, whoever trains."""
  seen = []

  def test(known, row):
    seen.append((float(known), row.store.method.tolist()))
    return jnp.int32(3)

  inner = wrappers.skip_inactive(client, True)
  found = wrappers.test_then_train(inner, test)
  for active in (True, False):
    summed, record = found(KNOWN, row(active=active))
    want, plain = inner(KNOWN, row(active=active))
    same((summed, record._replace(correct=())), (want, plain))
    assert record.correct == 3 and plain.correct == ()
  assert seen == [(6.0, [0.0, 1.0, 2.0])] * 2


def test_at_rest_everything_is_zero_but_what_it_keeps():
  summed, record = wrappers.rest(partial(client, KNOWN), row())
  assert not np.concatenate(
    [np.ravel(v) for v in jax.tree.leaves((summed, record.loss))]
  ).any()
  assert record.loss.dtype == jnp.float32
  same(record.store, STORE)
