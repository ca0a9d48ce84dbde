"""Models that users bring: their blocks, rounds, costs and faults."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from benchmarks.flax_cnn import converted, copy
from relief_jax import config, costs, models, settings
from relief_jax.clients import training
from relief_jax.compressors import Codec
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.models import cnn
from relief_jax.runs.simulation import Simulation
from tests.support import tiny
from tests.support.paths import ROOT

SPEC = tiny.spec()


@functools.cache
def both():
  """The built-in model and its copy, known to `tiny`."""
  task = tiny.task('cnn')
  own = copy(SPEC)
  return task, own


def test_the_copy_has_the_built_ins_blocks_and_costs():
  task, own = both()
  assert own.blocks == task.blocks
  assert own.modalities == task.modalities and own.cuts == task.cuts
  assert own.features == task.features and own.classes == task.classes
  np.testing.assert_array_equal(own.work.size, task.work.size)
  # Of realistic layers: beside tiny ones the loss would be most of all.
  spec = tiny.spec(
    channels=(9, 9, 6), width=128, filters=(32, 64), kernel=5, hidden=128
  )
  task, own = cnn.cnn(spec), copy(spec)
  for seed in range(10):
    rng = np.random.default_rng(seed)
    run = rng.random(3) < 0.7
    reach = np.append(np.tile(run, 2), True)
    train = jnp.asarray(reach & (rng.random(7) < 0.6))
    found, by_hand = (
      costs.step_flops(t.work, jnp.asarray(run), train) for t in (own, task)
    )
    np.testing.assert_allclose(found, by_hand, rtol=0.01)


def known(task):
  """Lets `tiny` make worlds for a task of `SPEC`."""
  tiny._made[id(task)] = task, 'cnn', SPEC
  return task


@pytest.mark.slow
def test_the_copy_trains_as_the_built_in():
  method, (task, own) = 'relief', both()
  # A budget between two costs that differ by a per cent would choose others.
  own = known(own._replace(work=task.work))
  population = tiny.with_share(task, tiny.population(task), 0.6)
  setting = tiny.setting(population, method, deadline=1.0)
  params = tiny.init(task)
  *_, (state, info) = tiny.run(method, task, population, setting, 3)
  *_, (mine, own_info) = tiny.run(
    method, own, population, setting, 3, params=converted(SPEC, params)
  )
  want = converted(SPEC, state.params)
  assert set(want) == set(mine.params)
  for path, value in want.items():
    np.testing.assert_allclose(mine.params[path], value, atol=1e-6, rtol=0)
  np.testing.assert_array_equal(info.trained, own_info.trained)


def mean_of(x):
  return x.mean(1)


def dense_init(key):
  """Three modalities, in one piece: a matrix for each, and a head."""
  keys = jax.random.split(key, 4)
  params = {
    m: 0.3 * jax.random.normal(k, (c, 4))
    for m, c, k in zip(SPEC.modalities, SPEC.channels, keys, strict=False)
  }
  return {**params, 'head': 0.3 * jax.random.normal(keys[3], (4, 3))}


def dense(params, x, run):
  parts = [
    jnp.where(run[i], jnp.tanh(mean_of(x[m]) @ params[m]), 0.0)
    for i, m in enumerate(SPEC.modalities)
  ]
  return sum(parts) @ params['head']


@functools.cache
def one_piece():
  return known(models.from_functions(dense_init, dense, SPEC))


def test_blocks_of_a_model_in_one_piece():
  blocks = one_piece().blocks
  assert blocks.name == ('acc', 'gyro', 'head', 'mag')
  assert blocks.modality == (0, 1, -1, 2)
  assert blocks.role == ('encoder', 'encoder', 'head', 'encoder')
  assert 'one piece' in one_piece().notes[0]
  convolved = functools.partial(nnx.Conv, 2, 3, (3,))
  (note,) = models.from_flax([convolved, mean_of, Sequential()], ONE).notes
  assert 'models.convolution' in note
  # What does not train is not charged, though it is computed.
  work = one_piece().work
  assert (np.asarray(work.wgrad) > 0).all() and (work.fwd > 0).all()


def traced(method, task, **overrides):
  """A round, traced and not compiled."""
  population = tiny.with_share(task, tiny.population(task), 0.6)
  setting = tiny.setting(population, method, deadline=1.0, **overrides)
  found = tiny.algorithm(method, task, setting)

  def whole(key, population, hparams):
    state = found.init(key, task.init(key))
    return found.step(key, state, population, hparams)

  jax.eval_shape(whole, jax.random.key(0), population, setting.hparams)


INT8 = Codec(name='int8')
ROUNDS = {
  'relief': {'uplink_codec': INT8},
  'fedavg': {'fill': 'input', 'downlink_codec': INT8},
  'fedprox': {'layout': placement.Layout(block=2)},
  'cohort_mean': {'guard': settings.Guard(drop=True, clip=True)},
  'fedpmt': {},
  'elastic_fl': {'guard': settings.Guard(mean='median')},
}


@pytest.mark.parametrize('model', ['one piece', 'chain'])
@pytest.mark.parametrize(
  'method',
  [
    m if m == 'relief' else pytest.param(m, marks=pytest.mark.slow)
    for m in ROUNDS
  ],
)
def test_methods_that_any_model_can_have(method, model):
  task = one_piece() if model == 'one piece' else known(copy_of())
  traced(method, task, **ROUNDS[method])


@functools.cache
def copy_of():
  return copy(SPEC)


@pytest.mark.parametrize(
  'method, lacking',
  [
    ('heterofl', 'Widths'),
    ('feddrop', 'Widths'),
    ('depthfl', 'Exits'),
    ('fedel', 'Exits'),
    ('qqr_style', 'features'),
    ('pmm', 'features'),
    ('flism', 'features'),
  ],
)
def test_methods_that_lack_a_declaration(method, lacking):
  with pytest.raises(InputError, match=lacking):
    traced(method, one_piece())


class Sequential(linen.Module):
  """A linen module with whatever may be wrong with one."""

  norm: str = 'group'
  rate: float = 0.0
  average: bool = False
  classes: int = 3

  @linen.compact
  def __call__(self, x):
    x = linen.Dense(4)(x.reshape(x.shape[0], -1))
    if self.norm == 'group':
      x = linen.GroupNorm(2)(x)
    elif self.norm == 'layer':
      x = linen.LayerNorm()(x)
    else:
      x = linen.BatchNorm(use_running_average=self.average)(x)
    x = linen.Dropout(self.rate, deterministic=not self.rate)(x)
    return linen.Dense(self.classes)(x)


ONE = tiny.spec(modalities=('acc',))


@pytest.mark.parametrize('norm', ['group', 'layer', 'batch'])
def test_a_linen_module(norm):
  task = models.from_flax(Sequential(norm), ONE)
  assert task.by_batch == (norm == 'batch')
  assert any('BatchNorm' in note for note in task.notes) == (norm == 'batch')
  assert task.blocks.name[0] == 'Dense_0' or norm
  assert (
    dict(zip(task.blocks.name, task.blocks.modality, strict=True))['Dense_1']
    == -1
  )
  # Input to output, though names come in another order.
  order = [task.blocks.name[g] for g in task.blocks.layers[0]]
  assert order[0] == 'Dense_0' and len(order) == 2


def test_frozen_parameters_are_the_base():
  task = models.from_flax(Sequential(), ONE, frozen='Dense_0')
  params = task.init(jax.random.key(0))
  base = task.base(jax.random.key(1))
  assert set(base) == {'Dense_0/kernel', 'Dense_0/bias'}
  assert not set(base) & set(params)
  assert 'Dense_0' not in task.blocks.name
  assert float(task.memory.fixed) == 4 * (16 * 2 * 4 + 4)
  x = jnp.ones((2, 16, 2))
  scores = task.fuse(params, base, {'acc': x}, jnp.ones(1, bool))
  assert scores.shape == (2, 3)


class Counts(nnx.Module):
  """Keeps a number from call to call."""

  def __init__(self, rngs):
    self.layer = nnx.Linear(2, 3, rngs=rngs)
    self.calls = nnx.Variable(jnp.zeros(()))

  def __call__(self, x):
    self.calls[...] += 1
    return self.layer(mean_of(x))


class Draws(Counts):
  """Draws numbers in every call."""

  def __init__(self, rngs):
    self.layer = nnx.Linear(2, 3, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x):
    return self.layer(self.drop(mean_of(x)))


def linear(params, x):
  return mean_of(x) @ params['w']


def weights(key):
  return {'w': jax.random.normal(key, (2, 3)), 'b': jnp.zeros(2)}


CALLS = []


def impure(params, x):
  CALLS.append(1)
  return len(CALLS) * linear(params, x)


def functions(apply=linear, init=weights, **options):
  return lambda: models.from_functions(init, apply, ONE, **options)


def flax(module, **options):
  return lambda: models.from_flax(module, ONE, **options)


@pytest.mark.parametrize(
  'make, text',
  [
    (flax(Sequential(classes=5)), '5 classes for data of 3'),
    (functions(lambda p, x: linear(p, x)[:, None]), r'shape \[32, 1, 3\]'),
    (functions(lambda p, x: linear(p, x).argmax(-1)), 'int32'),
    (functions(lambda p, x: {'y': linear(p, x)}), 'a dict'),
    (functions(blocks={'a': '*', 'b': 'w'}), 'in the blocks a and b'),
    (functions(blocks={'a': 'w'}), 'parameter b in no block'),
    (functions(blocks={'a': '*', 'c': 'c'}), "'c' of blocks"),
    (functions(frozen='c'), "'c' of frozen"),
    (functions(frozen='*'), 'none trains'),
    (functions(modality={'x': 'acc'}), 'unknown block'),
    (functions(modality={'w': 'gyro'}), 'unknown modality'),
    (functions(loss='hinge'), 'unknown loss'),
    (functions(impure), 'called again'),
    (functions(lambda p, x: x @ p['w'][:1]), 'raises TypeError'),
    (flax(Counts), 'keeps a Variable'),
    (flax(Draws), 'draws random numbers'),
    (flax(Sequential(rate=0.5)), 'draws random numbers'),
    (flax(Sequential('batch', average=True)), 'running mean'),
    (flax([Sequential()]), 'one chain of 0 stages'),
    (flax({'gyro': [Sequential()]}), 'stages of gyro'),
    (flax(3), 'a int for a model'),
  ],
)
def test_bad_models_are_told_in_one_line(make, text):
  with pytest.raises(InputError, match=text) as caught:
    make()
  assert '\n' not in str(caught.value)


def test_sigmoid_and_losses_of_ones_own():
  twice = models.from_functions(
    weights, linear, ONE, loss=lambda z, y, w: (z**2).mean()
  )
  task = models.from_functions(weights, linear, ONE, loss='sigmoid')
  z, y = jnp.array([[1.0, -2.0, 0.5]]), jnp.array([0])
  want = np.log1p(np.exp([-1.0, -2.0, 0.5])).sum()
  np.testing.assert_allclose(
    training.criterion(task)(z, y, jnp.ones(1)), want, rtol=1e-5
  )
  np.testing.assert_allclose(
    training.criterion(twice)(z, y, jnp.ones(1)), (z**2).mean()
  )
  assert training.criterion(tiny.task()) is training.cross_entropy


def images(folder, classes=3, side=4):
  """A file of images of six persons, and a config that trains on it."""
  rng = np.random.default_rng(0)
  y = rng.integers(0, classes, 60)
  x = rng.normal(size=(60, side, side, 3)) + y[:, None, None, None]
  person = np.arange(60) % 6
  path = folder / 'images.npz'
  np.savez(path, x=x, y=y, subject=person, modality=['image'] * 3)
  c = config.default()
  c.dataset, c.data_path, c.method = 'npz', str(path), 'fedavg'
  c.data.split, c.data.folds, c.layout = 'folds', 3, 'all'
  c.fleet, c.clients, c.rounds = 'three_tiers', 4, 1
  c.local_steps, c.batch = 1, 4
  return c


@pytest.mark.slow
def test_a_resnet_from_a_file_outside(tmp_path):
  text = (ROOT / 'examples' / 'resnet.py').read_text()
  code = text.rpartition('"""')[2].splitlines()
  assert len([line for line in code if line.strip()]) <= 25
  own = tmp_path / 'mine.py'
  own.write_text(text + '\ndef small(spec):\n  return resnet8(spec, (8, 8))\n')
  c = images(tmp_path)
  c.backbone = f'{own}:small'
  (tmp_path / 'fleet.csv').write_text(
    'name,share,sensors,device,memory_mb\n'
    'tiny,25,all,raspberry_pi_4,0.001\n'
    'low,25,all,raspberry_pi_4,100\n'
    'full,50,all,jetson_agx_orin,\n'
  )
  c.fleet, c.over_budget = str(tmp_path / 'fleet.csv'), 'sit_out'
  simulation = Simulation(c)
  assert simulation.task.blocks.name == ('stage0', 'stage1', 'head')
  assert simulation.task.cuts == 2 and not simulation.task.notes
  first, last = simulation.advance(), simulation.advance()
  assert first['loss'] is None and np.isfinite(last['loss'])
  # A device without the memory sat out; the others trained all.
  assert last['trained_share'] == dict.fromkeys(
    simulation.task.blocks.name, 0.75
  )
  assert 0.001 < last['memory_mb'] < 100
  assert set(simulation.description['training_mb']) == {'tiny', 'low', 'full'}


