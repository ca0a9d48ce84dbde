"""What every algorithm promises; one that is registered joins by itself."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms, costs
from relief_jax import world as world_lib
from relief_jax.algorithms.parts import prototypes
from relief_jax.budgets import deadlines
from relief_jax.errors import InputError
from relief_jax.task import Algorithm, RoundInfo
from tests.support import tiny
from tests.twins import (
  elastic_twin,
  exits_twin,
  fedmfs_twin,
  flism_twin,
  prototype_twin,
  tfedavg_twin,
  twin,
)

ROUNDS, CLIENTS = 8, 5
# With one backbone everybody takes part, with the other three are drawn.
COHORT = {'cnn': 5, 'lora': 3}
# The fourth client is padding, and the fastest of all.
SAMPLES = [9, 6, 8, 0, 7]
PADDING = 3
OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]], bool)

# Methods that hold parts of layers, which a frozen base does not have.
NARROW = ('feddrop', 'fedrolex', 'fiarse', 'heterofl')
# And those with exits between layers, where only what is frozen could lie, or
# with personal encoders.
CUT = (
  *NARROW,
  *(m for m in algorithms.ALGORITHMS if algorithms.facts(m).exits),
  'harmony',
)
# With narrow models these need more rounds, or a larger model, to learn: units
# take turns, or the head starts too small to be among the largest weights. Of
# a single layer nothing can be cut.
UNLIMITED = ('fedrolex', 'fiarse', 'depthfl')
# Their loss has more terms than cross-entropy.
MORE = ('flism',)
# Options that a frozen base asks for.
FROZEN = {'flism': {'contrast': False}}
# With the frozen base too where every change is tried; the others' take long
# to compile and hold the same.
OFTEN = ('cohort_mean', 'fedavg', 'local_only', 'relief')
CASES = pytest.mark.parametrize(
  ('method', 'backbone'),
  [
    pytest.param(
      method,
      backbone,
      marks=() if backbone == 'cnn' or method in OFTEN else pytest.mark.slow,
    )
    for method in algorithms.ALGORITHMS
    for backbone in COHORT
    if backbone == 'cnn' or method not in CUT
  ],
)


def world(method, backbone):
  return made_world(backbone, algorithms.facts(method).exits)


@functools.cache
def made_world(backbone, exits):
  task = tiny.task(
    backbone, modalities=('acc', 'gyro'), filters=(4,), exits=exits
  )
  population = tiny.population(task, owned=OWNED, samples=SAMPLES)
  population = tiny.with_share(task, population, 0.8)
  fleet = population.fleet
  fleet = fleet.replace(speed=fleet.speed.at[PADDING].mul(10))
  return task, population.replace(fleet=fleet)


@functools.cache
def setting_of(method, backbone):
  _, population = world(method, backbone)
  return tiny.setting(
    population,
    method,
    cohort=COHORT[backbone],
    steps=4,
    batch=6,
    client_momentum=0.5,
    deadline=float('inf') if method in UNLIMITED else 1.0,
    fill=algorithms.facts(method).fill,
    **(FROZEN.get(method, {}) if backbone == 'lora' else {}),
  )


@functools.cache
def made(method, backbone):
  task, _ = world(method, backbone)
  return tiny.algorithm(method, task, setting_of(method, backbone))


def traits(method, task, setting):
  """What a method says of itself; None of a round of another kind."""
  found = algorithms.ALGORITHMS[method](task, setting.static)
  return None if isinstance(found, Algorithm) else found.traits


@functools.cache
def ran(method, backbone):
  """States before and after, and what was observed in all rounds."""
  task, population = world(method, backbone)
  algorithm = made(method, backbone)
  values = setting_of(method, backbone).hparams

  @functools.partial(jax.jit, compiler_options=tiny.QUICK)
  def run(key, population, values):
    before = algorithm.init(key, task.init(key))

    def step(state, number):
      key_now = jax.random.fold_in(key, number)
      return algorithm.step(key_now, state, population, values)

    return before, *jax.lax.scan(step, before, jnp.arange(ROUNDS))

  return run(jax.random.key(0), population, values)


def size(method, backbone):
  """Rows of a record; in the centre all windows always take part."""
  return CLIENTS if method == 'centralized' else COHORT[backbone]


def kinds(tree):
  return jax.tree.map(lambda v: (v.shape, v.dtype, v.weak_type), tree)


@CASES
def test_types(method, backbone):
  task, _ = world(method, backbone)
  algorithm = made(method, backbone)
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
  task, _ = world(method, backbone)
  _, after, infos = ran(method, backbone)
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
  if method not in MORE:
    assert loss[0] == pytest.approx(np.log(3), rel=0.3)
  # Two bits a weight learn more slowly.
  least = 0.95 if method == 'tfedavg' else 0.9
  assert loss[-2:].mean() < least * loss[0], loss


def sent_by_centralized(task, population, infos):
  """The raw windows of the sensors on board, once."""
  numbers = [4 * population.bank.x[m][0].size for m in task.modalities]
  raw = (np.array(SAMPLES) * (OWNED @ numbers))[infos.client]
  return np.where(np.arange(ROUNDS)[:, None] == 0, raw, 0)


def sent_by_flism(task, population, infos):
  """The entropy, too."""
  trained = np.asarray(infos.trained)
  return trained @ (4 * np.asarray(task.work.size)) + 4 * trained.any(-1)


def sent_with_sums(more, task, population, infos):
  """Class sums of a device's own sensors, and `more` bytes for each."""
  trained = np.asarray(infos.trained)
  sums = OWNED[infos.client] @ (4 * np.asarray(prototypes.sizes(task)) + more)
  return trained @ (4 * np.asarray(task.work.size)) + sums * trained.any(-1)


