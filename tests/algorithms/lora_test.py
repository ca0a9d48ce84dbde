"""The LoRA family: bytes, ranks from budgets, models, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relief_jax import algorithms, costs, models, tree
from relief_jax.aggregation.lora import Merged
from relief_jax.algorithms.fedavg import everybody
from relief_jax.algorithms.parts import merges
from relief_jax.budgets import memory, ranks
from relief_jax.budgets.ranks import Halves
from relief_jax.compressors.none import NONE
from relief_jax.errors import InputError
from relief_jax.models import counting
from relief_jax.rounds import accounting, frame
from relief_jax.rounds.method import Server
from relief_jax.runs.simulation import Simulation
from relief_jax.updates import link
from tests.models.transformer_test import task_of
from tests.support import tiny

FAMILY = tuple(m for m in algorithms.ALGORITHMS if algorithms.facts(m).adapters)
RANKED = ('hetlora', 'flexlora', 'flora')
OWNED = [[1], [1], [1]]


def one_layer():
  """A layer of 64 inputs and 64 outputs, with adapters of rank 8."""
  return tiny.task(
    'lora', modalities=('acc',), filters=(4, 64), hidden=64, rank=8
  )


def planned(method, task, rounds=1, fleet=(), started=False, **overrides):
  """Bytes up and down of all devices in a round, and its plan."""
  population = tiny.population(task, owned=OWNED)
  own = population.fleet.replace(**dict(fleet))
  setting = tiny.setting(population, method, **overrides)
  made = algorithms.find(method)(task, setting.static)
  params = tiny.init(task)
  state = made.init(params)
  if started:
    state = state._replace(started=jnp.array(True))
  now = frame.last(
    task, setting.static, setting.hparams, own, jnp.int32(rounds)
  )
  one = made.client_init(params)
  now = now._replace(clients=frame.everyone(one, 3))
  plan = made.plan(Server(params, (), state), now)
  up, down = (
    link.message_bytes(NONE, task, params, plan, chosen, way)
    for chosen, way in (
      (accounting.sent(plan), link.UP),
      (accounting.received(task, own, plan), link.DOWN),
    )
  )
  return up, down, plan


@pytest.mark.parametrize(
  ('method', 'up'),
  [
    ('fedit', 4096),
    pytest.param('fedex', 4096, marks=pytest.mark.slow),
    ('flora', 4096),
    pytest.param('hsplitlora', 4096, marks=pytest.mark.slow),
    pytest.param('flexlora', 4096, marks=pytest.mark.slow),
    ('hetlora', 4096),
    ('ffa_lora', 2048),
    pytest.param('fedsvd', 2048, marks=pytest.mark.slow),
    ('rolora', 2048),
    ('fed_sb', 256),
    ('fedsa_lora', 2048),
  ],
)
def test_bytes_of_a_layer(method, up):
  """The specified table: 64 inputs and outputs, rank 8, float32."""
  started = {'started': True} if method == 'fed_sb' else {}
  task = one_layer()
  head = 0 if method == 'fedsa_lora' else 4 * (64 * 3 + 3)
  own = {}
  if method == 'hsplitlora':  # nothing to choose, and no layers to split behind
    own = {'least': 8, 'rule': 'fixed', 'layers': -1}
  found, down, plan = planned(method, task, **started, **own)
  np.testing.assert_array_equal(found, 3 * [up + head])
  below = {'flora': 0, 'hsplitlora': 0, 'fedsvd': 4096, 'rolora': 2048}.get(
    method, up
  )
  np.testing.assert_array_equal(down, 3 * [below + head])
  if method == 'rolora':  # even rounds send `a`
    np.testing.assert_array_equal(planned(method, task, 2)[0], found)


def test_a_merge_goes_down_as_factors_or_dense():
  """Two ranks of 8 stacked are 8,192 bytes, three are above the dense 16,384.

  Who heard of some is sent the rest.
  """
  task = one_layer()
  run = jnp.ones((4, 1), bool).at[3].set(False)
  state = Merged(stacked=jnp.array([40.0]))
  heard = jnp.array([[0.0], [24.0], [40.0], [0.0]])
  found = merges.missing_bytes(task, task.ranks, state, heard, run)
  np.testing.assert_array_equal(found, [16384, 8192, 0, 0])


class Own(nnx.Module):
  """Two linear layers of the mean over time."""

  def __init__(self, rngs):
    self.first = nnx.Linear(2, 7, rngs=rngs)
    self.out = nnx.Linear(7, 3, rngs=rngs)

  def __call__(self, x):
    return self.out(nnx.relu(self.first(x.mean(1))))


@functools.cache
def own(rank=2):
  spec = tiny.spec(modalities=('acc',))
  found = models.from_flax(
    Own,
    spec,
    frozen=models.Adapters('first/kernel', rank, alpha=3.0, train='out'),
  )
  tiny._made[id(found)] = found, 'cnn', spec
  return found


@pytest.mark.parametrize('kind', ['lora', 'transformer', 'own'])
def test_work_and_sizes_of_a_rank_are_those_of_such_a_model(kind):
  make = {
    'lora': lambda rank: tiny.task('lora', rank=rank),
    'transformer': lambda rank: task_of('lora', rank=rank),
    'own': own,
  }[kind]
  at = 1 if kind == 'own' else 3
  task, want = make(at + 1), make(at)
  found = ranks.required(task, 'fedit')
  table = ranks.table(task, found)
  work = ranks.work_of(table, every_layer(found, [at]), Halves())
  for one, other in zip(
    jax.tree.leaves(work), jax.tree.leaves(want.work), strict=True
  ):
    np.testing.assert_allclose(one[0], other, rtol=1e-6)
  params, frozen = (
    jax.eval_shape(make, jax.random.key(0)) for make in (task.init, task.base)
  )
  named = tree.named_leaves(params, '/')
  weights = tree.named_leaves(frozen, '/')
  for layer in found.layers:
    for a, base in zip(layer.a, layer.base, strict=True):
      product = named[a].shape[0], named[layer.b].shape[1]
      assert product == weights[base].shape
      assert named[a].shape[1] == named[layer.b].shape[0]
  most = every_layer(found, [found.rank])
  sizes = ranks.sizes(table.counts, most, Halves())
  np.testing.assert_array_equal(sizes[0], task.work.size)
  halves = [
    ranks.sizes(table.counts, most, h)
    for h in (Halves(b=False), Halves(a=False), Halves(False, False))
  ]
  np.testing.assert_array_equal(halves[0] + halves[1] - halves[2], sizes)


def every_layer(found, rank):
  """One rank for all layers, [K, L]."""
  return ranks.by_layer(found, jnp.array(rank))


def levels(rule='budget', flops=(), bounds=None, rank=0):
  """Ranks of three devices by budgets, in shares of the work at rank 8."""
  task = one_layer()
  population = tiny.population(task, owned=OWNED)
  setting, fleet = tiny.setting(population, 'flora'), population.fleet
  if bounds is not None:
    example = tiny.spec_of(task).example
    task = task._replace(memory=counting.memory(task, example))
  table = ranks.table(task, task.ranks)
  if bounds is not None:
    fleet = fleet.replace(memory=jnp.asarray(bounds))
  now = frame.last(task, setting.static, setting.hparams, fleet, jnp.int32(1))
  whole = everybody(setting.static, now)
  step = memory.Step(4, 1.0)
  every = every_layer(task.ranks, range(1, 9))
  work = ranks.work_of(table, every, Halves())
  price = jax.vmap(costs.step_flops, (0, None, None))(
    work, whole.run[0], whole.trained[0]
  )
  used = None
  if task.memory is not None:
    used = jnp.stack(
      [
        ranks.needed(
          task, table, step, whole, every_layer(task.ranks, 3 * [r]), Halves()
        )[0]
        for r in range(1, 9)
      ]
    )
  budget = jnp.full(3, jnp.inf)
  if flops:
    budget = jnp.array([price[f - 1] if f else 0.0 for f in flops])
  found = ranks.choose(task, table, step, fleet, budget, whole, rule, rank)
  return *map(np.asarray, found), used


@pytest.mark.slow
def test_the_largest_rank_that_fits():
  rank, fits, _ = levels(flops=(8, 5, 0))
  assert rank[:2].tolist() == [8, 4] and fits.tolist() == [True, True, False]
  rank, fits, _ = levels('fixed', flops=(8, 5, 3), rank=4)
  assert rank.tolist() == [4, 4, 4] and fits.tolist() == [True, True, False]
  rank, fits, _ = levels('random', flops=(8, 1, 2))
  assert (
    fits.all() and rank[1] == 1 and rank[2] <= 2 and rank[0] in (8, 4, 2, 1)
  )
  _, _, used = levels(bounds=[1e9] * 3)
  assert (np.diff(used) > 0).all()
  rank, fits, _ = levels(bounds=[used[7], used[6], used[0] - 1])
  assert rank[:2].tolist() == [8, 4] and fits.tolist() == [True, True, False]


def test_what_is_refused():
  """One line each, before any work."""
  task = tiny.task('lora')
  population = tiny.population(task)
  plain = tiny.task('cnn')
  for method in FAMILY:
    with pytest.raises(InputError, match='without adapters.*model.lora='):
      tiny.algorithm(method, plain, tiny.setting(population, method))
  wide = tiny.task('lora', rank=7)  # of a layer with 6 outputs
  with pytest.raises(InputError, match='rank 7 .* above the rank 6 of'):
    tiny.algorithm('fedit', wide, tiny.setting(population, 'fedit'))
  for method in RANKED:
    setting = tiny.setting(population, method, rule='fixed', rank=3)
    with pytest.raises(InputError, match='rank=3 of adapters of rank 2'):
      tiny.algorithm(method, task, setting)
  for method in ('flora', 'fedex', 'fedsvd', 'flexlora', 'fed_sb'):
    setting = tiny.setting(population, method)
    with pytest.raises(InputError, match=f'keep_client_state for {method}'):
      tiny.algorithm(method, task, setting._replace(keep_client_state=True))
    with pytest.raises(InputError, match='server_optimizer=adam'):
      tiny.algorithm(method, task, setting._replace(server_optimizer='adam'))
  with pytest.raises(InputError, match='uplink_codec|links that code'):
    coded = tiny.setting(population, 'ffa_lora')
    codec = coded.uplink_codec._replace(name='int8')
    tiny.algorithm('ffa_lora', task, coded._replace(uplink_codec=codec))
  own = tiny.algorithm('flora', task, tiny.setting(population, 'flora'))
  own.check(population.fleet, float('inf'))
  with pytest.raises(InputError, match='5 of 5 devices whose time is enough'):
    own.check(population.fleet, 0.0)


@pytest.mark.slow
def test_a_run_is_tested_with_the_merged_base_and_resumes():
  config = tiny.config(
    method='flora',
    backbone='lora',
    rounds=2,
    rounds_per_call=1,
    eval_every=1,
    **{'flora.merge_error': True},
  )
  whole = Simulation(config)
  whole.advance()
  before = whole.frozen
  stored = []
  while not whole.done:
    whole.advance()
    stored.append(jax.tree.map(np.array, whole.snapshot()))
  after = whole.model().frozen
  assert all(
    (before['fusion'][m] != after['fusion'][m]).any() for m in before['fusion']
  )
  np.testing.assert_array_equal(before['bias'], after['bias'])
  row = whole.history[-1]
  assert 0 <= row['merge_error'] < 1e-5 and row['merge_dense'] in (0.0, 1.0)
  resumed = Simulation(config)
  resumed.restore(stored[0], whole.history[:2])
  resumed.advance()
  jax.tree.map(np.testing.assert_array_equal, resumed.snapshot(), stored[-1])
  clock = {'wall_seconds': 0}
  assert repr({**resumed.history[-1], **clock}) == repr({**row, **clock})
  # The model that is kept answers as the one that was tested.
  jax.tree.map(np.testing.assert_array_equal, resumed.frozen, after)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('method', 'kind'),
  [
    *((method, 'transformer') for method in FAMILY),
    *((method, 'own') for method in ('flora', 'fed_sb', 'hetlora')),
  ],
)
def test_other_models(method, kind):
  """The exact rules are exact on a transformer and on a model of one's own."""
  task = task_of('lora') if kind == 'transformer' else own()
  population = tiny.population(task)
  options = {} if method == 'fedsa_lora' else {'merge_error': True}
  setting = tiny.setting(population, method, **options)
  for _, info in tiny.run(method, task, population, setting, 3):
    assert np.isfinite(info.loss).all()
    if options:
      error = float(info.extra['merge_error'])
      assert (error > 1e-4) == (method in ('fedit', 'hetlora', 'flexlora'))
      if error <= 1e-4:
        assert error < 1e-5
