"""What a device trains by importance, against trying every set."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, tree
from relief_jax.algorithms import elastic_fl
from relief_jax.budgets import elastic
from relief_jax.budgets.greedy import SLACK
from relief_jax.errors import InputError
from tests.support import tiny

CASES = 200
MODELS = {
  'layer': dict(modalities=('acc', 'gyro'), groups='layer'),
  'lora': dict(backbone='lora', adapters=True),
  'joint': dict(groups='joint'),
}


class Chosen:
  """Choices of many devices on one model, and what every set costs."""

  def __init__(self, name):
    task = tiny.task(**MODELS[name])
    model, num = (
      elastic.chains(task.work, task.blocks.modality),
      task.num_blocks,
    )
    run = jnp.ones(len(task.modalities), bool)

    @jax.jit
    def choose(access, value, budget):
      return jax.vmap(
        lambda *row: elastic.most_valuable(model, task.work, run, *row)
      )(access, value, budget)

    rng = np.random.default_rng(0)
    self.sets = np.array(list(itertools.product([0, 1], repeat=num)), bool)
    every = jnp.broadcast_to(run, (len(self.sets), run.size))
    self.cost = np.asarray(costs.step_flops(task.work, every, self.sets))
    self.access = rng.random((CASES, num)) < 0.85
    self.value = 10 ** rng.uniform(-3, 0, (CASES, num)).astype(np.float32)
    self.value[:, 0] *= rng.random(CASES) < 0.5  # some are worthless
    low, high = 0.9 * self.cost.min(), 1.05 * self.cost.max()
    budget = rng.uniform(low, high, CASES)
    # What exactly one set costs admits that set.
    budget[::3] = rng.choice(self.cost, CASES)[::3]
    self.budget = budget.astype(np.float32)
    self.chosen = np.asarray(
      choose(self.access, self.value, jnp.asarray(self.budget))
    )
    unlimited = jnp.full(CASES, jnp.inf)
    self.unlimited = np.asarray(choose(self.access, self.value, unlimited))

  def price(self, chosen):
    """What a set costs."""
    return self.cost[(self.sets == chosen).all(1).argmax()]


found = functools.cache(Chosen)


@pytest.mark.parametrize('name', MODELS)
def test_no_affordable_set_is_worth_more(name):
  case = found(name)
  for i, chosen in enumerate(case.chosen):
    limit = case.budget[i] * (1 + 2 * SLACK)
    assert case.price(chosen) <= limit or not chosen.any()
    assert not (chosen & ~case.access[i]).any()
    affordable = case.cost <= case.budget[i] * (1 + SLACK)
    affordable &= ~(case.sets & ~case.access[i]).any(1)
    worth = np.where(affordable, case.sets @ case.value[i], 0)
    assert case.value[i][chosen].sum() >= worth.max() * (1 - 1e-5)
    if affordable[1:].any():  # something beside the empty set
      assert chosen.any()


def test_the_budget_binds():
  """Else the test above would prove nothing."""
  sizes = found('layer').chosen.sum(1) / found('layer').access.sum(1)
  assert (sizes == 0).any() and (sizes == 1).any()
  assert ((sizes > 0.3) & (sizes < 0.8)).mean() > 0.3


@pytest.mark.parametrize('name', MODELS)
def test_without_a_budget_everything_in_reach_is_chosen(name):
  """Also what is worth nothing."""
  np.testing.assert_array_equal(found(name).unlimited, found(name).access)


def test_chains_of_a_model():
  task = tiny.task(**MODELS['layer'])
  model = elastic.chains(task.work, task.blocks.modality)
  names = np.array(task.blocks.name)[model.order]
  parts = np.split(names, np.flatnonzero(model.first)[1:])
  assert [list(p) for p in parts] == [
    ['shared'],
    ['fusion/acc', 'encoder1/acc', 'encoder0/acc'],
    ['fusion/gyro', 'encoder1/gyro', 'encoder0/gyro'],
  ]
  # The pass through the head, which whatever trains needs.
  assert model.joint.all(0).sum() == 1 and len(model.cases) == 1


def test_the_unknown_come_first():
  known = jnp.array([jnp.inf, 5.0, 3.0, -2.0, jnp.inf, jnp.inf])
  access = jnp.array([True, True, True, True, True, False])
  value = np.asarray(elastic_fl.worth(jax.random.key(0), known, access))
  np.testing.assert_allclose(value[1:4], [5 / 8, 3 / 8, 0], rtol=1e-6)
  assert value[0] != value[4] and value[[0, 4]].min() > value[1:4].sum()
  other = elastic_fl.worth(jax.random.key(1), known, access)
  assert (other[0] < other[4]) != (value[0] < value[4])


def test_a_group_that_nobody_affords_is_refused():
  task = tiny.task(modalities=('acc', 'gyro'))
  population = tiny.population(task)
  setting = tiny.setting(population, 'elastic_fl')
  check = tiny.algorithm('elastic_fl', task, setting).check
  check(population.fleet, 1.0)
  with pytest.raises(InputError, match='train encoder/acc, encoder/gyro;'):
    check(population.fleet, 0.45)


@pytest.mark.slow
def test_importance_is_of_the_last_turn():
  """One step of SGD: the rate times the squared gradient; then forgotten."""
  task = tiny.task(modalities=('acc', 'gyro'))
  owned = np.array([[1, 0], [1, 1]], bool)
  population = tiny.population(task, owned=owned, samples=[6, 0])
  setting = tiny.setting(
    population,
    'elastic_fl',
    steps=1,
    client_momentum=0.0,
    keep_client_state=True,
  )
  num, before = task.num_blocks, tiny.init(task)
  lr = tiny.HPARAMS['client_lr']
  for state, info in tiny.run('elastic_fl', task, population, setting, 2):
    delta = jax.tree.map(jnp.subtract, state.params, before)
    want = tree.group_sq_norms(task.groups, delta, num) / lr
    trained = np.asarray(info.trained)[0]
    np.testing.assert_array_equal(trained, [True, False, True, False, True])
    memory = np.asarray(state.clients.method)
    np.testing.assert_allclose(
      memory[0][trained], want[trained], rtol=1e-3, atol=1e-8
    )
    assert (memory[0][trained] > 0).all()
    assert np.isinf(memory[0][~trained]).all() and np.isinf(memory[1]).all()
    before = state.params
