"""Methods of a mixture of experts: scores, choices, weights, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.aggregation.mean import Aggregator, Mean
from relief_jax.algorithms import fedalign_moe_style as alignment
from relief_jax.algorithms.parts import expert_choice
from relief_jax.algorithms.parts.expert_choice import ChoiceOptions
from relief_jax.clients.device import Update
from relief_jax.errors import InputError
from relief_jax.simulate import Simulation
from tests.contract import loops_test
from tests.support import tiny
from tests.twins import experts_twin, twin


def test_scores_by_hand():
  p = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4]], np.float32)
  task = tiny.task(**dict(tiny.needs('hfedmoe')))
  options = ChoiceOptions(lam=0.25, beta=0.5)

  @jax.jit
  def scored(p):
    one = jnp.ones(len(p))
    return expert_choice.found(options, task.experts, p[:, None], one)

  found = scored(p)
  mean = np.array([0.6, 0.15, 0.25])
  score = 0.25 * mean + 0.75 * np.array([0.7, 0.2, 0.4])
  told = (p * np.log(p / mean)).mean(0)
  np.testing.assert_allclose(found.usage, mean, rtol=1e-5)
  np.testing.assert_allclose(found.score, score, rtol=1e-5)
  np.testing.assert_allclose(
    found.importance, score - 0.5 * told, rtol=1e-5, atol=1e-6
  )
  # Two of three for each sample, another two for the other.
  np.testing.assert_array_equal(found.routed, [True, True, True])
  alone = scored(p[[0, 0]])
  np.testing.assert_array_equal(alone.routed, [True, True, False])


def step(method, **overrides):
  """State and info of a round of six devices, and the twin's."""
  task, population = loops_test.small(method)
  usual = {'deadline': 1.0, 'fill': 'skip'}
  setting = tiny.setting(population, method, **{**usual, **overrides})
  state, info = tiny.step(method, task, population, setting)
  slow = experts_twin.ImportanceTwin
  if method != 'hfedmoe':
    slow = experts_twin.AlignedTwin
  slow = slow(task, population, setting)
  return state, info, slow, slow.round(0)


@pytest.mark.slow
@pytest.mark.parametrize(
  'method, overrides',
  [
    ('hfedmoe', {'form': 'routed'}),
    ('hfedmoe', {'rule': 'usage', 'most': 1}),
    ('hfedmoe', {'rule': 'random', 'most': 2, 'weight': 'samples'}),
    ('hfedmoe', {'form': 'routed', 'most': 1, 'deadline': 9.0}),
    ('fedalign_moe_style', {'form': 'routed', 'most': 2}),
  ],
)
def test_forms_and_rules_equal_a_loop(method, overrides):
  state, info, slow, want = step(method, **overrides)
  for k, v in twin.named(state.params).items():
    np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
  np.testing.assert_allclose(info.upload, want.upload, rtol=1e-6)
  names = np.array(slow.task.blocks.name)
  most = overrides.get('most', 3)
  for n, trained in enumerate(np.asarray(info.trained)):
    assert set(names[trained]) == want.trained[n]
    assert trained[list(slow.task.experts.blocks)].sum() <= most
  # Seconds of a device: its work and its links; all of a mixture comes down,
  # or what is trained of it.
  flops = 8 * np.array([slow.spent(n, c) for n, c in enumerate(want.trained)])
  size = np.asarray(slow.task.work.size)
  held = np.array(
    [[g in slow.access(n) for g in names] for n in range(slow.clients)]
  )
  if overrides.get('form') == 'routed':
    held &= np.asarray(info.trained) | ~np.char.startswith(names, 'expert')
  down = np.where(np.asarray(info.trained).any(-1), held @ (4 * size), 0)
  if method != 'hfedmoe':
    down += 4 * 3 * (down > 0)
  np.testing.assert_allclose(info.download, down)
  fleet = slow.fleet
  np.testing.assert_allclose(
    info.seconds,
    flops / fleet.speed
    + 8 * np.asarray(info.upload) / fleet.uplink
    + 8 * np.asarray(info.download) / fleet.downlink,
    rtol=1e-5,
  )


