"""Settings under which two methods, or two ways, must be the same."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import tree
from relief_jax.algorithms import fedavg
from relief_jax.clients import device
from relief_jax.clients.records import Steps
from relief_jax.compressors import Codec, Compressor
from relief_jax.compressors import base as codes
from relief_jax.compressors.base import Field
from relief_jax.compressors.none import NONE
from relief_jax.errors import InputError
from relief_jax.models import encoders
from relief_jax.rounds.method import Server, Traits
from relief_jax.rounds.server import server_step
from relief_jax.updates import link
from tests.support import tiny
from tests.twins import twin


def assert_same(found, want):
  """Equal to the last bit."""
  jax.tree.map(np.testing.assert_array_equal, found, want)


def assert_close(found, want, atol=1e-6):
  def leaf(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)

  jax.tree.map(leaf, found, want)


def distance(one, other):
  """Largest difference between two trees."""
  return max(
    float(jnp.abs(a - b).max())
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


def params_after(method, task, population, setting, count=3, **kwargs):
  return tiny.step(method, task, population, setting, count, **kwargs)[0].params


@pytest.mark.slow
def test_fedprox_without_a_pull_is_fedavg_bit_for_bit():
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population, prox=0.0)
  want = params_after('fedavg', task, population, setting)
  assert_same(params_after('fedprox', task, population, setting), want)
  pulled = setting._replace(hparams={**setting.hparams, 'prox': 1.0})
  assert (
    distance(params_after('fedprox', task, population, pulled), want) > 1e-4
  )


def test_the_first_local_step_of_fedprox_does_not_depend_on_the_pull():
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task)

  def after(prox, **overrides):
    setting = tiny.setting(population, prox=prox, **overrides)
    return params_after('fedprox', task, population, setting, count=1)

  assert_same(after(0.0, steps=1), after(100.0, steps=1))


@pytest.mark.slow
def test_relief_without_a_deadline_is_the_cohort_mean():
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population)
  mean, mean_info = tiny.step('cohort_mean', task, population, setting, 3)
  ours, ours_info = tiny.step('relief', task, population, setting, 3)
  assert_close(ours.params, mean.params)
  for field in ('trained', 'upload', 'download', 'seconds', 'joules'):
    np.testing.assert_array_equal(
      getattr(ours_info, field), getattr(mean_info, field)
    )


@pytest.mark.slow
def test_everybody_owns_all_and_the_cohort_mean_is_fedavg():
  task = tiny.task()
  population = tiny.population(task, owned=np.ones((5, 3)))
  setting = tiny.setting(population)
  want = params_after('fedavg', task, population, setting)
  assert_close(params_after('cohort_mean', task, population, setting), want)
  mixed = tiny.population(task)
  apart = [
    params_after(m, task, mixed, setting) for m in ('fedavg', 'cohort_mean')
  ]
  assert distance(*apart) > 1e-4


def test_one_modality_and_the_cohort_mean_is_fedavg():
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task)
  setting = tiny.setting(population)
  want = params_after('fedavg', task, population, setting)
  assert_close(params_after('cohort_mean', task, population, setting), want)


def half_width(factor):
  """A compressor whose numbers arrive scaled, at half the price."""
  return Compressor(
    encode=lambda x, key: {'x': factor * x.reshape(-1)},
    decode=lambda code, key, shape: code['x'].reshape(shape),
    fields=lambda shape: (Field('x', codes.size(shape), 16),),
  )


def scaled(task, setting):
  """FedAvg whose devices code updates themselves, by hparams['prox']."""
  base = fedavg.fedavg(task, setting)

  def plan(server, round):
    wire = [
      link.group_bytes(code, task, server.params)
      for code in (half_width(1.0), NONE)
    ]
    found = base.plan(server, round)
    return found._replace(cost=found.cost._replace(wire=jnp.stack(wire)))

  def client(received, device):
    code, update = (
      half_width(device.hparams['prox']),
      base.client(received, device),
    )
    return update._replace(delta=codes.transmit(code, device.key, update.delta))

  return base._replace(plan=plan, client=client)


def only_codes(task, setting):
  """The same, that says so."""
  return scaled(task, setting)._replace(traits=Traits(wire='codes its updates'))


@pytest.mark.slow
def test_a_method_may_code_its_updates_itself():
  """One that changes no number changes no bit; one that halves, halves."""
  task = tiny.task(modalities=('acc',))
  population = tiny.population(task)
  setting = tiny.setting(population, prox=1.0)
  want, plain = tiny.step('fedavg', task, population, setting)
  found, info = tiny.step(scaled, task, population, setting)
  assert_same(found.params, want.params)
  np.testing.assert_array_equal(info.upload, plain.upload / 2)
  setting = tiny.setting(population, prox=0.5)
  found, _ = tiny.step(scaled, task, population, setting)
  middle = jax.tree.map(lambda a, b: (a + b) / 2, tiny.init(task), want.params)
  assert_close(found.params, middle)
  assert_same(info.download, plain.download)
  # The link's codes what is left of the method's: both act, and the method
  # says what is charged; one that says so has no link's beside its own.
  setting = setting._replace(uplink_codec=Codec('int8'))
  found, both = tiny.step(scaled, task, population, setting)
  assert_close(found.params, middle, atol=1e-2)
  assert distance(found.params, middle) > 1e-6
  np.testing.assert_array_equal(both.upload, plain.upload / 2)
  with pytest.raises(InputError, match='this method codes its updates'):
    tiny.algorithm(only_codes, task, setting)


def test_server_rate():
  """At 1 the plain mean, at 1/2 half of it."""
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population)
  slow = twin.Twin(task, population, setting)
  start = tiny.init(task)
  slow.round(0)
  whole = params_after('fedavg', task, population, setting, count=1)
  for k, v in twin.named(whole).items():
    np.testing.assert_allclose(v, slow.params[k], rtol=0, atol=1e-6)
  setting = tiny.setting(population, server_lr=0.5)
  half = params_after('fedavg', task, population, setting, count=1)
  assert_close(half, jax.tree.map(lambda a, b: (a + b) / 2, start, whole))


def epoch_batches(setting, population, number, n):
  """Rows of whole shuffled epochs, as the key discipline draws them."""
  _, _, step_key, _ = jax.random.split(tiny.round_key(0, number), 4)
  row_key, _ = jax.random.split(step_key)
  key = jax.random.fold_in(row_key, int(population.fleet.id[n]))
  count = int(population.fleet.samples[n])
  own = np.asarray(population.rows[n])
  batches = []
  for epoch in jax.random.split(key, setting.epochs):
    draw = np.asarray(jax.random.uniform(epoch, own.shape))[:count]
    order = own[np.argsort(draw, kind='stable')]
    assert sorted(order) == sorted(own[:count])  # every window once
    batches += [
      order[i : i + setting.batch] for i in range(0, count, setting.batch)
    ]
  return batches


@pytest.mark.slow
def test_epochs_by_hand():
  """Shuffled epochs; short batches are averaged, empty ones skipped."""
  task = tiny.task()
  population = tiny.population(task, samples=[3, 9, 4, 8, 5])
  setting = tiny.setting(population, epochs=2, weight='samples')
  slow = twin.Twin(task, population, setting)
  fast = tiny.run('fedavg', task, population, setting, 2)
  for number, (state, info) in enumerate(fast):
    batches = [epoch_batches(setting, population, number, n) for n in range(5)]
    assert [len(b) for b in batches] == [2, 6, 2, 4, 4]
    one = slow.round(number, batches)
    np.testing.assert_allclose(info.loss, one.loss, rtol=0, atol=1e-6)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, one.params[k], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_momentum_kept_on_the_device():
  """Client 3 misses a round and comes back with the momentum it had."""
  task = tiny.task()
  everybody = tiny.population(task)
  setting = tiny.setting(everybody, keep_client_state=True)
  slow = twin.Twin(task, everybody, setting)
  one = tiny.compiled('fedavg', task, setting)
  state = tiny.start('fedavg', task, setting)
  for number in range(3):
    here = (0, 1, 2, 4) if number == 1 else range(5)
    population = tiny.only(everybody, *here)
    slow.fleet = jax.tree.map(np.asarray, population.fleet)
    want = slow.round(number)
    key = tiny.round_key(0, number)
    state, _ = one(key, state, population, setting.hparams)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, want.params[k], rtol=0, atol=1e-6)
  forgetful = setting._replace(keep_client_state=False)
  other = params_after('fedavg', task, everybody, forgetful)
  assert distance(other, state.params) > 1e-4


@pytest.mark.slow
def test_cached_features_are_the_uncached_run():
  """Also the features of a sensor that is not there, filled."""
  plain, cached = tiny.task('lora'), tiny.task('lora', cached=True)
  found = []
  for task in (plain, cached):
    population = tiny.population(task, fill=-1.5)
    setting = tiny.setting(population, fill='input', client_lr=0.5)
    found.append(tiny.step('fedavg', task, population, setting, 3))
  (one, one_info), (two, two_info) = found
  assert_close(one.params, two.params, atol=1e-5)
  assert_same(one_info.seconds, two_info.seconds)
  assert_same(one_info.upload, two_info.upload)
  assert distance(one.params, tiny.init(plain)) > 1e-2


@pytest.mark.parametrize('backbone', ['cnn', 'lora'])
def test_column_blocks_are_one_fusion_matrix(backbone):
  """sum_m h_m A_m = [h_1 ... h_M] [A_1; ...; A_M], and its gradient too."""
  task = tiny.task(backbone)
  spec = tiny.spec_of(task)
  population = tiny.population(task)
  rng = np.random.default_rng(0)

  def some(v):
    return jnp.asarray(rng.normal(size=v.shape), jnp.float32)

  params = jax.tree.map(some, tiny.init(task))
  features = {m: some(np.zeros((5, spec.features))) for m in spec.modalities}
  run = jnp.ones(len(spec.modalities), bool)

  def cut(params):
    return task.fuse(params, population.frozen, features, run)

  def whole(params):
    every = {**population.frozen, **params}
    h = jnp.concatenate([features[m] for m in spec.modalities], 1)
    w = jnp.concatenate([every['fusion'][m] for m in spec.modalities])
    z = h @ w + every['bias'][None]
    if backbone == 'lora':
      a = jnp.concatenate([params['lora_a'][m] for m in spec.modalities])
      z += spec.lora_alpha / spec.rank * ((h @ a) @ params['lora_b'])
    return encoders.head(params['head'], z)

  assert_close(cut(params), whole(params), 1e-4)
  grads = [
    jax.jit(jax.grad(lambda p, f=f: jnp.sin(f(p)).sum()))(params)
    for f in (cut, whole)
  ]
  assert_close(*grads, atol=1e-4)
  assert distance(grads[0], jax.tree.map(jnp.zeros_like, grads[0])) > 0.1


SERVERS = ['sgd', 'momentum', 'adam', 'yogi']


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=pytest.mark.slow if n == 'sgd' else ())
    for n in SERVERS
  ],
)
def test_server_leaves_untouched_groups_alone(name):
  """Even with momentum from earlier rounds, when they were trained."""
  task = tiny.task()
  setting = tiny.setting(tiny.population(task), server_optimizer=name)
  params, step = tiny.init(task), server_step(setting)
  delta = jax.tree.map(lambda p: 0.1 + jnp.abs(p), params)

  def after(state, touched):
    mean = SimpleNamespace(
      delta=tree.scale(
        tree.broadcast_groups(task.groups, touched * 1.0), delta
      ),
      touched=tree.broadcast_groups(task.groups, touched),
    )
    round = SimpleNamespace(hparams=setting.hparams, clients=())
    return step(state, mean, round)[0]

  every = jnp.ones(7, bool)
  start = Server(params, setting.server_tx().init(params))
  moved = after(start, every)
  assert min(distance(a, b) for a, b in pairs(moved.params, params)) > 1e-4
  later = after(moved, every.at[jnp.array([2, 5])].set(False))
  names = twin.named(moved.params)
  for k, v in twin.named(later.params).items():
    still = twin.group_of(k) in ('encoder/mag', 'fusion/mag')
    assert np.array_equal(v, names[k]) == still


def pairs(one, other):
  return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def test_groups_that_nobody_trained_keep_their_bits():
  """The owners of mag leave after a round; adam still wants to move it."""
  task = tiny.task('lora', cached=True)
  population = tiny.population(task)
  setting = tiny.setting(
    population, server_optimizer='adam', server_lr=0.01, client_lr=0.3
  )
  one = tiny.compiled('fedavg', task, setting)
  before = tiny.start('fedavg', task, setting)
  key = jax.random.key(1)
  now, _ = one(key, before, population, setting.hparams)
  without = tiny.only(population, 1, 2, 4)
  later, info = one(key, now, without, setting.hparams)
  assert not np.asarray(info.trained)[:, 2].any()
  start, middle, end = map(
    twin.named, (before.params, now.params, later.params)
  )
  for k in end:
    if '/mag' in k:
      assert not np.array_equal(middle[k], start[k])
      np.testing.assert_array_equal(end[k], middle[k])
    elif 'lora_a' in k:
      assert not np.array_equal(end[k], middle[k])


def gradient_of(task, population, run, sensed=None):
  """Gradient of client 0's loss on one batch, by parameter name."""
  steps = Steps(
    row=population.rows[0, :4], weight=jnp.ones(4), run=run, sensed=sensed
  )
  everything = jnp.ones(task.num_blocks, bool)
  params = nonzero(tiny.init(task))

  @jax.jit
  def gradient(params, run, sensed):
    step = steps._replace(run=run, sensed=sensed)
    loss = device.client_loss(task, population, everything)
    return jax.grad(loss)(params, step)

  return twin.named(gradient(params, run, sensed))


