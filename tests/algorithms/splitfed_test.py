"""SplitFed: FedAvg at another price, and the price by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import flax_cnn
from relief_jax import algorithms, blocks, costs, models
from relief_jax.budgets import cuts, server_order
from relief_jax.errors import InputError
from relief_jax.models import counting
from tests.algorithms.split_ledger_test import first_plan
from tests.support import tiny

TASK = tiny.task(groups='layer')
# As for a fleet with bounds.
COUNTED = TASK._replace(
  memory=counting.memory(TASK, tiny.spec(groups='layer').example)
)
POINTS = cuts.required(COUNTED, 'splitfed')
BATCH, STEPS = 4, 2


def world(memory=None):
  population = tiny.population(TASK)
  if memory is not None:
    fleet = population.fleet
    fleet = fleet.replace(memory=jnp.full(fleet.id.shape, float(memory)))
    population = population.replace(fleet=fleet)
  return population


def result(rule, layers=1, memory=None, method='splitfed', **overrides):
  population = world(memory)
  if method == 'splitfed':
    overrides |= {'rule': rule, 'layers': layers}
  setting = tiny.setting(population, method, **overrides)
  task = TASK if memory is None else COUNTED
  params = tiny.init(TASK)
  state, info = tiny.step(method, task, population, setting, 2, params=params)
  return population.fleet, state, info


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
  'layers', [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))]
)
def test_wherever_it_is_cut_the_model_is_fedavgs_to_the_bit(layers):
  _, split, _ = result('fixed', layers)
  _, fedavg, _ = result('', method='fedavg')
  same(split.params, fedavg.params)


def test_with_all_on_the_devices_the_bill_is_fedavgs_too():
  _, split, info = result('fixed', -1)
  _, fedavg, expected = result('', method='fedavg')
  same(split.params, fedavg.params)
  for name in ('upload', 'download', 'joules', 'seconds'):
    np.testing.assert_allclose(
      getattr(info, name), getattr(expected, name), rtol=1e-5
    )


def test_what_crosses_by_hand():
  """Activations and labels up, gradients down, each step; encoders a round."""
  fleet, _, info = result('fixed', 1)
  spec = tiny.spec_of(TASK)
  numbers = spec.lengths()[1] * spec.filters[0]
  owned = np.asarray(fleet.owned)
  crossing = STEPS * BATCH * 4 * numbers * owned.sum(-1)
  labels = STEPS * BATCH * 4
  first = np.array(
    [
      4 * owned[:, m] * float(TASK.work.size[own[0]])
      for m, own in enumerate(TASK.blocks.layers)
    ]
  ).sum(0)
  np.testing.assert_array_equal(info.upload, crossing + labels + first)
  np.testing.assert_array_equal(info.download, crossing + first)


def test_inputs_that_go_up_bring_no_gradient_down():
  cost = first_plan(TASK, world(), 'splitfed', rule='fixed', layers=0).cost
  spec = tiny.spec_of(TASK)
  owned = np.asarray(world().fleet.owned)
  window = owned @ np.array(spec.channels) * spec.width
  np.testing.assert_array_equal(cost.download, 0)
  np.testing.assert_array_equal(cost.upload, STEPS * BATCH * (4 * window + 4))
  assert not np.asarray(cost.sent).any()


def test_what_device_and_server_compute_is_what_the_model_takes():
  """At every point; and a deeper one leaves the server less."""
  fleet = world().fleet
  access = jnp.ones((fleet.id.size, TASK.num_blocks), bool)
  found = prices(fleet, access)
  whole = BATCH * costs.step_flops(TASK.work, fleet.owned, access)
  up = 8 * found.up / fleet.uplink[:, None]
  down = 8 * found.down / fleet.downlink[:, None]
  device = (found.ahead - up + found.behind - down) * fleet.speed[:, None]
  np.testing.assert_allclose(
    device + found.server * SERVER, np.tile(whole, (4, 1)).T, rtol=1e-4
  )
  assert (np.diff(found.server, axis=1) < 0).all()
  np.testing.assert_array_equal(found.server[:, -1], 0)


SERVER = 1e6


def prices(fleet, train, server=SERVER):
  split = cuts.Split(BATCH, 1.0, server)
  return cuts.prices(TASK, POINTS, split, fleet, fleet.owned, train)


def test_the_deepest_split_that_fits():
  """More memory, more layers; what does not fit is not chosen."""
  fleet = world().fleet
  found = prices(fleet, jnp.ones((fleet.id.size, TASK.num_blocks), bool))
  found = found._replace(memory=jnp.tile(jnp.array([1.0, 5, 9, 20]), (6, 1)))
  most = jnp.array([0.5, 1, 6, 9, 19, 20])
  found = jax.tree.map(lambda v: v[:6], found)
  at, fits = cuts.choose('deepest', 0, POINTS, found, most, None)
  np.testing.assert_array_equal(fits, [False, True, True, True, True, True])
  np.testing.assert_array_equal(at[1:], [0, 1, 2, 2, 3])


@pytest.mark.parametrize('rule', ['fastest', 'random'])
def test_rules_choose_among_what_fits(rule):
  fleet = world().fleet
  found = prices(fleet, jnp.ones((fleet.id.size, TASK.num_blocks), bool))
  memory = jnp.tile(jnp.arange(4.0), (fleet.id.size, 1))
  most = jnp.full(fleet.id.shape, 1.5)
  keys = jax.random.split(jax.random.key(3), fleet.id.size)
  at, fits = cuts.choose(
    rule, 0, POINTS, found._replace(memory=memory), most, keys
  )
  assert fits.all() and (np.asarray(at) <= 1).all()
  if rule == 'fastest':
    total = np.asarray(found.ahead + found.server + found.behind)[:, :2]
    np.testing.assert_array_equal(at, total.argmin(1))


def test_a_slower_link_moves_the_split_to_where_less_crosses():
  fleet = world().fleet
  train = jnp.ones((fleet.id.size, TASK.num_blocks), bool)
  bytes_up = []
  for rate in (1e12, 1e2):
    slow = fleet.replace(
      uplink=jnp.full(fleet.id.shape, rate),
      downlink=jnp.full(fleet.id.shape, rate),
    )
    found = prices(slow, train, server=1e12)
    at, _ = cuts.choose('fastest', 0, POINTS, found, None, None)
    bytes_up.append(np.asarray(cuts.at(found, at).up))
  assert (bytes_up[1] < bytes_up[0]).all()


def loop(ahead, server, behind):
  """Serves devices first come, first served, one by one."""
  free, last = 0.0, 0.0
  for n in np.argsort(ahead, kind='stable'):
    free = max(free, ahead[n]) + server[n]
    last = max(last, free + behind[n])
  return last


# The compiler takes subnormal numbers for 0, and so orders them otherwise.
_TIMES = st.lists(
  st.tuples(*[st.floats(0, 10, width=32, allow_subnormal=False)] * 3),
  min_size=1,
  max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(_TIMES)
def test_the_queue_is_a_loop_over_arrivals(times):
  ahead, server, behind = np.array(times, np.float32).T
  # Of one shape: the others are not there, and would be late.
  rest = 6 - len(ahead)
  padded = [
    np.pad(v, (0, rest), constant_values=99) for v in (ahead, server, behind)
  ]
  own = cuts.Prices(*map(jnp.asarray, padded), *[jnp.zeros(6)] * 3)
  active = jnp.arange(6) < len(ahead)
  expected = loop(ahead, server, behind)
  assert float(server_order.queue(own, active)) == pytest.approx(
    expected, rel=1e-4, abs=1e-4
  )
  # A server that waits for all is never earlier.
  assert (
    float(server_order.barrier(own, active)) >= expected * (1 - 1e-5) - 1e-5
  )
  if len(ahead) == 1:
    assert float(server_order.barrier(own, active)) == pytest.approx(
      expected, rel=1e-5
    )


def test_nobody_waits_for_who_is_not_there():
  own = cuts.Prices(
    *jnp.array([[1.0, 99], [2, 99], [3, 99]]), *[jnp.ones(2)] * 3
  )
  active = jnp.array([True, False])
  assert float(server_order.barrier(own, active)) == 6
  assert float(server_order.queue(own, active)) == 6


def test_a_fleet_that_holds_nothing_is_refused():
  population = world(1.0)
  setting = tiny.setting(population, 'splitfed', layers=1, rule='fixed')
  made = algorithms.build('splitfed', COUNTED, setting.static)
  with pytest.raises(InputError, match='cannot hold their part'):
    made.check(population.fleet, np.inf)


def test_a_device_needs_memory_for_its_own_sensors_only():
  fleet = world().fleet
  access = blocks.owned_groups(fleet.owned, TASK.blocks.modality)
  most = prices(fleet, access).memory[:, 1]
  assert len(set(np.asarray(most).tolist())) > 1
  setting = tiny.setting(world(), 'splitfed', layers=1, rule='fixed')
  made = algorithms.build('splitfed', COUNTED, setting.static)
  made.check(fleet.replace(memory=most), np.inf)
  with pytest.raises(InputError, match='1 of'):
    made.check(fleet.replace(memory=most.at[0].add(-1.0)), np.inf)


def test_nobody_may_be_late():
  setting = tiny.setting(world(), 'splitfed', late='lost')
  with pytest.raises(InputError, match='online.pace.wait for splitfed'):
    algorithms.build('splitfed', TASK, setting.static)


def test_a_split_inside_a_block_is_refused():
  task = tiny.task()  # an encoder is one block
  setting = tiny.setting(
    tiny.population(task), 'splitfed', rule='fixed', layers=1
  )
  with pytest.raises(InputError, match='behind 0, 2'):
    tiny.step('splitfed', task, tiny.population(task), setting)


def test_a_chain_of_modules_is_split_between_its_stages():
  """The built-in CNN as a user's: the same crossings and FLOPs of devices."""
  spec = tiny.spec(groups='layer')
  blocks = {f'{i}/{m}': f'{m}/{i}' for m in spec.modalities for i in (0, 1)}
  chains = {
    m: flax_cnn.stages(spec, c)
    for m, c in zip(spec.modalities, spec.channels, strict=True)
  }
  task = models.from_flax(
    chains,
    spec,
    head=functools.partial(flax_cnn.Head, spec),
    blocks={**blocks, 'head': 'head'},
  )
  found = cuts.required(task, 'splitfed')
  assert found.layers == POINTS.layers
  assert found.sent == POINTS.sent
  for own, built_in in zip(found.work[:-1], POINTS.work[:-1], strict=True):
    # Its ReLU counts once; the built-in's compares and chooses.
    np.testing.assert_allclose(own.fwd, built_in.fwd, rtol=0.07)


def test_a_model_without_split_points_is_refused():
  task = tiny.task('lora')
  with pytest.raises(InputError, match='declares no split points'):
    cuts.required(task, 'splitfed')


def test_devices_that_cannot_hold_the_model_take_part_by_a_split():
  """Their memory lies between that of the first layer and of all."""
  memory = [
    float(v)
    for v in np.asarray(
      prices(
        world().fleet, jnp.ones((world().fleet.id.size, TASK.num_blocks), bool)
      ).memory
    ).max(0)[:3]
  ]
  assert memory[0] < memory[1] < memory[2]
  plan = first_plan(COUNTED, world(memory[1]), 'splitfed', rule='deepest')
  assert np.asarray(plan.trained).any(-1).all()
  assert (np.asarray(plan.cost.memory) <= memory[1]).all()
  # What is trained is all in reach, and the model FedAvg's, wherever it is cut.
  whole = first_plan(COUNTED, world(), 'fedavg')
  np.testing.assert_array_equal(plan.trained, whole.trained)
  np.testing.assert_array_equal(plan.counted, whole.counted)