def second_stage(infos):
  """Of Harmony: devices in the rounds after two of three, [rounds, K]."""
  return np.arange(ROUNDS)[:, None] >= np.full(infos.client.shape, 2)


def sent_by_harmony(task, population, infos):
  """A shared part per sensor, then all but the encoders and a distance each."""
  owned = OWNED[infos.client].sum(-1)
  size, trained = 4 * np.asarray(task.work.size), np.asarray(infos.trained)
  first = trained @ size + trained[..., -1] * (owned - 1) * size[-1]
  encoder = np.array([g.startswith('encoder') for g in task.blocks.name])
  later = trained @ (size * ~encoder) + trained.any(-1) * 4 * owned
  return np.where(second_stage(infos), later, first)


def sent_by_tfedavg(task, population, infos):
  """Two bits a weight, but for biases and the ends."""
  size = np.zeros(task.num_blocks)
  for k, v in twin.named(tiny.init(task)).items():
    group = task.blocks.name.index(twin.group_of(k))
    size[group] += tfedavg_twin.wire(k, v)
  return np.asarray(infos.trained) @ size


SENT = {
  'centralized': sent_by_centralized,
  'flism': sent_by_flism,
  'harmony': sent_by_harmony,
  'pmm': functools.partial(sent_with_sums, 0),
  'qqr_style': functools.partial(sent_with_sums, 4),
  'tfedavg': sent_by_tfedavg,
}


@pytest.mark.invariant(8)
@CASES
def test_what_is_trained_is_sent(method, backbone):
  """Four bytes a number, unless the method is no federated averaging."""
  task, population = world(method, backbone)
  _, _, infos = ran(method, backbone)
  expected = np.asarray(infos.trained) @ (4 * np.asarray(task.work.size))
  if method in SENT:
    expected = SENT[method](task, population, infos)
  found = traits(method, task, setting_of(method, backbone))
  if found and found.silent:
    expected = np.zeros(infos.client.shape)
  if found and found.submodels:
    # In full; what exactly, `test_equals_a_loop` says.
    assert (infos.upload <= expected).all()
    expected = np.where(expected > 0, infos.upload, 0)
  np.testing.assert_allclose(infos.upload, expected)


@pytest.mark.invariant(8)
@CASES
def test_work_takes_time_and_energy_and_padding_none(method, backbone):
  _, _, infos = ran(method, backbone)
  busy = np.asarray(infos.seconds)
  assert (busy.max(1) > 0).all()
  np.testing.assert_array_equal(busy > 0, np.asarray(infos.joules) > 0)
  padding = np.asarray(infos.client) == PADDING
  assert padding.any()
  for cost in (infos.upload, infos.download, infos.seconds, infos.joules):
    np.testing.assert_array_equal(cost[padding], 0)
  if method != 'centralized':
    working = np.asarray(infos.trained).any(-1)
    np.testing.assert_array_equal(busy > 0, working)
    rests = padding
    if method == 'harmony':
      single = OWNED[infos.client].sum(-1) == 1
      rests = padding | (second_stage(infos) & single)
    np.testing.assert_array_equal(working, ~rests)


class Row(NamedTuple):
  """How a method is held to the checks below; a new one joins by one row.

  Attributes:
    twin: the method as a Python loop over clients, steps and groups.
    neutral: options with which it is FedAvg where no device is short of
      anything, beside an infinite deadline.
  """

  twin: type[twin.Twin]
  neutral: dict[str, Any] = {}


