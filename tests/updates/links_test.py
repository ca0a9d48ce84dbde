"""Rounds whose links are coded: what devices start from, send and remember."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.aggregation.mean import masked_mean, with_sums
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.compressors import COMPRESSORS, Codec, base, make
from relief_jax.config import validation
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.simulate import Simulation
from relief_jax.updates import link
from tests.support import tiny
from tests.twins import twin

OWNED = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1]], bool)
TOP = Codec('top_k', share=0.2)  # with a memory
QUICK = ('sign', 'top_k')  # with every change
INT8 = Codec('int8', error_feedback='on')


@functools.cache
def world():
  """RELIEF's budgets differ, the fourth client is padding."""
  task = tiny.task('lora', modalities=('acc', 'gyro'), filters=(4,))
  population = tiny.population(task, owned=OWNED, samples=[5, 6, 7, 0, 8])
  return task, tiny.with_share(task, population, [1, 0.4, 0.6, 0, 1])


def setting(up=TOP, down=INT8, **overrides):
  _, population = world()
  return tiny.setting(
    population,
    deadline=1.0,
    uplink_codec=up,
    downlink_codec=down,
    **overrides,
  )


def leaves_of(task, tree):
  """(group, array) of every leaf."""
  groups = jax.tree.map(
    lambda g, t: jax.tree.map(lambda _: g, t), task.groups, tree
  )
  return list(zip(jax.tree.leaves(groups), jax.tree.leaves(tree), strict=True))


def coded(compressor, arrays, key):
  """The code of every array of a message, drawn as in a round."""

  def all_of(arrays):
    return [
      compressor.encode(x, jax.random.fold_in(key, i))
      for i, x in enumerate(arrays)
    ]

  return jax.jit(all_of)(arrays)


@functools.cache
def wire(codec):
  """[G] bytes of really packed arrays."""
  task, _ = world()
  compressor, found = make(codec), np.zeros(task.num_blocks)
  groups, arrays = zip(*leaves_of(task, tiny.init(task)), strict=True)
  codes = coded(compressor, arrays, jax.random.key(0))
  for group, x, code in zip(groups, arrays, codes, strict=True):
    found[group] += len(base.pack(compressor, code, x.shape))
  return found


@pytest.mark.parametrize(
  'method', ['relief', pytest.param('fedprox', marks=pytest.mark.slow)]
)
def test_charged_is_what_packed_arrays_weigh(method):
  task, population = world()
  up, down = wire(TOP), wire(INT8)
  seen = []
  for _, info in tiny.run(method, task, population, setting(), 2):
    np.testing.assert_array_equal(info.upload, info.trained @ up)
    modality = np.asarray(task.blocks.modality)
    runs = np.where(modality < 0, True, OWNED[:, modality])
    runs &= np.asarray(info.trained).any(-1, keepdims=True)
    np.testing.assert_array_equal(info.download, runs @ down)
    seen.append(info)
  whole = tiny.step(method, task, population, setting(Codec(), Codec()))[1]
  assert (seen[0].upload.sum(), seen[0].download.sum()) < (
    0.5 * whole.upload.sum(),
    0.5 * whole.download.sum(),
  )
  assert seen[0].upload[3] == seen[0].download[3] == 0  # padding
  busy = np.asarray(seen[0].trained).any(-1)
  assert (seen[0].seconds < whole.seconds)[busy].all()


def spy(task, setting):
  """FedAvg that remembers the sum of what arrived."""
  base = fedavg(task, setting)

  def server(state, mean, round):
    return base.server(state._replace(method_state=mean.extra), mean, round)

  return base._replace(
    aggregate=with_sums(masked_mean(task), lambda update, device: update.delta),
    server=server,
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
  )


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(set(COMPRESSORS) - {'none'})
  ],
)
def test_the_server_gets_what_is_on_the_wire(name):
  """One device: its packed update, unpacked, is what the round averages."""
  task, everybody = world()
  population = tiny.only(everybody, 1)
  codec = Codec(name, share=0.2, error_feedback='off')

  def arrived(codec):
    found = setting(codec, Codec())
    return tiny.step(spy, task, population, found)[0].server.method_state

  compressor, plain = make(codec), arrived(Codec())
  key = jax.random.split(tiny.round_key(0, 0), 4)[3]
  key = jax.random.fold_in(jax.random.fold_in(key, 0), 1)
  got = arrived(codec)
  groups, arrays = zip(*leaves_of(task, plain), strict=True)
  codes = [
    base.unpack(compressor, base.pack(compressor, code, x.shape), x.shape)
    for code, x in zip(coded(compressor, arrays, key), arrays, strict=True)
  ]

  @jax.jit
  def receive(codes):
    return [
      compressor.decode(code, jax.random.fold_in(key, i), x.shape)
      for i, (code, x) in enumerate(zip(codes, arrays, strict=True))
    ]

  found = jax.tree.leaves(got)
  for group, want, one in zip(groups, receive(codes), found, strict=True):
    np.testing.assert_array_equal(one, want)
    if task.blocks.modality[group] == 1:  # it has no such sensor
      np.testing.assert_array_equal(one, 0)