def nonzero(params):
  """Biases and B start at 0 and would hide what passes through them."""
  return jax.tree.map(lambda p: jnp.where(p == 0, 0.1, p), params)


@pytest.mark.parametrize(
  'backbone', ['cnn', pytest.param('lora', marks=pytest.mark.slow)]
)
def test_an_absent_modality_has_no_gradient(backbone):
  """Skipped: exactly 0. Filled: its bias and fill value speak up."""
  task = tiny.task(backbone, groups='split', adapters=backbone == 'lora')
  population = tiny.population(task, fill=-1.5)
  present = jnp.array([True, True, False])
  skipped = gradient_of(task, population, present)
  for k, v in skipped.items():
    assert (np.abs(v).max() == 0) == ('/mag' in k), k
  filled = gradient_of(task, population, jnp.ones(3, bool), present)
  for k, v in filled.items():
    if k in ('fusion/mag', 'lora_a/mag'):
      assert np.abs(v).max() > 1e-6, k


@pytest.mark.slow
def test_filling_interferes_with_the_rare_block():
  """What devices without mag do to it, by what its absence looks like."""
  task = tiny.task()
  fresh = tiny.init(task)

  def pull(fill, params):
    population = tiny.only(tiny.population(task, fill=fill), 1, 2, 4)
    setting = tiny.setting(population, fill='input')
    after, info = tiny.step('fedavg', task, population, setting, params=params)
    assert np.asarray(info.trained)[[1, 2, 4], 5].all()
    return distance(after.params['fusion']['mag'], params['fusion']['mag'])

  # The mean, behind fresh biases of 0: nothing yet.
  assert pull(0.0, fresh) == 0
  assert pull(0.0, nonzero(fresh)) > 1e-4
  # Physical zeros are far from the mean.
  assert pull(-1.5, fresh) > 1e-4
  # The cohort mean does not listen to them.
  population = tiny.only(tiny.population(task, fill=-1.5), 1, 2, 4)
  setting = tiny.setting(population, fill='input')
  after, _ = tiny.step('cohort_mean', task, population, setting)
  assert_same(after.params['fusion']['mag'], fresh['fusion']['mag'])
