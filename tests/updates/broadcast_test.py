"""What a broadcast brings, what it weighs and who remembers it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.compressors import Codec, base
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan
from relief_jax.updates import link
from tests.support.handmade import SIZES, TASK, drawn, flat, same

KEY = jax.random.key(3)
DOWN = jax.random.fold_in(KEY, link.DOWN)
EVERY = jnp.ones((3, 2), bool)
PLAN = Plan(EVERY[:, :1], EVERY, EVERY.astype(jnp.float32))


def links(**codec):
  return link.make(Setting(downlink_codec=Codec(**codec)))


NOTHING = link.Replica()


def sent(found, params, replica=NOTHING, heard=(), received=EVERY):
  return link.broadcast(
    found, TASK, KEY, params, replica, heard, PLAN, received
  )


def test_without_a_code_the_model_arrives_as_it_is():
  params = drawn()
  received = EVERY.at[1, 0].set(False).at[2].set(False)
  start, replica, heard, size = sent(links(), params, received=received)
  same(start, params)
  assert (replica, heard) == (link.Replica(), ())
  np.testing.assert_array_equal(size, [4 * SIZES.sum(), 4 * SIZES[1], 0])


def test_a_code_of_the_model_is_the_same_for_everybody():
  params, found = drawn(), links(name='int8')
  start, *_, size = sent(found, params)
  same(start, base.transmit(found.down, DOWN, params))
  assert (flat(start) != flat(params)).any()
  # A byte a number and a scale of each array.
  np.testing.assert_array_equal(size, [SIZES.sum() + 3 * 4] * 3)


def test_of_a_change_only_what_somebody_receives_is_known():
  found = links(name='int8', error_feedback='on')
  params = drawn()
  replica, heard = link.init(found, TASK, params)
  same(replica.params, params)
  heard = jnp.stack([heard] * 3)
  moved = jax.tree.map(lambda v: v + 0.5, params)
  received = EVERY.at[:, 0].set(False)  # nobody runs the encoder
  start, replica, heard, size = sent(found, moved, replica, heard, received)
  same(start['encoder'], params['encoder'])
  np.testing.assert_allclose(start['head'], moved['head'], atol=0.01)
  same(replica.params, start)
  np.testing.assert_array_equal(replica.sent, [0, 1])
  np.testing.assert_array_equal(heard, [[0, 1]] * 3)
  np.testing.assert_array_equal(size, [SIZES[1] + 4] * 3)


def test_who_missed_much_is_sent_the_replica():
  """All the messages it missed, or all numbers in full if that is less."""
  found = links(name='int8', error_feedback='on')
  params = drawn()
  replica, one = link.init(found, TASK, params)
  heard = jnp.stack([one] * 3)
  whole = 4 * SIZES
  wire = np.asarray(link.group_bytes(found.down, TASK, params))
  np.testing.assert_array_equal(wire, SIZES + [2 * 4, 4])
  for number in range(1, 5):
    here = EVERY if number == 4 else EVERY.at[2].set(False)
    _, replica, heard, size = sent(found, params, replica, heard, here)
    missed = np.array([1, 1, number])
    want = np.minimum(missed[:, None] * wire, whole).sum(1)
    np.testing.assert_array_equal(size, np.where(here[:, 0], want, 0))
  assert 4 * wire[0] > whole[0]  # the cap was met
  np.testing.assert_array_equal(heard, [[4, 4]] * 3)


def test_a_method_may_say_what_its_messages_weigh():
  wire = jnp.array([[10.0, 20], [30, 40]])
  plan = PLAN._replace(cost=CostOverride(wire=wire))
  chosen = EVERY.at[1, 0].set(False)
  for way, want in ((link.UP, [30, 20, 30]), (link.DOWN, [70, 40, 70])):
    size = link.message_bytes(links().down, TASK, drawn(), plan, chosen, way)
    np.testing.assert_array_equal(size, want)


def test_a_part_of_a_block_weighs_what_it_holds():
  work = SimpleNamespace(size=jnp.array([[5.0, 2], [9, 4], [1, 1]]))
  plan = PLAN._replace(cost=CostOverride(work=work))
  size = link.message_bytes(links().down, TASK, drawn(), plan, EVERY, link.UP)
  np.testing.assert_array_equal(size, [28, 52, 8])
