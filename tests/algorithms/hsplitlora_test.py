"""HSplitLoRA: merges of unequal ranks by layer, plans, splits and prices."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relief_jax import algorithms, costs, models, tree
from relief_jax.aggregation import lora
from relief_jax.aggregation.lora import Args
from relief_jax.aggregation.mean import masked_mean
from relief_jax.algorithms.flora import restart
from relief_jax.algorithms.hsplitlora import planned as planner_for
from relief_jax.algorithms.parts.adapters import Merging
from relief_jax.algorithms.parts.layer_plans import Kept, Told
from relief_jax.budgets import cuts, layer_ranks, ranks
from relief_jax.budgets.ranks import Halves
from relief_jax.clients import batches
from relief_jax.clients.device import Update
from relief_jax.errors import InputError
from relief_jax.models import counting
from relief_jax.rounds import accounting, frame
from relief_jax.rounds.method import Server
from relief_jax.updates import link
from tests.models.transformer_test import task_of
from tests.support import tiny

RANK, ALPHA = 3, 5.0
NAMES = 'first/kernel', 'out/kernel'
EVERYBODY = [[1]] * 3


class Two(nnx.Module):
  """Two linear layers of a window, 32 numbers to 7 to 3."""

  def __init__(self, rngs):
    self.first = nnx.Linear(32, 7, rngs=rngs)
    self.out = nnx.Linear(7, 3, rngs=rngs)

  def __call__(self, x):
    return self.out(nnx.relu(self.first(x.reshape(x.shape[0], -1))))


@functools.cache
def two(rank=RANK):
  """Both layers have adapters; a block each."""
  spec = tiny.spec(modalities=('acc',))
  found = models.from_flax(
    Two, spec, frozen=models.Adapters('*kernel', rank, alpha=ALPHA)
  )
  tiny._made[id(found)] = found, 'cnn', spec
  return found


def drawn(task, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda v: jnp.asarray(rng.normal(size=v.shape), jnp.float32),
    tiny.init(task),
  )


WEIGHTS = np.array([1.0, 3.0, 2.0])
OWN = np.array([[3, 0], [1, 2], [2, 3]])


def merged(own, start):
  """Devices of ranks [3, L] that trained; the merge, and what it must be."""
  task = two()
  found = task.ranks
  group = ranks.leaf_groups(task)
  aggregate = lora.products(task, found, masked_mean(task))
  total, want = None, {name: 0.0 for name in NAMES}
  weights, train = [], []
  share = {
    name: WEIGHTS / WEIGHTS[own[:, i] > 0].sum() for i, name in enumerate(NAMES)
  }
  for n, mine in enumerate(own):
    trained = np.zeros(task.num_blocks, bool)
    for layer, rank in zip(found.layers, mine, strict=True):
      trained[group[layer.b]] = rank > 0
    delta = jax.tree.map(jnp.subtract, drawn(task, 10 + n), start)
    on = tree.broadcast_groups(task.groups, jnp.asarray(trained))
    held = ranks.elements(found, start, jnp.array(mine), Halves())
    delta = jax.tree.map(lambda m, d: jnp.where(m, d, 0.0), held, delta)
    weight = jnp.asarray(WEIGHTS[n] * trained, jnp.float32)
    summed, _ = aggregate.client(
      Update(delta, weight, on, jnp.float32(0.0), held),
      types.SimpleNamespace(args=Args(jnp.array(mine), True, True)),
    )
    total = summed if total is None else jax.tree.map(jnp.add, total, summed)
    weights.append(weight)
    train.append(trained)
    after = tree.named_leaves(jax.tree.map(jnp.add, start, delta), '/')
    for layer, rank, name in zip(found.layers, mine, NAMES, strict=True):
      a, b = (np.array(after[k], float) for k in (layer.a[0], layer.b))
      product = a[:, :rank] @ b[:rank]
      want[name] = want[name] + (rank > 0) * share[name][n] * product
  mean = aggregate.server(total, (), jnp.stack(weights), jnp.array(train))
  goal = lora.goals(found, start, mean.extra, 1.0)
  means = jax.tree.map(jnp.add, start, mean.delta)
  family = types.SimpleNamespace(ranks=found, fresh=task.init)
  now = Merging(means, goal, mean.extra, jax.random.key(7))
  params, into = restart(family)(now)
  scale = ALPHA / RANK
  return params, into, {k: scale * v for k, v in want.items()}


def test_the_merge_is_the_sum_of_products():
  """For ranks of their own by layer and device, alpha / R = 5 / 3."""
  assert two().ranks.layers[0].base == NAMES[:1]
  params, into, want = merged(OWN, drawn(two(), 0))
  pieces = lora.pieces(two().ranks, params)
  for name in NAMES:
    np.testing.assert_allclose(
      into[name] + pieces[name],
      want[name],
      rtol=0,
      atol=1e-6 * np.abs(want[name]).max(),
    )
    assert not pieces[name].any()


def test_the_rank_of_a_merge_is_at_most_the_sum_of_ranks():
  start = tiny.init(two())  # b = 0, as after every merge
  for own in (OWN, np.array([[1, 0], [1, 1], [2, 1]])):
    _, into, _ = merged(own, start)
    for name, most in zip(NAMES, own.sum(0), strict=True):
      shape = into[name].shape
      assert np.linalg.matrix_rank(into[name], tol=1e-4) == min(*shape, most)


def test_nobody_with_a_rank_changes_nothing_of_a_layer():
  start = tiny.init(two())
  params, into, _ = merged(np.array([[3, 0], [1, 0], [2, 0]]), start)
  assert into[NAMES[0]].any() and not into[NAMES[1]].any()
  layer = two().ranks.layers[1]
  named, before = (tree.named_leaves(p, '/') for p in (params, start))
  for name in (*layer.a, layer.b):
    np.testing.assert_array_equal(named[name], before[name])


@pytest.mark.slow
def test_equal_ranks_everywhere_are_flora():
  task = two()
  population = tiny.population(task, owned=EVERYBODY)
  ended = []
  for method, options in {
    'flora': {'rule': 'fixed'},
    'hsplitlora': {'least': RANK},
  }.items():
    setting = tiny.setting(population, method, merge_error=True, **options)
    ended.append(tiny.step(method, task, population, setting, 2))
  (one, told), (other, heard) = ended
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
  jax.tree.map(close, one.params, other.params)
  jax.tree.map(close, one.server.method_state, other.server.method_state.merged)
  for field in ('upload', 'download', 'seconds', 'joules', 'loss'):
    close(getattr(told, field), getattr(heard, field))
  assert heard.extra['merge_error'] < 1e-5


# The transformer of two blocks, with a split and with memory.


@functools.cache
def counted(rank=4):
  task = task_of('lora', rank=rank)
  return task._replace(memory=counting.memory(task, tiny.spec_of(task).example))


def planner_of(task, population, **options):
  setting = tiny.setting(population, 'hsplitlora', **options)
  return planner_for(task, setting.static), setting


def world(task, count, memory=None):
  """As many equal devices, but for their memory."""
  tiny._made.setdefault(id(task), tiny._made[id(task_of('lora', rank=4))])
  population = tiny.population(task, owned=np.ones((count, 3)))
  fleet = population.fleet
  even = jnp.ones(count)
  fleet = fleet.replace(
    speed=1e6 * even, uplink=1e6 * even, downlink=1e6 * even, memory=memory
  )
  return population.replace(fleet=fleet)


def planned(task, population, budget, kept=None, **options):
  """The plan of a first round, compiled once."""
  planner, setting = planner_of(task, population, **options)
  method = algorithms.find('hsplitlora')(task, setting.static)
  params = tiny.init(task_of('lora', rank=4))
  state = method.init(params)
  now = frame.last(
    task, setting.static, setting.hparams, population.fleet, jnp.int32(1)
  )
  everybody = frame.everyone(method.client_init(params), len(budget))
  now = now._replace(
    budget=jnp.asarray(budget, jnp.float32), clients=kept or everybody
  )

  @jax.jit
  def plan(now):
    return planner.plan(Server(params, (), state), now)

  return plan(now), planner, now


def flops_of(task, plan):
  return np.asarray(costs.plan_flops(task.work, plan))


@pytest.mark.slow
def test_plans_fit_and_grow_with_time_and_memory():
  """Of a device that holds the whole model, and of one that splits it."""
  task = counted()
  low, high = (
    float(costs.step_flops(task.work, jnp.ones(3, bool), on))
    for on in (
      jnp.zeros(task.num_blocks, bool),
      jnp.ones(task.num_blocks, bool),
    )
  )
  budget = np.linspace(0.5 * low, 1.1 * high, 12)
  plan, _, now = planned(task, world(task, 12), budget)
  rank = np.asarray(plan.client_args.rank)
  works = np.asarray(plan.trained).any(-1)
  assert (flops_of(task, plan) <= budget * (1 + 1e-5))[works].all()
  assert not works[0] and works[-6:].all()
  total = np.where(works[:, None], rank, -1).sum(-1)
  assert (np.diff(total) >= 0).all() and total[-1] == 4 * rank.shape[1]
  assert 0 < np.unique(rank).size <= 3 and set(np.unique(rank)) <= {0, 2, 4}
  # Who has no rank in a layer trains nothing of it, and sends nothing.
  group = ranks.leaf_groups(task)
  for number, layer in enumerate(task.ranks.layers):
    on = np.asarray(plan.trained)[:, group[layer.b]]
    np.testing.assert_array_equal(on, works & (rank[:, number] > 0))


@pytest.mark.slow
def test_a_split_fits_and_deepens_with_memory():
  task = counted()
  most = jnp.linspace(2e3, 6e4, 12)
  population = world(task, 12, most)
  plan, planner, now = planned(
    task, population, np.full(12, np.inf), rule='deepest'
  )
  told: Told = plan.client_args.more
  works = np.asarray(plan.trained).any(-1)
  assert works.any() and not works.all()
  assert (np.asarray(plan.cost.memory) <= np.asarray(most))[works].all()
  at = np.asarray(told.at)[works]
  assert (np.diff(at) >= 0).all() and len(set(at)) > 1 and at.min() >= 1
  # What the server holds has the whole rank, and none of its bytes travel.
  held = np.asarray(planner.prices.held(told.at))
  rank = np.asarray(plan.client_args.rank)
  assert (rank[~held] == task.ranks.rank).all()
  sent = np.asarray(
    link.message_bytes(
      link.make(planner.setting).up,
      task,
      None,
      plan,
      accounting.sent(plan),
      link.UP,
    )
  )
  numbers = np.zeros(12)
  own = ranks.shapes(task)
  for number, layer in enumerate(task.ranks.layers):
    wide = sum(own[a].shape[0] for a in layer.a) + own[layer.b].shape[1]
    numbers += held[:, number] * rank[:, number] * wide
  whole = np.asarray(told.at) == len(planner.prices.bill.points.layers) - 1
  head = int(task.work.size[task.blocks.name.index('head')])
  want = np.where(works, 4 * (numbers + whole * head), 0)
  np.testing.assert_allclose(sent, want, rtol=1e-6)


@pytest.mark.parametrize('layers', [1, 2])
@pytest.mark.slow
def test_the_bill_of_one_rank_is_that_of_such_a_model(layers):
  """The device's side; the server's adapters keep their rank."""
  task, small = counted(4), counted(2)
  fleet = world(task, 2).fleet
  planner, setting = planner_of(
    task, world(task, 2), rule='fixed', layers=layers
  )
  now = frame.last(task, setting.static, setting.hparams, fleet, jnp.int32(1))
  everything = jnp.ones((2, task.num_blocks), bool)
  whole = algorithms.fedavg.everybody(setting.static, now)
  assert (whole.trained == everything).all()
  bill = planner.prices.bill
  at = jnp.full(2, cuts.place(bill.points, layers, 'hsplitlora'))
  for rank, other in ((2, small), (4, task)):
    own = planner.prices.ranks(at, planner.rank(now, rank))
    found = planner.prices.part(now, whole, at, own)
    points = cuts.required(other, 'hsplitlora')
    want = cuts.prices(
      other, points, bill.split, fleet, whole.run, whole.trained
    )
    for field in ('ahead', 'behind', 'up', 'down'):
      np.testing.assert_allclose(
        cuts.at(getattr(found.prices, field), at),
        cuts.at(getattr(want, field), at),
        rtol=1e-5,
        err_msg=field,
      )
    mine = whole.trained & jnp.array(points.held)[at]
    flops = costs.step_flops(points.work[int(at[0])], whole.run, mine)
    np.testing.assert_allclose(found.flops, flops, rtol=1e-5)
    # Activations are counted as of rank 4.
    used = np.asarray(cuts.at(found.prices, at).memory)
    least = np.asarray(cuts.at(want, at).memory)
    assert (used == least if rank == 4 else used > least).all()
    full = cuts.prices(
      task, bill.points, bill.split, fleet, whole.run, whole.trained
    )
    np.testing.assert_allclose(
      cuts.at(found.prices.server, at), cuts.at(full.server, at), rtol=1e-5
    )
    numbers = 0
    for layer, there in zip(
      task.ranks.layers, np.asarray(planner.prices.held(at))[0], strict=True
    ):
      own = ranks.shapes(task)
      wide = sum(own[a].shape[0] for a in layer.a) + own[layer.b].shape[1]
      numbers += there * (4 - rank) * wide
    # Numbers, gradients and momentum.
    most = np.asarray(cuts.at(full, at).memory)
    np.testing.assert_allclose(used, most - 12 * numbers, rtol=1e-6)


@pytest.mark.slow
def test_a_split_moves_when_the_importance_does():
  task = counted()
  planner, _ = planner_of(task, world(task, 4), rule='deepest', theta=0.5)
  layers = len(task.ranks.layers)
  method = algorithms.find('hsplitlora')(task, planner.setting)
  state = method.init(tiny.init(task_of('lora', rank=4))).known
  now = state.importance
  seen = jnp.stack([now, 1.4 * now, 4 * now, now])
  kept = Kept((), jnp.array([1, 1, 1, -1]), seen)
  inside = jnp.ones((4, 5), bool)
  holder = types.SimpleNamespace(known=state)
  stays = planner.staying(holder, kept, inside)
  assert layers > 1 and stays.tolist() == [True, True, False, False]
  # Nor does it stay where it no longer fits.
  stays = planner.staying(holder, kept, inside.at[0, 1].set(False))
  assert stays.tolist() == [False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['transformer', 'two'])
def test_the_price_of_a_layers_rank_is_its_own(kind):
  """All of them together are that of a rank of the whole model."""
  task = two() if kind == 'two' else task_of('lora', rank=4)
  found = task.ranks
  table = ranks.table(task, found, layered=True)
  rng = np.random.default_rng(0)
  each = rng.integers(1, found.rank + 1, (4, len(found.layers)))
  work = ranks.work_of(table, jnp.array(each), Halves())
  for n, own in enumerate(each):
    want = found.work(tuple(map(int, own)))
    for a, b in zip(
      jax.tree.leaves(jax.tree.map(lambda v, n=n: v[n], work)),
      jax.tree.leaves(
        want.replace(size=ranks.sizes(table.counts, own, Halves()))
      ),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-2)
  whole = found.work((found.rank,) * len(found.layers))
  for field in ('shared', 'fwd', 'wgrad', 'agrad'):
    np.testing.assert_allclose(
      getattr(whole, field), getattr(task.work, field), rtol=1e-6
    )
  # Of rank 0 nothing is sent, and no factor is there.
  none = jnp.zeros((1, len(found.layers)), int)
  rest = ranks.sizes(table.counts, none, Halves())[0]
  np.testing.assert_array_equal(rest, table.counts.rest)


@pytest.mark.slow
def test_the_importance_is_the_gradient_of_the_base():
  """Of the first batch of each device, by a model written out anew."""
  task = two()
  population = tiny.population(task, owned=EVERYBODY)
  planner, setting = planner_of(task, population)
  params = tiny.init(task)
  opened = frame.open_round(
    jax.random.key(3),
    task,
    setting.static,
    setting.hparams,
    population,
    jnp.int32(0),
  )
  now = opened.round
  measures = jnp.array([True, False, True])
  found = planner.importance.measure(params, now, measures, jnp.ones(3))
  assert not found[1].any()
  frozen = tree.named_leaves(population.frozen, '/')
  keys = batches.client_keys(now.key, now.fleet)
  cost = np.asarray(planner.importance.cost)
  np.testing.assert_allclose(cost.mean(), 1.0, rtol=1e-6)
  for n in (0, 2):
    rows, _ = batches.draw_steps(
      keys[n], now.windows[n], now.fleet.samples[n], 1, setting.static.batch
    )
    x = population.bank.x['acc'][rows[0]]
    y = population.bank.y[rows[0]]

    def loss(first, out, x=x, y=y):
      bias = [frozen[f'{k}/bias'][None] for k in ('first', 'out')]
      z = jax.nn.relu(x.reshape(len(y), -1) @ first + bias[0]) @ out + bias[1]
      every = jax.nn.log_softmax(z)
      return -every[jnp.arange(len(y)), y].mean()

    slopes = jax.grad(loss, (0, 1))(*(frozen[k] for k in NAMES))
    want = np.array([np.linalg.norm(v) for v in slopes]) / cost
    np.testing.assert_allclose(found[n], want, rtol=1e-4)
  known = planner.importance.init()
  first = planner.importance.after(known, now, measures, found)
  np.testing.assert_allclose(
    first.importance, (found[0] + found[2]) / 2, rtol=1e-6
  )
  spoilt = found.at[0].set(jnp.nan)
  second = planner.importance.after(first, now, measures, spoilt)
  np.testing.assert_allclose(
    second.importance, (first.importance + found[2]) / 2, rtol=1e-6
  )
  nobody = planner.importance.after(first, now, measures & False, spoilt)
  np.testing.assert_array_equal(nobody.importance, first.importance)
  assert (first.rounds, second.rounds, nobody.rounds) == (1, 2, 1)


def test_the_dense_product_is_priced_from_the_adapters():
  """2 i o of every layer of one token; of `two` 2 (32 7 + 7 3)."""
  task = two()
  population = tiny.population(task, owned=EVERYBODY)
  planner, _ = planner_of(task, population)
  run, access = jnp.ones((3, 1), bool), jnp.ones((3, task.num_blocks), bool)
  found = planner.importance.dense(run, access)
  slope = planner.prices.table.slope.wgrad
  assert (np.asarray(slope) >= 0).all()
  group = ranks.leaf_groups(task)
  for number, layer in enumerate(task.ranks.layers):
    own = ranks.shapes(task)
    i, o = own[layer.a[0]].shape[0], own[layer.b].shape[1]
    # What the factors take for a rank is what the dense one takes for i + o.
    each = float(slope[number, group[layer.b]]) / (i + o)
    np.testing.assert_allclose(found[:, number], each * i * o, rtol=1e-5)


@pytest.mark.slow
def test_bad_values_are_one_line_each():
  task = tiny.task('lora')
  population = tiny.population(task)
  for options, message in (
    ({'least': 3}, 'hsplitlora.least=3 of adapters of rank 2'),
    ({'rule': 'deepest'}, 'no split points'),
    ({'layers': 1}, 'no split points'),
  ):
    setting = tiny.setting(population, 'hsplitlora', **options)
    with pytest.raises(InputError, match=message) as told:
      tiny.algorithm('hsplitlora', task, setting)
    assert '\n' not in str(told.value)
  late = tiny.setting(population, 'hsplitlora', rule='deepest', late='lost')
  with pytest.raises(InputError, match='online.pace.wait for hsplitlora'):
    tiny.algorithm('hsplitlora', task_of('lora'), late)
  setting = tiny.setting(population, 'hsplitlora')
  own = tiny.algorithm('hsplitlora', task, setting)
  own.check(population.fleet, float('inf'))
  with pytest.raises(InputError, match='devices whose time is enough for no'):
    own.check(population.fleet, 0.0)


@pytest.mark.slow
def test_levels_follow_from_the_smallest_rank():
  task = counted()
  planner, _ = planner_of(task, world(task, 2), least=1)
  # Of layers that work on tokens, too.
  cost = np.asarray(planner.importance.cost)
  run = jnp.ones((1, 3), bool)
  dense = planner.importance.dense(run, jnp.ones((1, task.num_blocks), bool))
  assert (cost > 0).all() and (np.asarray(dense) > 0).all()
  assert planner.levels == (1, 2, 4) == layer_ranks.levels(4, 1)