TABLE = {
  'fedavg': Row(twin.Twin),
  'cohort_mean': Row(twin.CohortTwin),
  'depthfl': Row(exits_twin.ExitTwin, {'exits': 'last'}),
  'elastic_fl': Row(elastic_twin.ElasticTwin),
  'feddrop': Row(twin.DropTwin),
  'fedel': Row(elastic_twin.WindowTwin),
  'fedmfs_style': Row(fedmfs_twin.MeritTwin),
  'fedpmt': Row(twin.DepthTwin),
  'fedprox': Row(twin.ProxTwin, {'prox': 0.0}),
  'fedrolex': Row(twin.RollTwin, {'masked': 'off'}),
  'fiarse': Row(twin.MagnitudeTwin),
  'flism': Row(
    flism_twin.FlismTwin, {'contrast': False, 'entropy': False, 'kd': 0.0}
  ),
  'heterofl': Row(twin.SliceTwin, {'masked': 'off'}),
  'pmm': Row(prototype_twin.PrototypeTwin, {'substitute': False}),
  'qqr_style': Row(
    prototype_twin.QualityTwin, {'confidence': False, 'align': 0.0}
  ),
  'relief': Row(twin.ReliefTwin),
  'tfedavg': Row(tfedavg_twin.TernaryTwin, {'exempt': 'all'}),
}
ROWS = pytest.mark.parametrize('method', TABLE)
# Where a round is compiled for one question, the others' are slow tests.
FEW = pytest.mark.parametrize(
  'method',
  [
    pytest.param(m, marks=() if m in OFTEN else pytest.mark.slow) for m in TABLE
  ],
)
# Shares of the whole model's FLOPs; the last device affords nothing. With
# three groups or more per device some choose a part of what they own.
AFFORD = [1.2, 0.6, 0.45, 9.0, 0.75, 0.0]
HOLDS = np.array([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]], bool)
COUNT = [9, 6, 8, 0, 7, 5]


def test_every_method_has_a_row():
  """But those with personal models and rounds of another kind."""
  task, population = made_small(False, True)
  assert set(TABLE) <= set(algorithms.ALGORITHMS)
  for method in set(algorithms.ALGORITHMS) - set(TABLE):
    found = traits(method, task, tiny.setting(population, method))
    assert found is None or found.personal, method


def small(method, owned=True):
  """Task and population: six devices, short of time and, if so, sensors."""
  return made_small(algorithms.facts(method).exits, owned)


@functools.cache
def made_small(exits, owned):
  task = tiny.task(modalities=('acc', 'gyro'), exits=exits)
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
  values = {'deadline': 1.0, 'fill': fill, **TABLE[method].neutral}
  return tiny.setting(population, method, **{**values, **overrides})


def options(method):
  """Not neutral: what the config says."""
  given = tiny.config().to_dict().get(method, {})
  return {k: given.get(k, tiny.HPARAMS.get(k)) for k in TABLE[method].neutral}


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
@FEW
def test_neutral_is_fedavg(method):
  task, population = small(method, owned=False)
  unlimited = chosen(method, population, deadline=float('inf'))
  found, info = tiny.step(method, task, population, unlimited, 2)
  task, population = small('fedavg', owned=False)
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
    *((m, algorithms.facts(m).fill) for m in TABLE),
    # Whose publications know no modalities: their rows in a table, too.
    *(
      pytest.param(m, 'input', marks=pytest.mark.slow)
      for m in (*NARROW, 'depthfl')
    ),
  ],
)
def test_equals_a_loop(method, fill):
  """Updates, bytes and FLOPs, over two rounds."""
  task, population = small(method)
  setting = chosen(method, population, fill=fill, **options(method))
  slow = TABLE[method].twin(task, population, setting)
  fleet = population.fleet
  for number, (state, info) in enumerate(
    tiny.run(method, task, population, setting, 2)
  ):
    before = slow.params
    want = slow.round(number)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-5)
      if not number:  # what nobody trained keeps its bits
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
    if not moved[task.blocks.name.index(TABLE[method].twin.group(k))]:
      np.testing.assert_array_equal(v, before[k])


@FEW
def test_who_trains_on_filled_windows(method):
  """All but the methods that refuse it, which would be tested on them."""
  task, population = small(method)
  setting = chosen(
    method, population, fill='input', deadline=float('inf'), **options(method)
  )
  _, info = tiny.step(method, task, population, setting)
  gyro = np.asarray(task.blocks.modality) == 1
  lacking = ~HOLDS[:, 1] & (np.array(COUNT) > 0)
  found = np.asarray(info.trained)[lacking][:, gyro].any()
  assert found == (not algorithms.facts(method).skips)


@pytest.mark.parametrize('method', algorithms.ALGORITHMS)
def test_filled_windows_are_refused_where_nobody_trains_on_them(method):
  config = tiny.config(method=method, fill='input')
  if not algorithms.facts(method).skips:
    assert algorithms.resolve_fill(method, 'input') == 'input'
    return
  with pytest.raises(InputError, match=f'{method}.*--config.fill=skip'):
    world_lib.build(config, None)


@pytest.mark.parametrize('method', CUT)
def test_a_frozen_base_has_no_narrower_form(method):
  task, population = made_world('lora', False)
  with pytest.raises(InputError, match='backbone=cnn'):
    tiny.algorithm(method, task, tiny.setting(population, method))
