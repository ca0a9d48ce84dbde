"""Every method with a twin: FedAvg if nobody is short, and a loop in any case.

Six devices, some of them short of time and sensors; `table.py` names the twin.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms, costs
from relief_jax.budgets import deadlines
from tests.contract.table import METHODS, TABLE, row, slow, traits
from tests.support import tiny
from tests.twins import twin

TWINS = tuple(m for m in METHODS if row(m).twin)


def marks(method, question=''):
  """Whether a method's loop is tried with the slow tests alone."""
  return slow(row(method).late or question in row(method).aside)


ROWS = pytest.mark.parametrize(
  'method', [pytest.param(m, marks=marks(m)) for m in TWINS]
)


def few(methods, question=''):
  """Where a round is compiled for one question, the others' are slow tests."""
  return pytest.mark.parametrize(
    'method',
    [
      pytest.param(m, marks=slow(not row(m).often or question in row(m).aside))
      for m in methods
    ],
  )


FEW = few(TWINS)
NEUTRAL = few([m for m in TWINS if row(m).neutral is not None], 'neutral')
# Shares of the whole model's FLOPs; the last device affords nothing. With
# three groups or more per device some choose a part of what they own.
AFFORD = [1.2, 0.6, 0.45, 9.0, 0.75, 0.0]
HOLDS = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]], bool)
COUNT = [9, 6, 8, 0, 7, 5]


@pytest.mark.parametrize(
  'method',
  [
    pytest.param(m, marks=slow('twin' in row(m).aside))
    for m in algorithms.ALGORITHMS
  ],
)
def test_every_method_has_a_twin(method):
  """But those with personal models and rounds of another kind."""
  task, population = small(method)
  found = traits(method, task, tiny.setting(population, method))
  assert row(method).twin or found is None or found.personal, (
    f'{method!r} has no twin: give it a row in tests/contract/table.py'
  )


def test_every_row_is_of_a_method():
  assert set(TABLE) <= set(METHODS)


def small(method, owned=True):
  """Task and population: six devices, short of time and, if so, sensors."""
  return made_small(tiny.backbone(method), tiny.needs(method), owned)


@functools.cache
def made_small(backbone, needs, owned):
  task = tiny.task(backbone, modalities=('acc', 'gyro'), **dict(needs))
  held = HOLDS if owned else np.ones_like(HOLDS)
  population = tiny.population(task, owned=held, samples=COUNT)
  every = jnp.ones(task.num_blocks, bool)
  whole = costs.step_flops(task.work, every[:2], every)
  share = jnp.array(AFFORD if owned else [1.0] * 6)
  fleet = population.fleet.replace(budget=whole * share)
  return task, population.replace(fleet=fleet)


def chosen(method, population, **overrides):
  """The setting of the checks, two steps of batch 4."""
  fill = algorithms.facts(method).fill
  values = {'deadline': 1.0, 'fill': fill, **(row(method).neutral or {})}
  values |= row(method).waits
  return tiny.setting(population, method, **{**values, **overrides})


def options(method):
  """Not neutral: what the config says."""
  given = tiny.config().to_dict().get(method, {})
  usual = {
    k: given.get(k, tiny.HPARAMS.get(k)) for k in row(method).neutral or ()
  }
  return {**usual, **row(method).tried}


@functools.cache
def after(method):
  """State and info of one round of the default options."""
  task, population = small(method)
  setting = chosen(method, population, **options(method))
  return tiny.step(method, task, population, setting)


def close(found, want, atol=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    want,
  )


@pytest.mark.invariant(6)
@NEUTRAL
def test_neutral_is_fedavg(method):
  task, population = small(method, owned=False)
  unlimited = chosen(method, population, deadline=float('inf'))
  found, info = tiny.step(method, task, population, unlimited, 2)
  plain = chosen('fedavg', population, fill=unlimited.fill)
  want, want_info = tiny.step('fedavg', task, population, plain, 2)
  # Beside early exits, which FedAvg has none of.
  close({k: found.params[k] for k in want.params}, want.params)
  for field in ('upload', 'download', 'seconds', 'joules'):
    np.testing.assert_allclose(
      getattr(info, field), getattr(want_info, field), rtol=1e-6
    )