def bad(tmp_path, text):
  """What a run says of a model that is the function `mine` in a file."""
  path = tmp_path / f'bad{abs(hash(text))}.py'
  path.write_text(
    'import jax.numpy as jnp\nfrom relief_jax import models\n' + text
  )
  c = images(tmp_path)
  c.backbone = f'{path}:mine'
  with pytest.raises(InputError) as caught:
    Simulation(c)
  return str(caught.value)


NAN = """
def apply(p, x):
  return x.reshape(len(x), -1) @ p['w']

def mine(spec):
  init = lambda key: {'w': jnp.full((48, 3), jnp.nan)}
  return models.from_functions(init, apply, spec)
"""


def test_what_a_run_refuses(tmp_path):
  assert 'not finite' in bad(tmp_path, NAN)
  assert 'gives a int' in bad(tmp_path, 'def mine(spec): return 3')
  assert 'ZeroDivisionError' in bad(tmp_path, 'def mine(spec): return 1 / 0')
  other = NAN.replace('apply, spec)', 'apply, jnp.zeros((1, 4, 4, 3)))')
  assert 'for data of image' in bad(tmp_path, other)
  c = images(tmp_path)
  with pytest.raises(InputError, match='model of windows'):
    Simulation(c)
  c.backbone = str(ROOT / 'examples' / 'resnet.py') + ':resnet8'
  c.sensor_faults.jitter = 1.0
  with pytest.raises(InputError, match='sensor_faults.jitter'):
    Simulation(c)
