"""Early exits, and what DepthFL does with them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs
from relief_jax.algorithms import depthfl
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from relief_jax.runs import evaluation
from relief_jax.runs import scores as scores_lib
from relief_jax.types import HeldOut
from tests.support import tiny
from tests.twins import exits_twin, twin


@pytest.mark.slow
def test_early_exits():
  """The last is the model without them; others are its own layers, cut."""
  task, plain = tiny.task(exits=True), tiny.task(groups='layer')
  params, fresh = tiny.init(task), tiny.init(plain)
  chex.assert_trees_all_equal({k: params[k] for k in fresh}, fresh)
  for field in ('shared', 'fwd', 'agrad'):
    np.testing.assert_array_equal(
      getattr(task.work, field), getattr(plain.work, field)
    )
  population = tiny.population(task, clients=3)
  batch = Batch(population.bank, jnp.arange(4), jnp.ones(4))
  train = jnp.ones(task.num_blocks, bool)
  gate = Gate(jnp.array([True, True, False]), None, train)

  @jax.jit
  def scores(params):
    every = task.exits.until(2, True)
    return (
      training.logits(every, params, {}, batch, gate),
      training.logits(every, params, {}, batch, gate, branch=False),
      [
        training.logits(task.exits.until(d, False), params, {}, batch, gate)
        for d in (1, 2)
      ],
      training.logits(plain, params, {}, batch, gate),
    )

  both, masked, alone, want = scores(params)
  chex.assert_trees_all_close(both, masked, jnp.stack(alone), rtol=1e-6)
  np.testing.assert_allclose(both[1], want, rtol=1e-6)
  assert np.abs(both[0] - both[1]).max() > 1e-3


def test_early_exits_lie_between_layers():
  with pytest.raises(InputError, match='groups=layer'):
    tiny.task(exits=True, groups='joint')


def random_scores(exits):
  rng = np.random.default_rng(0)
  scores = jnp.asarray(rng.normal(size=(exits, 5, 3)), jnp.float32)
  return scores, jnp.arange(5) % 3, jnp.array([1.0, 1, 1, 1, 0])


def test_the_loss_of_exits_is_that_of_all_pairs():
  """Value and gradient; exits that are not held are as if they were not."""
  scores, y, weight = random_scores(3)

  @jax.jit
  def both(scores):
    found = []
    for held in (1, 3):

      def fast(s, held=held):
        on = jnp.arange(3) < held
        return depthfl.mutual(s, y, weight, on, jnp.float32(0.7))

      def slow(s, held=held):
        return exits_twin.loss(True, list(s[:held]), y, weight, 0.7)

      found.append([jax.value_and_grad(f)(scores) for f in (fast, slow)])
    alone = training.cross_entropy(scores[0], y, weight)
    return found, alone

  found, alone = both(scores)
  for fast, slow in found:
    chex.assert_trees_all_close(fast, slow, rtol=1e-4, atol=1e-6)
  # A single exit learns from its labels alone.
  np.testing.assert_array_equal(found[0][0][0], alone)


def test_no_gradient_goes_into_the_teacher():
  """Exit i moves by KL(p_j || p_i) as if p_j were a constant."""
  scores, y, weight = random_scores(2)

  @jax.jit
  def both(scores):
    def taught(s, strength):
      on = jnp.ones(2, bool)
      return depthfl.mutual(s, y, weight, on, jnp.float32(strength))

    def pull(own, other):
      p = jax.nn.softmax(other)
      gap = (p * (jnp.log(p) - jax.nn.log_softmax(own))).sum(1)
      return (gap * weight).sum() / weight.sum()

    more, plain = (jax.grad(taught)(scores, v) for v in (1.0, 0.0))
    want = [jax.grad(pull)(scores[i], scores[1 - i]) for i in (0, 1)]
    return more - plain, jnp.stack(want)

  found, want = both(scores)
  np.testing.assert_allclose(found, want, atol=1e-6)
  assert np.abs(want).max() > 1e-2


def test_distillation_fades_in():
  found = [depthfl.fading(jnp.int32(t), 300) for t in (0, 150, 300, 900)]
  np.testing.assert_allclose(found, np.exp([-5, -1.25, 0, 0]), rtol=1e-6)
  assert depthfl.fading(jnp.int32(0), 0) == 1


@functools.cache
def world():
  """Two modalities, six devices: depths 2, 1, 0, 2, padding, 1."""
  task = tiny.task(modalities=('acc', 'gyro'), exits=True)
  population = tiny.population(task, 6, samples=[9, 6, 8, 7, 0, 5])
  every = jnp.ones(task.num_blocks, bool)
  price = [
    float(costs.step_flops(task.exits.until(d, True).work, every[:2], every))
    for d in (1, 2)
  ]
  budget = jnp.array([1.0, 0, 0, 1.0, 9.0, 0]) * (price[1] - price[0])
  budget += jnp.array([1.0, 1, 0.9, 1, 1, 1.2]) * price[0]
  fleet = population.fleet.replace(budget=budget * (1 + 1e-6))
  return task, population.replace(fleet=fleet)


def setting(block=1, exits='all'):
  """At full strength from the second round on; everybody runs everything."""
  _, population = world()
  return tiny.setting(
    population,
    'depthfl',
    deadline=1.0,
    fill='input',
    layout=Layout(block),
    exits=exits,
    fade=1 / 3,  # of three rounds
  )


@pytest.mark.slow
def test_exits_that_nobody_holds_keep_their_bits():
  task, population = world()
  shallow = tiny.only(population, 1, 2, 5)
  state, info = tiny.step('depthfl', task, shallow, setting())
  held = {n for n in task.blocks.name if n.startswith(('encoder0', 'exit0'))}
  for n, row in enumerate(np.asarray(info.trained)):
    found = {g for g, on in zip(task.blocks.name, row, strict=True) if on}
    assert found == (held if n in (1, 5) else set())
  before, now = twin.named(tiny.init(task)), twin.named(state.params)
  for k, v in now.items():
    same = np.array_equal(v, before[k])
    assert same == (exits_twin.ExitTwin.group(k) not in held), k


def test_a_fleet_without_a_deep_device_is_refused():
  task, population = world()
  found = tiny.algorithm('depthfl', task, setting())
  found.check(population.fleet, 1.0)
  with pytest.raises(InputError, match='all 2 levels of acc, gyro'):
    found.check(tiny.only(population, 1, 2, 4, 5).fleet, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize('exits', ['all', 'last'])
def test_exits_in_every_layout(exits):
  """One at a time, where depths are skipped, and masked under a vmap."""
  task, population = world()
  one, every = (
    tiny.step('depthfl', task, population, setting(block, exits), 2)
    for block in (1, 0)
  )
  chex.assert_trees_all_close(one, every, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_lies_above_a_device_is_not_computed():
  """Neither the FLOPs charged nor those of its branch of the program."""
  task, population = world()
  _, info = tiny.step('depthfl', task, population, setting())
  work = [task.exits.until(d, True).work for d in (1, 2)]
  every = jnp.ones(task.num_blocks, bool)
  fleet = population.fleet
  for n, d in ((0, 2), (1, 1), (3, 2), (5, 1)):
    flops = 8 * costs.step_flops(work[d - 1], every[:2], every)
    held = task.exits.contained(d, True) @ np.asarray(task.work.size)
    np.testing.assert_allclose(info.upload[n], 4 * held)
    np.testing.assert_allclose(info.download[n], 4 * held)
    links = 8 * 4 * held * (1 / fleet.uplink[n] + 1 / fleet.downlink[n])
    np.testing.assert_allclose(
      info.seconds[n], flops / fleet.speed[n] + links, rtol=1e-5
    )


@pytest.mark.slow
def test_exits_are_tested_together_and_alone():
  task, population = world()
  params, bank = tiny.init(task), population.bank
  masks = np.array([[1, 0], [1, 1]], bool)
  every = task.exits.until(2, True)
  scope = evaluation.Scope(masks, np.ones(2, bool), 1, 'input')
  tests = HeldOut(bank, jnp.zeros(len(bank.y), jnp.int32))
  by_person, loss = jax.jit(
    lambda p: evaluation.sums_of(
      every, p, {}, tests, scope, jnp.asarray(masks), batch=8
    )
  )(params)
  by_person = np.asarray(by_person)
  assert by_person.shape == (3, 2, 1, 3, 3)
  counts = by_person[:, :, 0]
  x = {m: v for m, v in bank.x.items()}
  named = {
    k: jnp.asarray(v, jnp.float32) for k, v in twin.named(params).items()
  }
  scores = exits_twin.exit_logits(tiny.spec_of(task), named, x, np.ones(2), 2)
  for found, own in zip(counts[:, 1], [sum(scores) / 2, *scores], strict=True):
    want = np.zeros((3, 3), int)
    np.add.at(want, (np.asarray(bank.y), np.asarray(own.argmax(1))), 1)
    np.testing.assert_array_equal(found, want)
  mean = jax.nn.log_softmax(sum(scores) / 2)
  right = mean[np.arange(len(bank.y)), np.asarray(bank.y)]
  np.testing.assert_allclose(loss[0, 1], [-right.sum()], rtol=1e-5)
  owned, tier = np.array([[1, 0], [1, 1]], bool), np.zeros(2, int)
  facts = scores_lib.Facts(
    owned, tier, 1, ('acc', 'gyro'), ('low',), ('1',), np.zeros(1, bool), 'abc'
  )

  def report(whole, exits=()):
    found = evaluation.Counts(whole, exits)
    return scores_lib.report(found, scope, facts).record

  together = report(by_person[0], by_person[1:])
  plain = [report(c) for c in by_person]
  assert together['f1_by_exit'] == [one['f1'] for one in plain[1:]]
  assert {k: together[k] for k in plain[0]} == plain[0]
