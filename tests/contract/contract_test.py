"""What every method promises in eight rounds, and a new one by itself.

Where methods differ, their facts and traits say so, or `table.py` does.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax import world as world_lib
from relief_jax.errors import InputError
from relief_jax.rounds.method import Traits
from relief_jax.rounds.records import Algorithm, RoundInfo
from tests.contract.table import METHODS, row, slow, traits
from tests.support import tiny

ROUNDS, CLIENTS = 8, 5
# With one backbone everybody takes part, with the other three are drawn.
COHORT = {'cnn': 5, 'lora': 3}
# The fourth client is padding, and the fastest of all.
SAMPLES = [9, 6, 8, 0, 7]
PADDING = 3
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]], bool)

# A part of the units, of the layers; all at one place.
KINDS = ('heterofl', 'depthfl', 'centralized')


def rare(method, backbone):
  """Whether a program takes long to compile and holds the same as others.

  The frozen base where not every change is tried, and methods whose round
  another one has, or `loops_test` looks at with every change.
  """
  if row(method).often:
    return False
  return backbone != 'cnn' or method not in KINDS


def cases(question=''):
  """Every method with its backbones, and which of them are slow tests."""
  return pytest.mark.parametrize(
    ('method', 'backbone'),
    [
      pytest.param(
        method,
        backbone,
        marks=slow(rare(method, backbone) or question in row(method).aside),
      )
      for method in METHODS
      for backbone in COHORT
      if tiny.backbone(method) in ('cnn', backbone)
    ],
  )


CASES = cases()


def world(method, backbone):
  return made_world(backbone, tiny.needs(method) if backbone == 'cnn' else ())


@functools.cache
def made_world(backbone, needs):
  task = tiny.task(
    backbone, modalities=('acc', 'gyro'), filters=(4,), **dict(needs)
  )
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  population = tiny.with_share(task, population, 0.8)
  fleet = population.fleet
  fleet = fleet.replace(speed=fleet.speed.at[PADDING].mul(10))
  return task, population.replace(fleet=fleet)


@functools.cache
def setting_of(method, backbone):
  _, population = world(method, backbone)
  usual = dict(
    cohort=COHORT[backbone],
    steps=4,
    batch=6,
    client_momentum=0.5,
    deadline=1.0,
    fill=algorithms.facts(method).fill,
  )
  frozen = row(method).frozen or {} if backbone == 'lora' else {}
  own = {**row(method).learns, **row(method).tried, **row(method).waits}
  return tiny.setting(population, method, **{**usual, **own, **frozen})


def narrow(method):
  """Whether it cuts the model to parts of layers or to some of them."""
  if algorithms.facts(method).exits:
    return True
  if algorithms.facts(method).adapters:
    return False
  task, _ = world(method, 'cnn')
  found = traits(method, task, setting_of(method, 'cnn'))
  return found is not None and found.submodels


@functools.cache
def refuses(method, backbone):
  """Whether there is nothing to try; `test_a_frozen_base` tries just that."""
  return backbone == 'lora' and (row(method).frozen is None or narrow(method))


@functools.cache
def made(method, backbone):
  if refuses(method, backbone):
    pytest.skip('refuses a frozen base')
  task, _ = world(method, backbone)
  return tiny.algorithm(method, task, setting_of(method, backbone))


@functools.cache
def ran(method, backbone):
  """States before and after, and what was observed in all rounds."""
  algorithm = made(method, backbone)
  task, population = world(method, backbone)
  values = setting_of(method, backbone).hparams

  @jax.jit
  def run(key, population, values):
    before = algorithm.init(key, task.init(key))

    def step(state, number):
      key_now = jax.random.fold_in(key, number)
      return algorithm.step(key_now, state, population, values)

    return before, *jax.lax.scan(step, before, jnp.arange(ROUNDS))

  return run(jax.random.key(0), population, values)


def size(method, backbone):
  """Rows of a record; without rounds on devices all windows take part."""
  return COHORT[backbone] if algorithms.facts(method).rounds else CLIENTS


def kinds(tree):
  return jax.tree.map(lambda v: (v.shape, v.dtype, v.weak_type), tree)


@cases('types')
def test_types(method, backbone):
  algorithm = made(method, backbone)
  task, _ = world(method, backbone)
  assert isinstance(algorithm, Algorithm)
  before, after, infos = ran(method, backbone)
  # A state that changed its type would be compiled again, call after call.
  assert kinds(before) == kinds(after)
  assert not any(v.weak_type for v in jax.tree.leaves(before))
  plain = jax.eval_shape(task.init, jax.random.key(0))
  leading = (CLIENTS,) if algorithm.personal else ()
  for state in (before, after):
    params = algorithm.params(state)
    chex.assert_trees_all_equal_structs(params, plain)
    for mine, one in zip(
      jax.tree.leaves(params), jax.tree.leaves(plain), strict=True
    ):
      assert (mine.shape, mine.dtype) == (leading + one.shape, one.dtype)


@CASES
def test_info(method, backbone):
  _, after, infos = ran(method, backbone)
  task, _ = world(method, backbone)
  num, count = task.num_blocks, size(method, backbone)
  assert isinstance(infos, RoundInfo)
  costs = (infos.upload, infos.download, infos.seconds, infos.joules)
  chex.assert_shape([infos.client, infos.loss, *costs], (ROUNDS, count))
  chex.assert_shape(infos.trained, (ROUNDS, count, num))
  chex.assert_shape(infos.divergence, (ROUNDS, num))
  assert infos.client.dtype == jnp.int32 and infos.trained.dtype == bool
  cohorts = {tuple(sorted(set(c.tolist()))) for c in np.asarray(infos.client)}
  assert all(len(c) == count for c in cohorts)
  assert (len(cohorts) > 1) == (count < CLIENTS)
  chex.assert_tree_all_finite((infos.loss, costs))
  chex.assert_tree_all_finite(made(method, backbone).params(after))
  assert all((np.asarray(v) >= 0).all() for v in costs)


@CASES
def test_the_loss_falls(method, backbone):
  _, _, infos = ran(method, backbone)
  # Who rests has none.
  real = (np.asarray(infos.client) != PADDING) & (np.asarray(infos.loss) > 0)
  loss = np.average(infos.loss, 1, real)
  if not row(method).terms:
    assert loss[0] == pytest.approx(np.log(3), rel=0.3)
  assert loss[-2:].mean() < row(method).least * loss[0], loss


def by_twin(slow, infos):
  """Bytes that a twin's devices send, given what they train, [rounds, K]."""
  names = np.array(slow.task.blocks.name)
  return [
    [
      slow.uploaded(n, set(names[on]))
      for n, on in zip(clients, groups, strict=True)
    ]
    for clients, groups in zip(infos.client, infos.trained, strict=True)
  ]


