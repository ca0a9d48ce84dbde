"""Memory as a budget: what fits is trained, who cannot is told or sits out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import fedpmt, relief
from relief_jax.budgets import memory
from relief_jax.errors import InputError
from relief_jax.models import counting
from relief_jax.rounds import frame
from relief_jax.rounds.method import Server
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan
from relief_jax.world import fleets
from tests.support import tiny

STEP = memory.Step(4, 1.0)


@pytest.fixture(scope='module')
def task():
  found = tiny.task()
  memory_of = counting.memory(found, tiny.spec().example)
  return found._replace(memory=memory_of)


def bounded(share, clients=5):
  """Fleets whose devices hold a share of what training all takes."""
  task = tiny.task()
  task = task._replace(memory=counting.memory(task, tiny.spec().example))
  fleet = tiny.population(tiny.task(), clients).fleet
  shared, whole = (
    memory.every(task, STEP, fleet, False, train)
    for train in (task.blocks.shared, np.ones(task.num_blocks, bool))
  )
  most = shared + np.asarray(share) * (whole - shared)
  return dataclasses.replace(fleet, memory=jnp.asarray(most, jnp.float32))


def plan_of(method, task, fleet, **fields):
  setting = Setting(
    clients=5,
    cohort=5,
    batch=4,
    options=relief.relief.facts.make()
    if method is relief.relief
    else fedpmt.fedpmt.facts.make(),
    **fields,
  )
  built = method(task, setting)
  params = tiny.init(tiny.task())
  round = frame.seen(
    jax.random.key(0),
    task,
    setting,
    {**tiny.HPARAMS},
    fleet,
    jnp.arange(5),
    jnp.int32(0),
  )
  one = built.client_init(params)
  round = round._replace(clients=frame.everyone(one, 5))
  return built.plan(Server(params, (), built.init(params)), round), setting


@pytest.mark.slow
@pytest.mark.parametrize('method', [relief.relief, fedpmt.fedpmt])
def test_what_is_chosen_fits(method, task):
  whole, _ = plan_of(method, task, tiny.population(tiny.task()).fleet)
  assert whole.trained.sum() > 5  # without bounds: all
  fleet = bounded([0.5, 1.0, 0.3, 0.8, 0.0])
  plan, setting = plan_of(method, task, fleet)
  assert setting.memory_step == STEP
  used = memory.needed(task, STEP, plan.run, plan.trained)
  assert (used <= fleet.memory).all()
  assert plan.trained.any(-1).all()
  assert plan.trained.sum() < whole.trained.sum()
  np.testing.assert_array_equal(plan.trained[1], whole.trained[1])
  # Nobody is left out of a plan that fits.
  found, told = memory.within(task, STEP, plan, fleet)
  np.testing.assert_array_equal(found.trained, plan.trained)
  np.testing.assert_allclose(told, used)


def test_who_cannot_sits_the_round_out(task):
  fleet = bounded([1.0, 0.5, 1.0, 1.0, -0.5])
  run = fleet.owned
  access = jnp.asarray(
    np.asarray(run)[:, np.asarray(task.blocks.modality)]
    | task.blocks.shared[None]
  )
  plan = Plan(run, access, access.astype(jnp.float32))
  found, told = memory.within(task, STEP, plan, fleet)
  np.testing.assert_array_equal(
    found.trained.any(-1), [True, False, True, True, False]
  )
  for field in (found.run, found.counted, told[:, None]):
    np.testing.assert_array_equal(field[jnp.array([1, 4])], 0)
  assert (told[jnp.array([0, 2, 3])] > 0).all()
  with pytest.raises(InputError, match='parts of blocks'):
    priced = plan._replace(cost=CostOverride(work=task.work))
    memory.within(task, STEP, priced, fleet)


def check(task, fleet, budgeted, sit_out=False):
  memory.check(task, STEP, fleet, False, budgeted, ('low', 'mid'), sit_out)


def test_a_fleet_that_cannot_is_refused(task):
  tiers = np.array([0, 1, 1, 1, 1])
  fleet = dataclasses.replace(
    bounded([0.5, 1.0, 1.0, 1.0, 1.0]), tier=jnp.asarray(tiers)
  )
  check(task, fleet, True)  # it may choose less
  check(task, fleet, False, sit_out=True)
  with pytest.raises(InputError, match=r'1 of 5 devices \(tier low\).* MB'):
    check(task, fleet, False)
  small = dataclasses.replace(fleet, memory=jnp.full(5, 10.0))
  for sit_out in (False, True):  # nobody would be left
    with pytest.raises(InputError, match='shared blocks'):
      check(task, small, True, sit_out)
  check(task, dataclasses.replace(fleet, memory=None), False)


def test_a_fleet_file_has_a_column(tmp_path):
  path = tmp_path / 'fleet.csv'
  path.write_text(
    'name,share,sensors,device,memory_mb\n'
    'small,50,all,jetson_nano,1.5\nlarge,50,all,jetson_nano,\n'
  )
  rng = np.random.default_rng(0)
  fleet = fleets.build(str(path), 4, ('acc',), np.ones(4, int), rng)
  assert sorted(np.asarray(fleet.memory).tolist()) == [
    1.5e6,
    1.5e6,
    np.inf,
    np.inf,
  ]
  path.write_text(path.read_text().replace('1.5', '-1'))
  with pytest.raises(InputError, match='memory_mb'):
    fleets.build(str(path), 4, ('acc',), np.ones(4, int), rng)
  whole = fleets.build('uniform', 4, ('acc',), np.ones(4, int), rng)
  assert whole.memory is None
