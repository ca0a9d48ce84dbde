"""What crosses in a step of each method of split training, by hand."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax.budgets import cuts
from relief_jax.rounds import frame
from relief_jax.rounds.method import Server
from tests.support import tiny

TASK = tiny.task(groups='layer')
POINTS = cuts.required(TASK, 'psl')
STEPS, BATCH = 2, 4


class Row(NamedTuple):
  """Times that something crosses; numbers of scalars."""

  act_up: int = 1
  grad_down: int = 1
  act_down: int = 0
  grad_up: int = 0
  labels: bool = True
  scalar_up: int = 0
  scalar_down: int = 0
  weights: bool = False


TABLE = {
  'splitfed': (Row(weights=True), {'rule': 'fixed'}),
  'splitfed_v2': (Row(weights=True), {}),
  'hasfl_style': (Row(weights=True), {'rule': 'fixed', 'batches': 'fixed'}),
  'psl': (Row(), {}),
  'psl_merged': (Row(weights=True), {'merge': True}),
  'psl_u': (Row(act_down=1, grad_up=1, labels=False), {'labels': 'stay'}),
  'gapsl_style': (Row(), {}),
  'ho_sfl': (Row(scalar_up=3, scalar_down=6), {'probes': 3}),
  # Its front is its split here, so that it goes up once.
  'flexp_sfl': (Row(act_down=1, grad_up=1, labels=False), {}),
}


@functools.cache
def population():
  return tiny.population(TASK)


def first_plan(task, population, method, **options):
  """The plan of a first round; nothing is trained."""
  setting = tiny.setting(population, method, **options)
  made = algorithms.find(method)(task, setting.static)

  @jax.jit
  def plan(params, fleet, hparams):
    round = frame.last(task, setting.static, hparams, fleet, jnp.int32(0))
    return made.plan(Server(params, (), made.init(params)), round)

  return plan(task.init(jax.random.key(0)), population.fleet, setting.hparams)


def planned(name):
  method = name.split('_merged')[0].removesuffix('_u')
  return first_plan(TASK, population(), method, layers=1, **TABLE[name][1])


@pytest.mark.parametrize('name', TABLE)
def test_the_bill_of_a_round(name):
  row, plan = TABLE[name][0], planned(name)
  spec = tiny.spec_of(TASK)
  owned = np.asarray(population().fleet.owned).sum(-1)
  cut = 4 * BATCH * spec.lengths()[1] * spec.filters[0] * owned
  end = 4 * BATCH * spec.filters[-1] * owned
  up = row.act_up * cut + row.grad_up * end + 4 * row.scalar_up
  up += 4 * BATCH * row.labels
  down = row.grad_down * cut + row.act_down * end + 4 * row.scalar_down
  np.testing.assert_array_equal(plan.cost.upload, STEPS * up)
  np.testing.assert_array_equal(plan.cost.download, STEPS * down)
  first = np.array([g.startswith('encoder0') for g in TASK.blocks.name])
  expected = np.asarray(plan.trained) & first & row.weights
  np.testing.assert_array_equal(plan.cost.sent, expected)
  np.testing.assert_array_equal(plan.cost.received, expected)
