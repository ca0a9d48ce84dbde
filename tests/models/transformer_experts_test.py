"""Experts as the MLPs of a transformer: routing by token, gradients, costs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, models, tree
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.errors import InputError
from relief_jax.models import transformer
from relief_jax.models import transformer_forward as forward
from relief_jax.models.encoders import Spec
from relief_jax.models.mixture import Mixture
from relief_jax.scoring import targets
from relief_jax.simulate import Simulation
from tests.models.transformer_test import SMALL, counted, features_of, moved
from tests.support import tiny

EVERYBODY = jnp.ones(3, bool)


def spec_of(number, top, blocks=1, **overrides):
  mixture = Mixture(number, top, 5, 0.1, blocks)
  return tiny.spec(**SMALL, mixture=mixture, **overrides)


def made(number=3, top=2, blocks=1):
  """A task, its parameters, and windows of six samples."""
  task = transformer.transformer(spec_of(number, top, blocks))
  params = moved(task.init(jax.random.key(0)))
  plain = tiny.task('transformer', **SMALL)
  x = {m: v[:6] for m, v in tiny.population(plain).bank.x.items()}
  return task, params, x


def logits(task, params, x, run=EVERYBODY):
  return task.experts.fuse(params, {}, features_of(task, params, {}, x), run)


def gelu(x):
  return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def by_hand(top, block, x, h):
  """The second half of a block, token by token, and its probabilities."""
  y, every = np.array(x, float), []
  for r, token in enumerate(np.asarray(h, float)):
    score = token @ block['gate']['w'] + block['gate']['b']
    p = np.exp(score - score.max())
    p /= p.sum()
    those = np.argsort(-p)[:top]
    for e in those:
      own = block['expert'][e]
      inside = gelu(token @ own['up'] + own['b'])
      y[r] += p[e] / p[those].sum() * (inside @ own['down'] + own['c'])
    every.append(p)
  return y, np.array(every)


@pytest.mark.parametrize('top', [1, 2, 3])
def test_a_block_is_a_loop_over_tokens(top):
  """Of all three experts it is the dense sum, weighed by the gate."""
  task, params, _ = made(3, top)
  block = params['blocks'][-1]
  rng = np.random.default_rng(top)
  x, h = rng.normal(size=(2, 7, 8)).astype(np.float32)
  own = transformer._Numbers(spec_of(3, top), None).cut.blocks[-1].mixture
  found, p = jax.jit(
    lambda params, x, h: forward._mixed(
      lambda params, x: (x, h, None), own, jnp.ones(7), None, params, x
    )
  )(block, x, h)
  want, every = by_hand(top, block, x, h)
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(p, every, rtol=1e-4)


@functools.cache
def pairs():
  """Logits that must be equal, by name; one program."""
  task, params, x = made(3, 2)
  one, first, _ = made(1, 1)
  plain = tiny.task('transformer', **SMALL)

  def last(params, **new):
    *before, block = params['blocks']
    return {**params, 'blocks': [*before, {**block, **new}]}

  @jax.jit
  def found(params, first, x):
    block = params['blocks'][-1]
    own = block['expert'][0]
    equal = [own] * 3
    order = jnp.array([2, 0, 1])
    turned = {
      'gate': jax.tree.map(lambda v: v[..., order], block['gate']),
      'expert': [block['expert'][i] for i in (2, 0, 1)],
    }
    other = jax.tree.map(lambda v: 3 * v[..., ::-1], block['gate'])
    alone = first['blocks'][-1]['expert'][0]
    dense = last(
      first,
      up={'w': alone['up'], 'b': alone['b']},
      down={'w': alone['down'], 'b': alone['c']},
    )
    every = features_of(plain, dense, {}, x)

    def of(params):
      return logits(task, params, x)[0]

    return {
      'one': (
        logits(one, first, x)[0],
        plain.fuse(dense, {}, every, EVERYBODY),
      ),
      'equal': (
        of(last(params, expert=equal)),
        of(last(params, expert=equal, gate=other)),
      ),
      'turned': (of(params), of(last(params, **turned))),
    }

  return jax.tree.map(np.asarray, found(params, first, x))


@pytest.mark.parametrize(
  'name',
  [
    'one',  # expert is an MLP of its width
    'equal',  # experts: the gate does not matter
    'turned',  # numbers of experts mean nothing
  ],
)
def test_the_mixture(name):
  found, want = pairs()[name]
  assert np.std(found) > 0.01
  np.testing.assert_allclose(found, want, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_off_it_is_the_model_without():
  """To the bit, whatever the other sizes of a mixture say."""
  tasks = [
    transformer.transformer(tiny.spec(**SMALL, mixture=mixture))
    for mixture in (Mixture(), Mixture(5, 1, 7, 3.0))
  ]
  one, other = (jax.jit(task.init)(jax.random.key(0)) for task in tasks)
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert tasks[0].blocks == tasks[1].blocks
  assert tasks[1].experts is None
  # Nor do experts change what is drawn of the rest.
  mixed = jax.jit(made()[0].init)(jax.random.key(0))
  for part in ('embed', 'head'):
    jax.tree.map(np.testing.assert_array_equal, mixed[part], one[part])
  np.testing.assert_array_equal(
    mixed['blocks'][-1]['q']['w'], one['blocks'][-1]['q']['w']
  )


@functools.cache
def step(blocks):
  """(params, run, train, weight) -> loss and gradients, of three forms."""
  task = tiny.task(
    'transformer', **SMALL, mixture=Mixture(3, 2, 5, 0.1, blocks)
  )
  bank = tiny.population(task, clients=3).bank

  @functools.partial(jax.jit, static_argnums=3)
  def every(params, run, train, lengths=(None, None)):
    def loss(params, branch, length):
      batch = Batch(bank, jnp.array([0, 1, 5]), jnp.array([1.0, 1.0, 0.0]))
      gate = Gate(run, None, train)
      found = training.forward(
        task, params, {}, batch, gate, branch, length=length
      )
      y = bank.y[batch.row]
      more = task.experts.balance(found.routing, batch.weight)
      return more + training.cross_entropy(found.logits, y, batch.weight)

    return [
      jax.value_and_grad(loss)(params, branch, length)
      for branch, length in zip((True, False), lengths, strict=True)
    ]

  return task, moved(tiny.init(task)), every


CASES = [
  pytest.param(1, (1, 1, 1), (1, 1, 1), marks=pytest.mark.slow),
  (1, (1, 0, 1), (1, 0, 1)),
  (1, (0, 1, 0), (0, 1, 0)),
  (1, (1, 1, 0), (0, 0, 0)),
  pytest.param(2, (1, 0, 1), (1, 0, 1, 0, 1, 1), marks=pytest.mark.slow),
  pytest.param(2, (1, 0, 1), (0, 0, 0, 0, 1, 0), marks=pytest.mark.slow),
]


@pytest.mark.parametrize('blocks, run, held', CASES)
def test_what_is_not_there_gets_no_gradient(blocks, run, held):
  """Sensors and experts; one client at a time it is the same."""
  task, params, every = step(blocks)
  params = task.experts.within(params, jnp.array(held, bool))
  train = np.ones(task.num_blocks, bool)
  train[list(task.experts.blocks)] = held
  branched, plain = every(params, jnp.array(run, bool), jnp.asarray(train))
  chex.assert_tree_all_finite((branched, plain))
  chex.assert_trees_all_close(branched, plain, rtol=1e-4, atol=1e-6)
  sq = np.asarray(
    tree.group_sq_norms(task.groups, branched[1], task.num_blocks)
  )
  lacks = [m >= 0 and not run[m] for m in task.blocks.modality]
  assert not sq[np.array(lacks) | ~train].any()
  among = np.reshape(held, (blocks, 3)).sum(1)
  gates = sq[list(task.experts.gates)] > 0
  np.testing.assert_array_equal(gates, among > 1)


@pytest.mark.parametrize(
  'still',
  [
    ('block1/expert/0',),
    ('block1', 'block1/expert/2'),
    ('embed/acc', 'embed/gyro', 'embed/mag', 'block0', 'block1'),
  ],
)
def test_who_does_not_train_a_part_has_no_gradient_of_it(still):
  task, params, every = step(1)
  train = np.array([name not in still for name in task.blocks.name])
  (value, grads), (other, whole) = every(params, EVERYBODY, jnp.asarray(train))
  np.testing.assert_allclose(value, other, rtol=1e-5)
  for name in still:
    if 'expert' in name:
      e = int(name[-1])
      own = grads['blocks'][-1]['expert'][e], whole['blocks'][-1]['expert'][e]
      assert not any(v.any() for v in jax.tree.leaves(own[0]))
      assert any(v.any() for v in jax.tree.leaves(own[1]))
  mask = tree.broadcast_groups(task.groups, jnp.asarray(train))
  mask = jax.tree.map(jnp.float32, mask)
  found, want = tree.scale(mask, grads), tree.scale(mask, whole)
  chex.assert_trees_all_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_fewer_sensors_have_a_shorter_program():
  task, params, every = step(1)
  train = jnp.ones(task.num_blocks, bool)
  run = jnp.array([True, False, True])
  short, whole = every(params, run, train, (2, None))
  chex.assert_trees_all_close(short, whole, rtol=1e-4, atol=1e-6)


def test_an_unused_expert_has_no_gradient_at_all():
  """Its share is below the k largest ones of every token."""
  task, params, every = step(1)
  gate = params['blocks'][-1]['gate']
  gate = {**gate, 'b': gate['b'].at[1].set(-50.0)}
  blocks = [params['blocks'][0], {**params['blocks'][-1], 'gate': gate}]
  params = {**params, 'blocks': blocks}
  train = jnp.ones(task.num_blocks, bool)
  for _, grads in every(params, EVERYBODY, train):
    for leaf in jax.tree.leaves(grads['blocks'][-1]['expert'][1]):
      np.testing.assert_array_equal(leaf, 0)
    assert grads['blocks'][-1]['expert'][0]['up'].any()


def test_tokens_of_an_absent_sensor_are_not_routed():
  task, params, x = made(3, 2)
  two = {m: x[m] for m in ('acc', 'mag')}
  run = jnp.array([True, False, True])

  @jax.jit
  def found(params, x, two):
    return [
      (p, task.experts.weigh(p), task.experts.balance(p, jnp.ones(6)))
      for p in (logits(task, params, v, run)[1] for v in (x, two))
    ]

  (p, weight, balance), (less, _, same) = found(params, x, two)
  assert p.shape == (6, 12, 1, 3)  # four tokens a sensor
  absent = np.repeat([False, True, False], 4)
  assert not p[:, absent].any() and not weight[:, absent].any()
  np.testing.assert_allclose(weight[:, ~absent].sum(-1), 1.0, rtol=1e-5)
  assert (np.asarray(weight[:, ~absent] > 0).sum(-1) == 2).all()
  np.testing.assert_allclose(p[:, ~absent], less, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(balance, same, rtol=1e-5)
  assert balance > 0
  route = jax.jit(
    lambda params: task.experts.route(
      params, features_of(task, params, {}, x), run
    )
  )(params)
  np.testing.assert_allclose(route, p, rtol=1e-5, atol=1e-7)


def test_a_device_routes_among_its_own_experts():
  task, params, x = made(3, 2, blocks=2)
  held = jnp.array([True, False, False, False, True, True])
  own = task.experts.within(params, held)
  p = np.asarray(jax.jit(lambda p: logits(task, p, x)[1])(own))
  assert p.shape == (6, 12, 2, 3)
  lacks = ~np.asarray(held).reshape(2, 3)
  assert not p[..., lacks].any() and (p[..., ~lacks] > 0).all()
  np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)


def text(**overrides):
  mixture = Mixture(3, 2, 5, 0.1, 1)
  values = {'blocks': 2, 'd': 8, 'attention_heads': 2, 'mixture': mixture}
  return Spec(
    ('text',),
    (1,),
    5,
    11,
    inputs=((5,),),
    targets=targets.TOKENS,
    **{**values, **overrides},
  )


def test_text_and_what_only_fills_it_up():
  task = transformer.transformer(text())
  params = moved(task.init(jax.random.key(0)))
  x = jnp.array([[1, 2, 3, 4, 5], [4, 2, 0, 0, 0]], jnp.int32)
  y = jnp.array([[2, 3, 4, 5, 6], [2, 7, -1, -1, -1]], jnp.int32)

  @jax.jit
  def found(params, x):
    scores, p = logits(task, params, {'text': x}, jnp.ones(1, bool))
    each = targets.told(y, jnp.ones(2))
    on = task.experts.counted(p, each)
    balance = task.experts.balance(p, each)
    return scores, p, task.experts.mean(p, on), balance

  scores, p, mean, balance = found(params, x)
  assert scores.shape == (2, 5, 11) and p.shape == (2, 5, 1, 3)
  real = np.concatenate([p[0], p[1, :2]])
  np.testing.assert_allclose(mean, real.mean(0), rtol=1e-5)
  # Whatever stands behind the end of a text.
  other = found(params, x.at[1, 2:].set(9))
  np.testing.assert_allclose(other[2], mean, rtol=1e-5)
  np.testing.assert_allclose(other[3], balance, rtol=1e-5)
  np.testing.assert_array_equal(scores[1, :2], other[0][1, :2])


@pytest.mark.parametrize(
  'blocks, overrides',
  [
    (1, {}),
    (2, {'groups': 'layer'}),
    pytest.param(1, {'text': True}, marks=pytest.mark.slow),
  ],
)
def test_costs_are_the_counters(blocks, overrides):
  """Of all experts on all tokens, as the program computes them."""
  mixture = Mixture(3, 3, 0, 0.0, blocks)
  if overrides.pop('text', False):
    spec = text(d=64, attention_heads=4, mixture=mixture)
  else:
    names = ('acc', 'gyro', 'mag')
    spec = Spec(
      names, (9, 9, 6), 125, 19, blocks=2, mixture=mixture, **overrides
    )
  task, found = counted(spec)
  rng = np.random.default_rng(0)
  num, run = task.num_blocks, jnp.ones(len(task.modalities), bool)
  for i in range(12):
    train = jnp.asarray(rng.random(num) < (0.2, 0.5, 1.1)[i % 3])
    mine, own = (
      float(costs.step_flops(w, run, train)) for w in (task.work, found.work)
    )
    assert mine == pytest.approx(own, rel=0.01)
  np.testing.assert_array_equal(task.work.size, found.work.size)
  assert found.memory.kept.sum() > 0


def test_costs_of_fewer_experts_and_of_fewer_tokens():
  task, *_ = made(3, 2, blocks=2)
  own, every = task.experts, jnp.ones(task.num_blocks, bool)
  tokens = 12

  def flops(held, run=EVERYBODY, train=~every):
    return float(costs.step_flops(own.work(jnp.array(held)), run, train))

  whole = flops([3.0, 3.0])
  assert whole == flops([2.0, 3.0])  # k of them are active
  np.testing.assert_allclose(
    whole - flops([1.0, 2.0]), tokens * (own.each + 2 * own.size), rtol=1e-4
  )
  np.testing.assert_allclose(
    whole - flops([0.0, 2.0]), 2 * tokens * (own.each + 2 * own.size), rtol=1e-4
  )
  mine = own.blocks[0]
  by_token = [
    float(own.work(jnp.array([n, 3.0])).tokens.wgrad[0, mine])
    for n in (1.0, 2.0, 3.0)
  ]
  np.testing.assert_allclose(
    by_token, [by_token[0], by_token[0], 2 / 3 * by_token[0]], rtol=1e-4
  )
  for train in (every, ~every):
    np.testing.assert_allclose(
      flops([3.0, 3.0], train=train),
      costs.step_flops(task.work, EVERYBODY, train),
      rtol=1e-5,
    )
  # Who has one of three sensors routes a third of the tokens.
  one = jnp.array([True, False, False])
  routing = [
    float(costs.step_flops(own.routing, run, ~every))
    for run in (one, EVERYBODY)
  ]
  assert 0.2 < routing[0] / routing[1] < 1 / 3
  assert routing[1] < whole


@pytest.mark.parametrize(
  'overrides, match',
  [
    ({'model.lora': ('q', 'v')}, 'experts.blocks=0'),
    ({'model.fusion': 'experts'}, 'experts.blocks=1'),
    ({'model.experts.blocks': 9}, 'experts.blocks=4'),
    ({'model.experts.top': 9}, 'experts.top=8'),
    ({'method': 'splitfed'}, 'experts.blocks=0'),
    ({'method': 'heterofl'}, 'backbone=cnn'),
    ({'method': 'depthfl'}, 'backbone=cnn'),
    ({'method': 'fedit'}, 'lora'),
    ({'backbone': 'cnn'}, 'fusion=experts'),
    ({'backbone': 'lora'}, 'backbone=transformer'),
    ({'method': 'hfedmoe', 'model.experts.blocks': 0}, 'experts.blocks=1'),
  ],
)
def test_what_does_not_go_together_is_refused(overrides, match):
  choices = {'backbone': 'transformer', 'model.experts.blocks': 1}
  with pytest.raises(InputError, match=match) as error:
    Simulation(tiny.config(**{**choices, **overrides}))
  assert '\n' not in str(error.value)


def test_one_that_is_made_counts_its_memory():
  task = models.make('transformer', spec_of(3, 2), memory=True)
  readers = task.memory.readers[:, list(task.experts.blocks)]
  assert readers.any(0).all()