class TopTwin(twin.Twin):
  """Sends the largest numbers of every array and remembers the others."""

  rest = None

  def local(self, n, batches, trained):
    delta, loss = super().local(n, batches, trained)
    self.rest = self.rest or [
      {k: np.zeros_like(v) for k, v in delta.items()}
      for _ in range(self.clients)
    ]
    for k, v in delta.items():
      if twin.group_of(k) in trained:
        whole = v + self.rest[n][k]
        count = int(np.ceil(0.2 * v.size))
        least = np.sort(np.abs(whole).ravel())[-count]
        delta[k] = np.where(np.abs(whole) >= least, whole, 0)
        self.rest[n][k] = whole - delta[k]
    return delta, loss


@pytest.mark.slow
def test_a_round_is_a_loop_over_devices_that_remember():
  task = tiny.task()
  population = tiny.population(task)
  found = tiny.setting(population, uplink_codec=TOP)
  slow = TopTwin(task, population, found)
  for number, (state, _) in enumerate(
    tiny.run('fedavg', task, population, found, 3)
  ):
    slow.round(number)
    for k, v in twin.named(state.params).items():
      np.testing.assert_allclose(v, slow.params[k], rtol=0, atol=2e-6)
    for k, v in twin.named(state.clients.updates[0]).items():
      want = np.stack([rest[k] for rest in slow.rest])
      np.testing.assert_allclose(v, want, rtol=0, atol=2e-6)


def test_groups_that_nobody_trained_keep_their_bits_and_memories():
  task, population = world()
  nobody = tiny.only(population, 1, 3)  # acc alone
  states = [s for s, _ in tiny.run('fedavg', task, nobody, setting(), 2)]
  start = tiny.init(task)
  for state in states:
    np.testing.assert_array_equal(
      state.params['lora_a']['gyro'], start['lora_a']['gyro']
    )
    np.testing.assert_array_equal(
      state.replica.params['lora_a']['gyro'], start['lora_a']['gyro']
    )
    np.testing.assert_array_equal(state.clients.updates[0]['lora_a']['gyro'], 0)
  rest = np.asarray(states[1].clients.updates[0]['lora_a']['acc'])
  np.testing.assert_array_equal(rest.reshape(5, -1).any(1), [0, 1, 0, 0, 0])
  gyro = task.blocks.name.index('fusion/gyro')
  assert states[1].replica.sent[gyro] == 0 < states[1].replica.sent.max()


@pytest.mark.slow
def test_devices_start_from_what_arrives():
  """FedAvg without steps that move: the server learns nothing from a code.

  With a rate of 0 every update is 0 whatever devices started from; with a
  coarse broadcast of weights the loss they see is another.
  """
  task, population = world()

  def after(down, **overrides):
    found = setting(Codec(), down, **overrides)
    return tiny.step('fedavg', task, population, found)

  plain, still = (after(c, client_lr=0.0) for c in (Codec(), Codec('int4')))
  chex.assert_trees_all_equal(plain[0].params, still[0].params)
  working = np.asarray(plain[1].trained).any(-1)
  assert (plain[1].loss != still[1].loss)[working].all()
  # All know the initial model, so a change of nothing changes nothing.
  known = after(Codec('int4', error_feedback='on'), client_lr=0.0)
  np.testing.assert_array_equal(known[1].loss, plain[1].loss)


def test_the_replica_follows_the_model():
  task, population = world()
  found = setting(Codec(), Codec('top_k', share=0.5), client_lr=0.05)
  *_, (state, _) = tiny.run('cohort_mean', task, population, found, 6)
  gap = jax.tree.map(jnp.subtract, state.params, state.replica.params)
  moved = jax.tree.map(jnp.subtract, state.params, tiny.init(task))
  for one, all_ in zip(
    jax.tree.leaves(gap), jax.tree.leaves(moved), strict=True
  ):
    assert 0 < np.linalg.norm(one) < np.linalg.norm(all_)


