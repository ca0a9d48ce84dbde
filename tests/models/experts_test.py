"""The mixture of experts that may stand behind the fusion."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, tree
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.errors import InputError
from relief_jax.models import encoders, experts
from relief_jax.models.mixture import Mixture
from relief_jax.simulate import Simulation
from tests.support import tiny

EVERYBODY = jnp.ones(3, bool)


def spec_of(count, top):
  return tiny.spec(fusion='experts', hidden=4, mixture=Mixture(count, top, 3))


def layer_of(spec):
  number = encoders.number_groups(spec, encoders_train=True)
  return experts.layer(spec, number)


def mixture(spec, params, a):
  p = experts.probabilities(spec, params['gate'], a, EVERYBODY)
  g = experts.weigh(p, spec.mixture.top)
  return experts.added(layer_of(spec), params, a, a, g), p


def one_expert(own, x):
  return experts.expert(experts.FUSED, own, x)


@functools.cache
def numbers():
  """Pairs that must be equal, by name; one program."""

  def drawn(spec, key):
    params = experts.init(key, spec)
    one = iter(jax.random.split(key, 40))
    return jax.tree.map(
      lambda v: v + jax.random.normal(next(one), v.shape), params
    )

  @jax.jit
  def pairs(key):
    a = jax.random.normal(key, (5, 4))
    spec = spec_of(3, 2)
    params = drawn(spec, key)
    order = jnp.array([2, 0, 1])
    turned = {
      'gate': jax.tree.map(lambda v: v[..., order], params['gate']),
      'expert': [params['expert'][i] for i in (2, 0, 1)],
    }
    equal = {**params, 'expert': [params['expert'][0]] * 3}
    one = {
      'gate': jax.tree.map(lambda v: v[..., :1], params['gate']),
      'expert': params['expert'][:1],
    }
    dense = a + one_expert(params['expert'][0], a)
    every = jnp.stack([one_expert(e, a) for e in params['expert']], 1)
    whole, p = mixture(spec_of(3, 3), params, a)
    slope = jax.grad(lambda p: mixture(spec_of(1, 1), p, a)[0].sum())(one)
    gate = jnp.concatenate([v.ravel() for v in jax.tree.leaves(slope['gate'])])
    return {
      'one': (mixture(spec_of(1, 1), one, a)[0], dense),
      'one gate': (gate, jnp.zeros_like(gate)),
      'all': (whole, a + (p[..., None] * every).sum(1)),
      'equal': (mixture(spec, equal, a)[0], dense),
      'turned': (mixture(spec, params, a)[0], mixture(spec, turned, a)[0]),
    }

  return jax.tree.map(np.asarray, pairs(jax.random.key(0)))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('one', marks=pytest.mark.slow),  # expert is a dense layer
    'one gate',  # has nothing to say then
    'all',  # are active: the whole mixture
    'equal',  # experts: the gate does not matter
    'turned',  # numbers of experts mean nothing
  ],
)
def test_the_mixture(name):
  np.testing.assert_allclose(*numbers()[name], rtol=1e-4, atol=1e-5)


def test_weights_are_of_the_largest_and_add_up():
  p = jnp.array([[0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.0, 0.0, 0.0]])
  found = jax.jit(lambda p: experts.weigh(p, 2))(p)
  expected = [[0, 2 / 3, 1 / 3], [1 / 3, 0, 2 / 3], [0, 0, 0]]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_balance():
  """1 where all are used alike, E / k times as much of one; no padding."""
  balance = jax.jit(functools.partial(experts.balance, Mixture(4, 1)))
  p, real = np.eye(4, dtype=np.float32)[:, None], np.ones(4, np.float32)
  np.testing.assert_allclose(balance(p, real), 1.0, rtol=1e-6)
  np.testing.assert_allclose(balance(p[[0] * 4], real), 4.0, rtol=1e-6)
  p[3], real[3] = np.nan, 0
  np.testing.assert_allclose(balance(p, real), 4 * 3 / 9, rtol=1e-6)


@functools.cache
def step():
  """(params, run, train) -> loss and gradients, of both forms."""
  task = tiny.task(fusion='experts', mixture=Mixture(3, 2, 5))
  population = tiny.population(task, clients=3)
  batch = Batch(population.bank, jnp.array([0, 1, 5]), jnp.ones(3))

  @jax.jit
  def both(params, run, train):
    def loss(params, branch):
      gate = Gate(run, None, train)
      found = training.forward(task, params, {}, batch, gate, branch)
      y = population.bank.y[batch.row]
      more = task.experts.balance(found.routing, batch.weight)
      return more + training.cross_entropy(found.logits, y, batch.weight)

    return [
      jax.value_and_grad(loss)(params, branch) for branch in (True, False)
    ]

  return task, tiny.init(task), both


@pytest.mark.parametrize(
  'run, held',
  [
    pytest.param((1, 1, 1), (1, 1, 1), marks=pytest.mark.slow),
    ((1, 0, 1), (1, 0, 1)),
    ((0, 1, 0), (0, 1, 0)),
    ((0, 0, 0), (0, 0, 0)),
  ],
)
def test_what_is_not_there_gets_no_gradient(run, held):
  """Sensors and experts; one client at a time it is the same."""
  task, params, both = step()
  params = experts.within(params, jnp.array(held, bool))
  train = np.ones(task.num_blocks, bool)
  train[list(task.experts.blocks)] = held
  branched, plain = both(params, jnp.array(run, bool), jnp.asarray(train))
  chex.assert_tree_all_finite((branched, plain))
  chex.assert_trees_all_close(branched, plain, rtol=1e-4, atol=1e-6)
  grads = branched[1]
  sq = tree.group_sq_norms(task.groups, grads, task.num_blocks)
  lacks = [m >= 0 and not run[m] for m in task.blocks.modality]
  assert not np.asarray(sq)[np.array(lacks) | ~train].any()
  for m, name in enumerate(task.modalities):
    assert bool((grads['gate']['seen'][name] != 0).any()) == bool(
      run[m] and sum(held) > 1
    )
  assert bool(grads['gate']['w'].any()) == (sum(held) > 1)


def test_who_does_not_train_an_expert_has_no_gradient_of_it():
  task, params, both = step()
  train = np.ones(task.num_blocks, bool)
  train[task.experts.blocks[0]] = False
  (value, grads), (other, whole) = both(params, EVERYBODY, jnp.asarray(train))
  np.testing.assert_allclose(value, other, rtol=1e-5)
  assert not any(v.any() for v in jax.tree.leaves(grads['expert'][0]))
  assert any(v.any() for v in jax.tree.leaves(whole['expert'][0]))
  grads['expert'], whole['expert'] = grads['expert'][1:], whole['expert'][1:]
  chex.assert_trees_all_close(grads, whole, rtol=1e-4, atol=1e-6)


def test_costs_of_fewer_experts():
  """A device of k or more experts computes k of them for a sample."""
  task, *_ = step()
  every = [task.experts.work([n]) for n in (0, 1, 2, 3)]
  forward = [float(w.shared) for w in every]
  assert forward[0] < forward[1] < forward[2] == forward[3]
  np.testing.assert_allclose(
    forward[2] - forward[1], task.experts.each + 2 * task.experts.size
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    every[3],
    task.work,
  )
  mine = [float(w.wgrad[task.experts.blocks[0]]) for w in every]
  # Of two experts each gets all samples, of three two thirds.
  np.testing.assert_allclose(mine[1:], [mine[1], mine[1], 2 / 3 * mine[1]])


def test_what_does_not_go_together_is_refused():
  choices = {'model.fusion': 'experts', 'model.experts.number': 3}
  for overrides, match in (
    ({'backbone': 'lora'}, 'backbone=cnn'),
    ({'backbone': 'transformer'}, 'backbone=cnn'),
    ({'method': 'heterofl'}, 'fusion=concat'),
    ({'method': 'depthfl'}, 'fusion=concat'),
    ({'method': 'splitfed'}, 'fusion=concat'),
    ({'model.experts.top': 4}, 'experts.top=3'),
  ):
    with pytest.raises(InputError, match=match):
      Simulation(tiny.config(**{**choices, **overrides}))


@pytest.mark.slow
def test_relief_chooses_among_experts():
  """Each is a block; the gate always trains, as the head does."""
  task = tiny.task(fusion='experts', mixture=Mixture(3, 2, 5))
  population = tiny.population(task)
  mine, fleet = list(task.experts.blocks), population.fleet
  always = jnp.broadcast_to(task.blocks.always, (5, task.num_blocks))
  # Of three experts two, or one and columns.
  budget = costs.step_flops(task.work, fleet.owned, always)
  budget += 2.9 * task.work.wgrad[mine[0]]
  population = population.replace(fleet=fleet.replace(budget=budget))
  setting = tiny.setting(population, 'relief', deadline=1.0)
  for _, info in tiny.run('relief', task, population, setting, 3):
    trained = np.asarray(info.trained)
    assert trained[:, list(task.experts.gates)].all()
    count = trained[:, mine].sum(-1)
    assert (count < 3).all() and (count > 0).any()
    sent = trained @ (4 * np.asarray(task.work.size))
    np.testing.assert_allclose(info.upload, sent)
