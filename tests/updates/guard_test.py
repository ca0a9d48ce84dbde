"""Clients that diverge or lie: dropped, clipped, outvoted; against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import simulate
from relief_jax.compressors import Codec
from relief_jax.config import validation
from relief_jax.engine import buckets
from relief_jax.engine.placement import Layout, clients_mesh
from relief_jax.errors import InputError
from relief_jax.settings import Faults, Guard
from tests.rounds.equivalence_test import assert_close, assert_same
from tests.support import tiny
from tests.twins import twin

CLIENTS, PADDING = 7, 5
LIARS = (1, 3)
SAMPLES = [9, 6, 8, 7, 5, 0, 6]
OFF = Guard()
DROP = Guard(drop=True, faults=Faults('nan'))
TRIMMED = Guard(mean='trimmed', trim=0.25)
MEDIAN = Guard(mean='median')


@functools.cache
def world():
  """Two sensors; the fourth client of five owners of both is padding."""
  task = tiny.task(modalities=('acc', 'gyro'), filters=(4,))
  owned = np.array([[1, 1]] * 4 + [[1, 0], [1, 1], [1, 0]], bool)
  population = tiny.population(task, owned=owned, samples=SAMPLES)
  return task, tiny.with_share(task, population, 0.8)


def setting(method, found=OFF, liars=(), **overrides):
  """Of `world`, with a guard and these clients faulty."""
  made = tiny.setting(world()[1], method, guard=found, **overrides)
  faulty = jnp.isin(jnp.arange(CLIENTS), jnp.asarray(liars, int))
  hparams = {**made.hparams, 'faulty': faulty.astype(jnp.float32)}
  return made._replace(hparams=hparams)


def apart(found):
  """The update of every client that is alone, name -> [n, ...], no padding.

  By the program of the guard that is tested, which leaves one client as it is.
  """
  task, population = world()
  made, start = setting('cohort_mean', found, clip_norm=1e9), tiny.init(task)
  updates = []
  for n in np.delete(np.arange(CLIENTS), PADDING):
    only = tiny.only(population, n)
    state, _ = tiny.step('cohort_mean', task, only, made)
    updates.append(jax.tree.map(jnp.subtract, state.params, start))
  return {
    k: np.stack([twin.named(one)[k] for one in updates])
    for k in twin.named(start)
  }


def cohort_of(name):
  """Who of `apart` owns what a parameter is of."""
  owned = np.delete(np.asarray(world()[1].fleet.owned), PADDING, 0)
  if '/gyro' in name:
    return owned[:, 1]
  return owned[:, 0]


def test_clipped_by_numpy():
  """A norm is over all that a client sends; who is below it keeps all."""
  task, population = world()
  found = Guard(clip=True)
  updates = apart(found)
  norms = np.sqrt(
    sum(np.square(v).reshape(len(v), -1).sum(1) for v in updates.values())
  )
  most = np.median(norms) * 1.001
  assert (norms > most).sum() == 3 and (norms <= most).sum() == 3
  made = setting('cohort_mean', found, clip_norm=most)
  state, _ = tiny.step('cohort_mean', task, population, made)
  start = twin.named(tiny.init(task))
  factor = np.minimum(1, most / norms)
  for k, v in twin.named(state.params).items():
    clipped = updates[k] * factor.reshape((-1,) + (1,) * (v.ndim))
    mean = clipped[cohort_of(k)].mean(0)
    np.testing.assert_allclose(v - start[k], mean, rtol=0, atol=1e-6)


def test_the_median_of_a_round_by_numpy():
  task, population = world()
  made = setting('cohort_mean', MEDIAN)
  state, info = tiny.step('cohort_mean', task, population, made)
  start, updates = twin.named(tiny.init(task)), apart(MEDIAN)
  for k, v in twin.named(state.params).items():
    want = np.median(updates[k][cohort_of(k)], 0)
    np.testing.assert_allclose(v - start[k], want, rtol=0, atol=1e-6)
  assert np.isfinite(info.divergence).all() and 'dropped' not in info.extra


SPARSE = {
  'keep_client_state': True,
  'uplink_codec': Codec('top_k', share=0.3),
  'deadline': 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('method', 'overrides'),
  [
    # Absent groups count with zeros: those of the dropped do not.
    ('fedavg', {'fill': 'skip', 'weight': 'samples'}),
    ('relief', SPARSE),
    ('relief', {'guard': DROP._replace(mean='median')}),
    ('feddrop', {'denominator': 'all'}),
    ('elastic_fl', {'deadline': 1.0}),
    ('flism', {}),
    ('heterofl', {'guard': DROP._replace(mean='median')}),
  ],
)
def test_who_is_dropped_was_not_there(method, overrides):
  """The same state as without them, memories too; what they did is paid."""
  task, population = world()
  found = overrides.get('guard', DROP)
  rest = {k: v for k, v in overrides.items() if k != 'guard'}
  broken, sound = (
    setting(method, found, liars, **rest) for liars in (LIARS, ())
  )
  others = tiny.only(population, *set(range(CLIENTS)) - set(LIARS))
  everybody = next(tiny.run(method, task, population, sound))[1]
  assert not everybody.extra['dropped'].any()
  runs = (
    tiny.run(method, task, population, broken),
    tiny.run(method, task, others, sound),
  )
  lies = np.isin(np.arange(CLIENTS), LIARS)
  for number, ((state, info), (want, other)) in enumerate(
    zip(*runs, strict=True)
  ):
    assert_same(state, want)
    np.testing.assert_array_equal(info.divergence, other.divergence)
    np.testing.assert_array_equal(info.loss, np.where(lies, 0, other.loss))
    np.testing.assert_array_equal(info.extra['dropped'], lies)
    assert info.upload[lies].min() > 0 and not other.upload[lies].any()
    if number == 0:  # before anybody knows
      for field in ('upload', 'download', 'seconds', 'joules', 'trained'):
        np.testing.assert_array_equal(
          getattr(info, field), getattr(everybody, field)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('method', 'layout'),
  [
    ('relief', Layout(3)),
    ('relief', Layout(1, clients_mesh(2))),
    ('heterofl', Layout(0)),
    ('heterofl', Layout(2, clients_mesh(3))),
    ('cohort_mean', Layout(2)),  # in two buckets
  ],
)
def test_no_layout_changes_what_is_dropped_or_outvoted(method, layout):
  task, population = world()
  made = setting(method, DROP._replace(mean='median', clip=True), LIARS)
  want, _ = tiny.step(method, task, population, made, 3)
  if method == 'cohort_mean':
    cut = buckets.bucket(np.asarray(population.fleet.owned), task, 2, 1)
    assert len(cut) == 2
    made = made._replace(buckets=cut)
  state, info = tiny.step(
    method, task, population, made._replace(layout=layout), 3
  )
  assert_close(state.params, want.params)
  np.testing.assert_array_equal(
    info.extra['dropped'], np.isin(np.arange(CLIENTS), LIARS)
  )


def test_all_dropped_changes_nothing():
  task, population = world()
  made = setting('relief', DROP, range(CLIENTS), **SPARSE)
  state, info = tiny.step('relief', task, population, made)
  assert_same(state.params, tiny.init(task))
  # Padding does not even begin.
  assert info.extra['dropped'].sum() == CLIENTS - 1


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('nonfinite', 'skip'),
    ('mean', 'mode'),
    ('trim', 0.5),
    ('faults.share', 1.1),
    ('faults.kind', 'sleep'),
    ('faults.scale', -1.0),
    ('hparams.clip_norm', float('nan')),
    ('hparams.clip_norm', -1.0),
  ],
)
def test_bad_keys(key, value):
  with pytest.raises(InputError, match=key):
    validation.validate(tiny.config(**{key: value}))


@pytest.mark.parametrize(
  ('method', 'found', 'overrides', 'says'),
  [
    ('fedavg', MEDIAN, {'weight': 'samples'}, 'weights by samples'),
    ('flism', MEDIAN, {}, 'weights that the devices find'),
    ('flism', TRIMMED, {'entropy': False}, 'plain sums'),
    ('relief', MEDIAN, {'norm': 'cosine'}, 'plain sums'),
    ('pmm', MEDIAN, {}, 'what devices tell'),
    ('relief', MEDIAN, {'denominator': 'cohort'}, 'denominator'),
    ('feddrop', MEDIAN, {'denominator': 'all'}, 'do not hold'),
    ('tfedavg', Guard(clip=True), {}, 'clip_norm'),
    ('harmony', DROP, {}, 'nonfinite=drop'),
    ('local_only', Guard(clip=True), {}, 'clip_norm'),
    ('centralized', MEDIAN, {}, 'mean=median'),
    ('centralized', Guard(faults=Faults('nan')), {}, 'faults.share'),
  ],
)
def test_refused(method, found, overrides, says):
  made = setting(method, found, **overrides)
  with pytest.raises(InputError, match=says):
    tiny.algorithm(method, world()[0], made)


@pytest.mark.slow
def test_a_run_goes_on_and_tells_who_was_dropped():
  c = tiny.config(**{'nonfinite': 'drop', 'faults.share': 0.34})
  run = simulate.Simulation(c)
  liars = np.asarray(run.arguments()[-1]['faulty']) > 0
  assert liars.sum() == 2
  while not run.done:
    record = run.advance()
    assert np.isfinite(list(run.run._totals.totals.values())).all()
    if record['round']:
      assert record['dropped'] == 4 and np.isfinite(record['loss'])
      np.testing.assert_array_equal(run.run.devices['dropped'], 2 * liars)
      assert np.array(run.run.devices['last']['upload'])[liars].min() > 0
  summary = run.summary()
  assert summary['dropped_total'] == 8
  clock = [r['sim_seconds'] for r in run.history]
  assert clock == sorted(clock) and clock[0] == 0 < clock[1]
  # Two of six own the rarest sensor.
  found = {'modality': 'mag', 'clients': 2}
  assert summary['world']['smallest_cohort'] == found
  assert summary['warnings'] == run.warnings
  assert "2 device(s) own 'mag'" in run.warnings[0]


@pytest.mark.slow
def test_a_run_that_stops_says_when_and_where():
  """The first round's model is broken, the second's loss tells."""
  run = simulate.Simulation(tiny.config(**{'faults.share': 0.34}))
  run.advance()
  with pytest.raises(simulate.Diverged) as error:
    run.advance()
  assert error.value.round == 2 and error.value.group == 'encoder/acc'