@pytest.mark.invariant(6)
@pytest.mark.parametrize(
  ('method', 'fill'),
  [
    *(
      pytest.param(m, algorithms.facts(m).fill, marks=marks(m, 'loop'))
      for m in TWINS
    ),
    *(
      pytest.param(m, fill, marks=pytest.mark.slow)
      for m in TWINS
      for fill in row(m).fills
    ),
  ],
)
def test_equals_a_loop(method, fill):
  """Updates, bytes and FLOPs, over two rounds."""
  task, population = small(method)
  setting = chosen(method, population, fill=fill, **options(method))
  slow = row(method).twin(task, population, setting)
  fleet = population.fleet
  for number, (state, info) in enumerate(
    tiny.run(method, task, population, setting, 2)
  ):
    before = slow.params
    want = slow.round(number)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
      if (
        not number and not row(method).turns
      ):  # what nobody trained keeps its bits
        still = want.params[k] == before[k]
        np.testing.assert_array_equal(v[still], before[k][still])
    np.testing.assert_allclose(info.loss, want.loss, rtol=0, atol=1e-5)
    np.testing.assert_allclose(info.upload, want.upload, rtol=1e-6)
    flops = 8 * np.array([slow.spent(n, c) for n, c in enumerate(want.trained)])
    sent = 8 * np.asarray(info.upload / fleet.uplink)
    received = 8 * np.asarray(info.download / fleet.downlink)
    np.testing.assert_allclose(
      info.seconds, flops / fleet.speed + sent + received, rtol=1e-5
    )
    if algorithms.facts(method).budgeted:
      assert (flops <= 8 * fleet.budget * (1 + deadlines.SLACK)).all()


@pytest.mark.invariant(4)
@ROWS
def test_who_affords_nothing_changes_nothing(method):
  """And costs nothing; with nobody left the model keeps its bits."""
  task, population = small(method)
  setting = chosen(method, population, **options(method))
  start = tiny.init(task)
  nobody = population.replace(
    fleet=population.fleet.replace(samples=jnp.zeros(6, jnp.int32))
  )
  poor = tiny.setting(population, method, deadline=0.0).hparams
  worlds = [(nobody, setting)]
  if algorithms.facts(method).budgeted:
    worlds.append(
      (population, setting._replace(hparams={**setting.hparams, **poor}))
    )
    np.testing.assert_array_equal(after(method)[1].upload[5], 0)
  for other, own in worlds:
    state, info = tiny.step(method, task, other, own)
    jax.tree.map(np.testing.assert_array_equal, state.params, start)
    assert not np.asarray(info.trained).any()
    for cost in (info.upload, info.download, info.seconds, info.joules):
      np.testing.assert_array_equal(cost, 0)


@pytest.mark.invariant(5)
@FEW
def test_the_order_of_devices_does_not_matter(method):
  task, population = small(method)
  setting = chosen(method, population, **options(method))
  order = jnp.array([4, 2, 5, 0, 3, 1])
  fleet = jax.tree.map(lambda v: v[order], population.fleet)
  # Nor does the data of a device that is not there, even broken.
  other = population.replace(fleet=fleet, rows=population.rows[order])
  state, info = after(method)
  found, found_info = tiny.step(method, task, other, setting)
  close(found.params, state.params, 1e-6)
  np.testing.assert_array_equal(found_info.client, info.client[order])
  np.testing.assert_allclose(found_info.upload, info.upload[order])
  np.testing.assert_allclose(found_info.seconds, info.seconds[order])


@ROWS
def test_a_cohort_that_is_away(method):
  """All stays finite, and what nobody trained keeps its bits."""
  task, population = small(method)
  setting = chosen(method, population, **options(method))
  without = tiny.only(population, 1, 4)  # nobody with a gyro
  state, info = tiny.step(method, task, without, setting)
  chex.assert_tree_all_finite(state.params)
  before, moved = twin.named(tiny.init(task)), np.asarray(info.trained).any(0)
  assert moved.any()
  gyro = np.asarray(task.blocks.modality) == 1
  assert moved[gyro].any() == (setting.fill == 'input')
  for k, v in twin.named(state.params).items():
    if (
      not row(method).turns
      and not moved[task.blocks.name.index(row(method).twin.group(k))]
    ):
      np.testing.assert_array_equal(v, before[k])


@few([m for m in TWINS if not (algorithms.facts(m).skips or row(m).still)])
def test_who_lacks_a_sensor_trains_on_filled_windows(method):
  """The others refuse `fill=input`, see contract_test."""
  task, population = small(method)
  setting = chosen(
    method, population, fill='input', deadline=float('inf'), **options(method)
  )
  _, info = tiny.step(method, task, population, setting)
  gyro = np.asarray(task.blocks.modality) == 1
  lacking = ~HOLDS[:, 1] & (np.array(COUNT) > 0)
  assert np.asarray(info.trained)[lacking][:, gyro].any()