def test_who_missed_messages_is_sent_them_or_the_replica():
  task, population = world()
  found = setting(Codec(), INT8, cohort=2)
  down = wire(INT8)
  whole = 4 * np.asarray(task.work.size)
  sent = np.zeros(len(down), int)
  heard = np.zeros((5, len(down)), int)
  modality = np.asarray(task.blocks.modality)
  owns = np.where(modality < 0, True, OWNED[:, modality])
  missed = 0
  for _, info in tiny.run('cohort_mean', task, population, found, 12):
    who = np.asarray(info.client)
    gets = owns[who] & np.asarray(info.trained).any(-1)[:, None]
    sent = sent + gets.any(0)
    gap = sent - heard[who]
    missed = max(missed, (gap * gets).max())
    want = (gets * np.minimum(gap * down, whole)).sum(1)
    np.testing.assert_array_equal(info.download, want)
    heard[who] = np.where(gets, sent, heard[who])
  assert missed * down.min() > whole.min()  # both cases occurred


@pytest.mark.slow
@pytest.mark.parametrize('name, devices', [('all', 1), ('block:2', 2)])
def test_layouts_agree(name, devices):
  task, population = world()

  def after(layout):
    found = setting(layout=layout)
    return tiny.step('relief', task, population, found, 2)

  state, info = after(placement.Layout())
  other, record = after(placement.parse_layout(name, devices))
  chex.assert_trees_all_close(state, other, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(info, record, rtol=1e-5, atol=1e-6)


def simulation(**overrides):
  return Simulation(
    tiny.config(
      backbone='lora',
      method='fedprox',
      rounds=4,
      **{
        'model.base': 'random',
        'synthetic.modalities': 2,
        'uplink_codec.name': 'top_k',
        'downlink_codec.name': 'int4',
        'downlink_codec.error_feedback': 'on',
        **overrides,
      },
    )
  )


@pytest.mark.slow
def test_resumed_equals_uninterrupted_bit_for_bit():
  whole = simulation()
  for _ in range(2):
    whole.advance()
  middle, history = whole.snapshot(), list(whole.history)
  whole.advance()
  again = simulation()
  again.restore(middle, history)
  again.advance()
  assert any(v.any() for v in jax.tree.leaves(middle['state'].clients.updates))
  chex.assert_trees_all_equal(again.snapshot(), whole.snapshot())
  assert whole.round == 4 and again.run.compiles == 0


def test_a_memory_too_large_is_refused():
  alone = simulation(**{'uplink_codec.error_feedback': 'off'})
  held = {
    key: found.description['memory_bytes']['state']
    for key, found in (('off', alone), ('auto', simulation()))
  }
  model = 4 * alone.description['parameters']
  assert held['auto'] - held['off'] == 6 * model
  with pytest.raises(InputError, match='uplink_codec.error_feedback'):
    Simulation(simulation().config, memory_limit=1)


@pytest.mark.parametrize(
  'up, down, message',
  [
    (
      Codec('random_k', error_feedback='on'),
      Codec(),
      'uplink_codec.error_feedback=on',
    ),
    (
      Codec('none', error_feedback='on'),
      Codec(),
      'uplink_codec.error_feedback=on',
    ),
    (Codec(), Codec('random_k'), 'broadcast of weights'),
    (Codec(), Codec('top_k', error_feedback='off'), 'broadcast of weights'),
    (Codec('lzma'), Codec(), 'unknown compressor'),
  ],
)
def test_links_that_cannot_be(up, down, message):
  with pytest.raises(InputError, match=message):
    link.make(setting(up, down))


@pytest.mark.parametrize('method', ['centralized', 'harmony', 'local_only'])
def test_methods_without_links_refuse_codecs(method):
  task, _ = world()
  for up, down in ((TOP, Codec()), (Codec(), INT8)):
    with pytest.raises(InputError, match=f"for '{method}'"):
      tiny.algorithm(method, task, setting(up, down))


def test_config_refuses_a_misspelt_option():
  for key, value in (('mode', 'three'), ('error_feedback', 'yes')):
    c = config_lib.default()
    c.uplink_codec[key] = value
    with pytest.raises(InputError, match=f'config.uplink_codec.{key}'):
      validation.validate(c)
