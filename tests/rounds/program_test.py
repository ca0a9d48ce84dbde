"""Guards on the compiled round: what must and must not be in the program."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import algorithms
from relief_jax.engine import placement
from relief_jax.simulate import Simulation
from tests.support import tiny

# Sizes that occur nowhere else, to be found in the text of a program.
CLIENTS, FEATURES, HIDDEN = 5, 7, 11


@functools.cache
def lowered(backbone, layout, change=None, **overrides):
  """One round of RELIEF, lowered."""
  names = ('acc', 'gyro')
  task = tiny.task(
    backbone,
    modalities=names,
    filters=(3, FEATURES),
    hidden=HIDDEN,
    **overrides,
  )
  population = tiny.population(task, clients=CLIENTS)
  setting = tiny.setting(
    population, deadline=1.0, layout=placement.parse_layout(layout, 1)
  )
  state = tiny.start('relief', task, setting)
  if change:
    task = change(task)
  step = jax.jit(tiny.algorithm('relief', task, setting).step)
  key = tiny.round_key(0, 0)
  return step.lower(key, state, population, setting.hparams)


@functools.cache
def compiled_text():
  """As in a real run, with all of the compiler's passes."""
  program = lowered('cnn', 'one')
  jax.config.update('jax_disable_most_optimizations', False)
  try:
    return program.compile().as_text()
  finally:
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.mark.invariant(10)
@pytest.mark.parametrize(
  'backbone, layout', [('cnn', 'one'), ('cnn', 'all'), ('lora', 'all')]
)
def test_no_convolution_is_left(backbone, layout):
  """Grouped ones are slow, and in a loop on CPU any is (jax#12868)."""
  text = lowered(backbone, layout).as_text()
  assert text.count('stablehlo.while') >= 1 and 'dot_general' in text
  assert 'convolution' not in text


@pytest.mark.slow
def test_the_compiled_round_has_no_convolution_either():
  text = compiled_text()
  assert ' while(' in text and ' dot(' in text
  assert ' convolution(' not in text


@pytest.mark.slow
def test_branches_stay_branches_one_client_at_a_time():
  """One for who sits out, and per modality one forward and one backward."""
  lower = lowered('cnn', 'one').as_text().count('stablehlo.case')
  optimized = compiled_text().count(' conditional(')
  assert lower >= 1 + 2 * 2
  assert optimized >= 1 + 2 * 2


def test_all_clients_at_once_take_both_branches():
  """Why one at a time is the layout for CPU."""
  assert 'stablehlo.case' not in lowered('cnn', 'all').as_text()


@pytest.mark.invariant(10)
@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_nothing_calls_the_host(backbone):
  text = lowered(backbone, 'all').as_text()
  assert 'callback' not in text
  for word in ('infeed', 'outfeed', 'stablehlo.send', 'stablehlo.recv'):
    assert word not in text
  assert 'callback' not in compiled_text()


def merged(task):
  """The same model with W0 + A B formed first."""

  def fuse(params, frozen, features, run):
    fusion = {
      m: w + 2.0 * params['lora_a'][m] @ params['lora_b']
      for m, w in frozen['fusion'].items()
    }
    frozen = {**frozen, 'fusion': fusion}
    nothing = jax.tree.map(jnp.zeros_like, params['lora_a'])
    return task.fuse({**params, 'lora_a': nothing}, frozen, features, run)

  return task._replace(fuse=fuse)


def per_client(text, *sizes):
  """Values of a client axis and then `sizes`, in whatever order."""
  found = set(re.findall(rf'tensor<{CLIENTS}x([0-9x]+)x[a-z]', text))
  return {f for f in found if sorted(sizes) == sorted(map(int, f.split('x')))}


def test_no_client_has_a_base_of_its_own():
  """Neither W0 nor W0 + A B: the frozen base stays one for all."""
  text = lowered('lora', 'all').as_text()
  assert per_client(text, FEATURES, HIDDEN) == set()
  assert per_client(text, FEATURES, 2)  # A, which each trains
  # The guard itself: a merged model shows up.
  text = lowered('lora', 'all', merged).as_text()
  assert per_client(text, FEATURES, HIDDEN)


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_no_client_has_a_bank_of_its_own(backbone):
  """Windows are gathered from one bank, batch by batch."""
  text = lowered(backbone, 'all').as_text()
  windows = sum(5 + n for n in range(CLIENTS))
  for channels in (2, 3):
    assert f'tensor<{windows}x16x{channels}x' in text
    assert per_client(text, windows, 16, channels) == set()
    assert per_client(text, 4, 16, channels)  # a batch


