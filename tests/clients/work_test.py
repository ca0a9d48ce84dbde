"""The local work that methods call, on a device that notes what it is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.clients.device import Received
from relief_jax.clients.training import Local
from relief_jax.clients.work import local_sgd, projected
from relief_jax.task import SubModel
from tests.support import handmade
from tests.support.handmade import (
  ENCODER,
  HEAD,
  TASK,
  drawn,
  flat,
  same,
  trained,
)

# Stands for a local step; the loss adds it up.
STEP = jnp.float32(100)


def total(params):
  return sum(v.sum() for v in jax.tree.leaves(params))


class Noting:
  """A device whose training moves every masked number by one.

  Attributes:
    asked: what `train` was called with.
    value: of the loss at the received parameters.
  """

  def __init__(self, blocks=(ENCODER, HEAD), **fields):
    self.asked, self.value = None, None
    self.device = handmade.device(
      mask=trained(*blocks),
      loss=lambda task: lambda params, step: total(params) + step,
      train=self.train,
      client_state=jnp.int32(3),
      **fields,
    )

  def train(self, params, loss, mask, observe=None, keyed=False):
    self.asked = {'mask': mask, 'observe': observe, 'keyed': keyed}
    self.value = float(loss(params, STEP))
    moved = jax.tree.map(
      lambda m, part: jax.tree.map(
        lambda v: jnp.where(m, jnp.ones_like(v), 0.0), part
      ),
      mask,
      params,
    )
    if observe:
      observe = observe(moved, moved)
    params = jax.tree.map(jnp.add, params, moved)
    return Local(moved, jnp.float32(self.value), ('state',), observe)


def test_plain_work_trains_planned_blocks_by_the_device_s_loss():
  one, start = Noting(blocks=(ENCODER,)), drawn()
  update = local_sgd(TASK)(Received(start), one.device)
  assert one.value == pytest.approx(float(total(start)) + 100)
  same(one.asked['mask'], trained(ENCODER))
  assert not one.asked['keyed'] and one.asked['observe'] is None
  same(update.mask, trained(ENCODER))
  assert not flat(update.delta['head']).any()
  assert update.submodel_mask is None and update.client_state == 3
  assert update.opt_state == ('state',)
  same(update.weight, one.device.weight)


def test_a_penalty_sees_where_training_began():
  one, start = Noting(), drawn()

  def penalty(params, received, device):
    same(received, start)
    assert device is one.device
    return 7 * total(jax.tree.map(jnp.ones_like, params))

  local_sgd(TASK, penalty=penalty)(Received(start), one.device)
  want = float(total(start)) + 100 + 7 * handmade.SIZES.sum()
  assert one.value == pytest.approx(want)


def test_an_objective_has_what_was_sent_and_steps_with_keys():
  one = Noting()

  def objective(received, device):
    assert device is one.device
    return lambda params, step: received.extra * step

  work = local_sgd(TASK, objective=objective)
  work(Received(drawn(), extra=jnp.float32(2)), one.device)
  assert one.value == 200 and one.asked['keyed']


def test_a_view_is_of_the_loss_and_not_of_the_update():
  one, start = Noting(), drawn()
  work = local_sgd(TASK, view=lambda p: jax.tree.map(jnp.zeros_like, p))
  update = work(Received(start), one.device)
  assert one.value == 100
  assert (flat(update.delta) == 1).all()


def test_a_part_is_held_and_seen_within_what_is_planned():
  one, start = Noting(blocks=(ENCODER,), args=2), drawn()
  some = jax.tree.map(lambda v: v > 0, drawn(1))

  def part(params, device):
    same(params, start)
    assert device.args == 2
    return SubModel(
      some, lambda p: jax.tree.map(lambda m, v: jnp.where(m, v, 0), some, p)
    )

  update = local_sgd(TASK, submodel=part)(Received(start), one.device)
  want = {
    'encoder': some['encoder'],
    'head': jnp.zeros_like(some['head']),
  }
  same(update.submodel_mask, want)
  same(update.mask, want)
  same(jax.tree.map(lambda v: v != 0, update.delta), want)
  seen = np.where(flat(some) > 0, flat(start), 0).sum()
  assert one.value == pytest.approx(seen + 100)


def test_what_is_observed_is_told_by_device():
  one = Noting()
  observe = lambda gradients, updates: flat(gradients).sum()  # noqa: E731
  update = local_sgd(TASK, observe=observe)(Received(drawn()), one.device)
  assert update.rows == handmade.SIZES.sum()


def test_only_what_was_trained_is_projected():
  start = drawn()
  delta = jax.tree.map(jnp.ones_like, start)
  delta['head'] = jnp.zeros(4)
  update = handmade.update(delta, blocks=(ENCODER,))
  found = projected(
    update, Received(start), lambda p: jax.tree.map(jnp.sign, p)
  )
  after = jax.tree.map(jnp.add, start, found.delta)
  np.testing.assert_allclose(
    flat(after['encoder']), np.sign(flat(start['encoder']) + 1), atol=1e-6
  )
  same(after['head'], start['head'])
  same(found._replace(delta=()), update._replace(delta=()))
