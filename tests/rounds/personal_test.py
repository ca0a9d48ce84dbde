"""Blocks that stay on devices, around a method that does next to nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.aggregation.mean import masked_mean
from relief_jax.clients.device import Received
from relief_jax.rounds import accounting
from relief_jax.rounds.method import Method, Server
from relief_jax.rounds.personal import personal
from relief_jax.task import Plan
from tests.support import handmade
from tests.support.handmade import (
  ENCODER,
  HEAD,
  SIZES,
  TASK,
  device,
  drawn,
  flat,
  same,
)

KEEP = np.array([True, False])  # the encoder


def one_up(received, device):
  """Adds one to every number, and to what it remembers."""
  return handmade.update(
    jax.tree.map(jnp.ones_like, received.params),
    client_state=device.client_state + 1,
  )


class Turn:
  """What this method looks at of a round."""

  def __init__(self, clients, plan=None):
    self.clients, self.plan = clients, plan

  def _replace(self, **fields):
    return Turn(**{**vars(self), **fields})


def whole(server, round):
  """Everybody runs and trains all; the memory says how often it was so."""
  every = jnp.ones((len(round.clients), 2), bool)
  return Plan(every[:, :1], every, every.astype(jnp.float32))


METHOD = Method(
  plan=whole,
  client=one_up,
  aggregate=masked_mean(TASK),
  server=lambda state, mean, round: (
    state._replace(params=jax.tree.map(jnp.add, state.params, mean.delta)),
    10 * round.clients,
  ),
  init=lambda params: jnp.float32(5),
  client_init=lambda params: jnp.int32(1),
)
OURS = personal(TASK, METHOD, KEEP)


def numbers(tree):
  return sum(v.size for v in jax.tree.leaves(tree))


def test_only_what_is_kept_is_stored():
  params = drawn()
  mine, inner = OURS.client_init(params)
  assert numbers(mine) == SIZES[ENCODER] and inner == 1
  same(mine['encoder'], params['encoder'])
  assert mine['head'] is None
  assert OURS.init(params) == 5  # the server's is the method's


def test_what_is_kept_counts_nowhere_and_is_private():
  mine, inner = OURS.client_init(drawn())
  clients = jax.tree.map(lambda v: jnp.stack([v] * 3), (mine, inner))
  plan = OURS.plan(Server(drawn()), Turn(clients))
  np.testing.assert_array_equal(plan.counted, [[0, 1]] * 3)
  assert plan.trained.all()  # it is trained all the same
  np.testing.assert_array_equal(plan.private, KEEP)
  np.testing.assert_array_equal(accounting.sent(plan), [[False, True]] * 3)
  # What was private in the method stays so.
  inner_plan = METHOD._replace(
    plan=lambda server, round: whole(server, round)._replace(private=~KEEP)
  )
  wider = personal(TASK, inner_plan, KEEP).plan(Server(drawn()), Turn(clients))
  assert wider.private.all()


def test_a_device_goes_on_from_its_own():
  """From its own encoder and the server's head, with a memory of each."""
  server, mine = drawn(1), drawn(2)
  memory = ({**mine, 'head': None}, jnp.int32(4))
  found = OURS.client(Received(server), device(client_state=memory))
  after, inner = found.client_state
  assert inner == 5 and after['head'] is None
  np.testing.assert_allclose(
    flat(after['encoder']), flat(mine['encoder']) + 1, rtol=1e-6
  )
  np.testing.assert_array_equal(found.weight, [0, 1])
  seen = OURS.model(Received(server), memory)
  same(seen, {'encoder': mine['encoder'], 'head': server['head']})


def test_turn_after_turn():
  """Two devices over three rounds: encoders apart, one head."""
  params = drawn()
  clients = jax.tree.map(lambda v: jnp.stack([v] * 2), OURS.client_init(params))
  state = Server(params)
  for _ in range(3):
    updates = [
      OURS.client(
        Received(state.params),
        device(client_state=jax.tree.map(lambda v, n=n: v[n], clients)),
      )
      for n in range(2)
    ]
    parts = [OURS.aggregate.client(one, device())[0] for one in updates]
    weight = jnp.stack([one.weight for one in updates])
    mean = OURS.aggregate.server(
      jax.tree.map(jnp.add, *parts), (), weight, jnp.ones((2, 2), bool)
    )
    clients = jax.tree.map(
      lambda *v: jnp.stack(v), *[one.client_state for one in updates]
    )
    state, clients = OURS.server(state, mean, Turn(clients))
  same(state.params['encoder'], params['encoder'])  # nobody sent any
  np.testing.assert_allclose(
    flat(state.params['head']), flat(params['head']) + 3, rtol=1e-6
  )
  mine, inner = clients
  np.testing.assert_array_equal(inner, [1110 + 1000] * 2)  # its own server's
  models = OURS.evaluate(state, clients)
  for n in range(2):
    model = jax.tree.map(lambda v, n=n: v[n], models)
    np.testing.assert_allclose(
      flat(model['encoder']), flat(params['encoder']) + 3, rtol=1e-6
    )
    same(model['head'], state.params['head'])


@pytest.mark.parametrize(
  ('keep', 'silent'), [([True, False], False), ([True, True], True)]
)
def test_who_keeps_everything_sends_nothing(keep, silent):
  found = personal(TASK, METHOD, keep).traits
  assert found.personal and found.silent == silent
  assert not METHOD.traits.personal


def test_the_head_may_stay_as_well():
  found = personal(TASK, METHOD, np.arange(2) == HEAD)
  mine, _ = found.client_init(drawn())
  assert mine['encoder'] is None
  assert numbers(mine) == SIZES[HEAD]