# Compilations of anything at all, also of single operations.
compilations = 0


def _count(event, seconds, **_):
  global compilations
  compilations += event.endswith('backend_compile_duration')


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture
def traces(monkeypatch):
  """Counts how often a round of a registered method is traced."""
  counts = []
  factory = algorithms.ALGORITHMS['relief']

  @functools.wraps(factory)  # its facts, too
  def counting(task, setting):
    made = factory(task, setting)

    def plan(server, round):
      counts.append(0)
      return made.plan(server, round)

    return made._replace(plan=plan)

  monkeypatch.setitem(algorithms.ALGORITHMS, 'relief', counting)
  return counts


def small(**overrides):
  values = {
    'backbone': 'lora',
    'clients': CLIENTS,
    'clients_per_round': 3,
    'model.base': 'random',
    'synthetic.modalities': 2,
    'model.hidden': 5,
  }
  return tiny.config(**{**values, **overrides})


@pytest.mark.invariant(10)
def test_one_compilation_for_all_seeds_rates_and_cohorts(traces):
  """Changing cohorts within a run, then values of the whole config."""
  first = Simulation(small())
  while not first.done:
    first.advance()
  assert first.summary()['compiles'] == 1
  once, before = len(traces), compilations
  assert once > 0 and before > 0
  for changes in (
    {'seed': 1},
    {'hparams.client_lr': 0.01, 'hparams.ema': 0.9, 'deadline': 'full'},
    {'rounds': 8},
  ):
    other = Simulation(small(**changes))
    while not other.done:
      other.advance()
    assert other.summary()['compiles'] == 0, changes
    assert other.history[-1]['loss'] != first.history[-1]['loss']
  assert len(traces) == once
  assert compilations == before


@pytest.mark.slow
def test_another_shape_is_another_program(traces):
  """What is static has a program of its own."""
  Simulation(small()).advance()
  first = len(traces)
  other = Simulation(small(local_steps=3))
  other.advance()
  assert other.summary()['compiles'] == 1 and len(traces) > first


def test_the_state_of_a_call_is_gone_and_its_type_stays():
  simulation = Simulation(small())
  simulation.advance()
  simulation.advance()
  old = simulation._state
  before = jax.tree.map(lambda v: (v.shape, v.dtype, v.weak_type), old)
  simulation.advance()
  after = jax.tree.map(
    lambda v: (v.shape, v.dtype, v.weak_type), simulation._state
  )
  assert before == after
  gone = jax.tree.leaves(old.params)
  assert gone and all(v.is_deleted() for v in gone)
  with pytest.raises(RuntimeError, match='deleted'):
    np.asarray(gone[0])
  chex.assert_tree_all_finite(simulation.params)


@pytest.mark.slow
def test_models_of_the_same_shapes_have_programs_of_their_own(tmp_path):
  """Two of the user's own, and one name that stands for another later."""
  path = tmp_path / 'two.py'
  path.write_text(
    'from relief_jax.models import cnn\n\n\n'
    'def plain(spec):\n  return cnn.cnn(spec)\n\n\n'
    'def sharp(spec):\n'
    '  task = cnn.cnn(spec)\n'
    '  return task._replace(fuse=lambda *a: 4 * task.fuse(*a))\n'
  )
  losses = []
  for name in ('plain', 'sharp'):
    simulation = Simulation(small(backbone=f'{path}:{name}'))
    simulation.advance()
    losses.append(simulation.advance()['loss'])
  assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_method_defined_anew_is_not_the_old_one(monkeypatch):
  base = algorithms.ALGORITHMS['fedavg']

  def still(task, setting):
    return base(task, setting)._replace(
      server=lambda state, mean, round: (state, round.clients)
    )

  moved = []
  for factory in (base, still):
    monkeypatch.setitem(algorithms.ALGORITHMS, 'mine', factory)
    simulation = Simulation(small(method='mine'))
    before = jax.tree.map(np.asarray, simulation.params)
    simulation.advance_rounds(2)
    after = jax.tree.map(np.asarray, simulation.params)
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
    moved.append(max(jax.tree.leaves(gap)) > 0)
  assert moved == [True, False]