@pytest.mark.invariant(8)
@CASES
def test_what_is_trained_is_sent(method, backbone):
  """To the byte where a trait, a twin or a row says what it is."""
  _, _, infos = ran(method, backbone)
  task, population = world(method, backbone)
  setting, own = setting_of(method, backbone), row(method)
  found = traits(method, task, setting) or Traits()
  whole = np.asarray(infos.trained) @ (4 * np.asarray(task.work.size))
  if found.submodels and not own.sent:
    assert (infos.upload <= whole).all()
  if found.silent:
    expected = np.zeros_like(whole)
  elif own.sent:
    expected = own.sent(task, population, infos)
  elif own.twin and not found.submodels:
    expected = by_twin(own.twin(task, population, setting), infos)
  else:  # of sub-models `test_equals_a_loop` says what exactly
    expected = np.where(whole > 0, infos.upload, 0)
  np.testing.assert_allclose(infos.upload, expected)


@pytest.mark.invariant(8)
@CASES
def test_work_takes_time_and_energy_and_padding_none(method, backbone):
  _, _, infos = ran(method, backbone)
  busy = np.asarray(infos.seconds)
  assert (busy.max(1) > 0).all()
  np.testing.assert_array_equal(busy > 0, np.asarray(infos.joules) > 0)
  padding = np.asarray(infos.client) == PADDING
  # Where another starts as soon as one has arrived it is never drawn.
  assert padding.any() or algorithms.facts(method).arrivals
  for cost in (infos.upload, infos.download, infos.seconds, infos.joules):
    np.testing.assert_array_equal(cost[padding], 0)
  if not algorithms.facts(method).rounds:
    return  # one device works for all
  working, rests = np.asarray(infos.trained).any(-1), padding
  np.testing.assert_array_equal(busy > 0, working)
  if row(method).rests:
    _, population = world(method, backbone)
    rests = padding | row(method).rests(population, infos)
  np.testing.assert_array_equal(working, ~rests)


@pytest.mark.parametrize('method', METHODS)
def test_a_frozen_base(method):
  """Has no narrower form, nor layers to leave out; others train on it."""
  task, population = made_world('lora', ())
  setting = tiny.setting(population, method, **(row(method).frozen or {}))
  if refuses(method, 'lora'):
    with pytest.raises(InputError, match='backbone=cnn'):
      tiny.algorithm(method, task, setting)
  else:
    assert isinstance(tiny.algorithm(method, task, setting), Algorithm)


@pytest.mark.parametrize('method', METHODS)
def test_filled_windows_are_refused_where_nobody_trains_on_them(method):
  config = tiny.config(method=method, fill='input')
  if not algorithms.facts(method).skips:
    assert algorithms.resolve_fill(method, 'input') == 'input'
    return
  with pytest.raises(
    InputError, match=f'{re.escape(method)}.*--config.fill=skip'
  ):
    world_lib.build(config, None)