@pytest.mark.slow
def test_a_larger_budget_trains_no_fewer_experts():
  task, population = loops_test.small('hfedmoe')
  before = 0
  for deadline in (0.6, 0.8, 1.0, 2.0):
    setting = tiny.setting(population, 'hfedmoe', deadline=deadline)
    _, info = tiny.step('hfedmoe', task, population, setting)
    count = np.asarray(info.trained)[:, list(task.experts.blocks)].sum(-1)
    assert (count >= before).all()
    before = count


def agree(signature, on):
  return np.asarray(jax.jit(alignment.agreement)(signature, on))


def test_who_says_something_else_counts_less():
  """Two agree, the third's experts are permuted, a fourth trained none."""
  one = np.eye(2, 4, dtype=np.float32)[None]
  signature = np.concatenate([one, 3 * one, one[:, ::-1], one])
  on = np.array([[1, 1], [1, 1], [1, 1], [0, 0]], bool)
  found = agree(signature, on)
  np.testing.assert_allclose(found[:3], [[2, 2], [2, 2], [1, 1]], rtol=1e-6)
  # Of two that disagree none is in the majority: the plain mean.
  np.testing.assert_allclose(agree(signature[1:3], on[:2]), 1.0, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'signature, expected',
  [
    (np.ones((3, 1, 2)), [1, 1, 1]),  # equal devices: the mean of 2.21
    (np.zeros((3, 1, 2)), [1, 1, 1]),  # nothing said: by samples alone
    (np.array([[[1, 0]], [[1, 0]], [[0, 1]]]), [2, 2, 1]),
  ],
)
def test_the_aligned_mean(signature, expected):
  """Of three devices, of which the last one has twice the windows."""
  task = tiny.task(fusion='experts', mixture=mixture_of_one())
  weight = np.ones((3, task.num_blocks), np.float32)
  weight[2] = 2
  params = tiny.init(task)
  deltas = jax.tree.map(
    lambda v: (
      np.random.default_rng(0).normal(size=(3, *v.shape)).astype(np.float32)
    ),
    params,
  )
  plain = jax.tree.map(lambda v: v[0], deltas)
  nothing = np.zeros(task.num_blocks, np.float32)
  base = Aggregator(
    lambda update, device: ((), ()),
    lambda *sums: Mean(plain, (), *(nothing,) * 5),
  )
  found = alignment.aligned(task, task.experts, base)

  @jax.jit
  def merge(deltas, signature):
    stacked = jax.vmap(
      lambda d, s: found.client(
        Update(d, nothing, (), jnp.float32(0), rows=s), None
      )[1]
    )(deltas, signature)
    trained = jnp.ones((3, task.num_blocks), bool)
    return found.server((), stacked, weight, trained).delta

  merged = merge(deltas, jnp.asarray(signature, jnp.float32))
  votes = np.array(expected) * [1, 1, 2]
  for name, v in twin.named(merged).items():
    every = twin.named(deltas)[name]
    want = twin.named(plain)[name]
    if name.startswith('expert'):
      want = np.average(every, 0, votes)
    np.testing.assert_allclose(v, want, rtol=1e-4, atol=1e-6)


def mixture_of_one():
  return tiny.Mixture(1, 1, 2)


def test_divergence_of_routing():
  q, wanted = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.5, 0.25])
  found = jax.jit(alignment.divergence)
  np.testing.assert_allclose(found(q, wanted), 0.5 * np.log(2), rtol=1e-5)
  assert found(q, q) == 0 and found(q, 0 * q) == 0


def test_what_means_nothing_is_refused():
  experts = {'model.fusion': 'experts', 'model.experts.number': 3}
  for method in ('hfedmoe', 'fedalign_moe_style'):
    with pytest.raises(InputError, match='model.fusion=experts'):
      Simulation(tiny.config(method=method))
    with pytest.raises(InputError, match='mean=mean'):
      Simulation(tiny.config(method=method, mean='median', **experts))
