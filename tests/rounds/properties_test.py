"""What must hold for any fleet; shapes stay, values vary: one program each."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relief_jax import costs as costs_lib
from relief_jax.algorithms import fedavg
from relief_jax.rounds import accounting, frame
from relief_jax.task import Plan
from tests.support import tiny

few = settings(max_examples=8, deadline=None)
many = settings(max_examples=50, deadline=None)

TASK = tiny.task('lora', cached=True)
CLIENTS, MODALITIES, GROUPS = 5, 3, 4

shares = st.lists(st.floats(0, 1.2), min_size=CLIENTS, max_size=CLIENTS)


def masks(*shape):
  size = int(np.prod(shape))
  rows = st.lists(st.booleans(), min_size=size, max_size=size)
  return rows.map(lambda row: np.array(row).reshape(shape))


def run(population, rounds=2):
  setting = tiny.setting(population, deadline=1.0, client_lr=0.3)
  found = tiny.run('relief', TASK, population, setting, rounds)
  return list(found)


def close(found, want):
  """To rounding: parameters are below 1, all else is compared relatively."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def same(found, want):
  jax.tree.map(np.testing.assert_array_equal, found, want)


@few
@given(st.permutations(range(CLIENTS)), shares, masks(CLIENTS, MODALITIES))
def test_order_of_clients(order, share, owned):
  """Draws and choices belong to a device, wherever it stands."""
  owned[:, 0] |= ~owned.any(1)
  population = tiny.with_share(TASK, tiny.population(TASK, owned=owned), share)
  order = jnp.asarray(order)
  moved = population.replace(
    fleet=jax.tree.map(lambda v: v[order], population.fleet),
    rows=population.rows[order],
  )
  pairs = zip(run(population), run(moved), strict=True)
  for (state, info), (other, record) in pairs:
    close(other.params, state.params)
    same(record.trained, info.trained[order])
    same(other.clients.method, state.clients.method[order])
    for field in ('client', 'upload', 'download', 'seconds', 'joules'):
      same(getattr(record, field), getattr(info, field)[order])
    close(record.loss, info.loss[order])
    # Second moments of differences of float32 parameters.
    np.testing.assert_allclose(
      record.divergence, info.divergence, rtol=1e-3, atol=1e-12
    )


def spoiled(population, padding):
  """Padding with the worst in it; the others' data are untouched."""
  rows, fleet = population.rows, population.fleet
  bad = np.concatenate([np.asarray(rows[n]) for n in padding])
  nan = {
    field: getattr(fleet, field).at[jnp.asarray(padding)].set(jnp.nan)
    for field in ('speed', 'uplink', 'downlink', 'watts', 'budget')
  }
  bank = population.bank
  x = {m: v.at[bad].set(jnp.nan) for m, v in bank.x.items()}
  return population.replace(bank=bank.replace(x=x), fleet=fleet.replace(**nan))


@few
@given(st.sets(st.integers(0, CLIENTS - 1), min_size=1, max_size=4), shares)
def test_padded_clients_full_of_nan(padding, share):
  population = tiny.with_share(TASK, tiny.population(TASK), share)
  real = [n for n in range(CLIENTS) if n not in padding]
  clean = tiny.only(population, *real)
  dirty = spoiled(clean, sorted(padding))
  for (state, info), (other, record) in zip(
    run(clean), run(dirty), strict=True
  ):
    same(other, state)
    same(record, info)
    for field in ('loss', 'upload', 'download', 'seconds', 'joules'):
      assert not np.asarray(getattr(info, field))[sorted(padding)].any()


def test_padding_is_nobody():
  """Three devices and two of padding are three devices."""
  whole = tiny.with_share(TASK, tiny.population(TASK), 0.7)
  fleet = jax.tree.map(lambda v: v[:3], whole.fleet)
  part = whole.replace(fleet=fleet, rows=whole.rows[:3])
  pairs = zip(run(tiny.only(whole, 0, 1, 2), 3), run(part, 3), strict=True)
  for (state, info), (other, record) in pairs:
    close(other.params, state.params)
    for field in ('loss', 'trained', 'upload', 'seconds', 'joules'):
      close(getattr(record, field), getattr(info, field)[:3])


def test_padding_of_short_batches_full_of_nan():
  """A short batch is filled up with rows that are never looked at.

  Client 0 has no data and the bank's first window, which is what an index of
  zero points at, is broken.
  """
  task = tiny.task()
  population = tiny.population(task, samples=[3, 9, 4, 8, 5])
  clean = tiny.only(population, 1, 2, 3, 4)
  setting = tiny.setting(clean, epochs=2, weight='samples')
  found = [
    tiny.step('fedavg', task, world, setting, 2)
    for world in (clean, spoiled(clean, [0]))
  ]
  same(*found)


# -- Costs -----------------------------------------------------------------

CNN = tiny.task()
WORLD = tiny.population(CNN)
NAMES = CNN.blocks.name
SIZE = np.asarray(CNN.work.size, np.float64)
MODALITY = np.array(CNN.blocks.modality)


@jax.jit
def account(owned, run, trained):
  """What a round costs; `run` None for FedAvg's own plan."""
  fleet = WORLD.fleet.replace(owned=owned)
  setting = tiny.setting(WORLD)
  round = frame.seen(
    jax.random.key(0),
    CNN,
    setting,
    setting.hparams,
    fleet,
    jnp.arange(CLIENTS),
    jnp.int32(0),
  )
  if run is None:
    plan = fedavg.everybody(setting, round)
  else:
    plan = Plan(run, trained, trained * 1.0)
  wire = 4 * CNN.work.size
  info, _ = accounting.account(
    CNN,
    setting,
    plan,
    round,
    costs_lib.total(plan.trained, wire),
    costs_lib.total(accounting.received(CNN, fleet, plan), wire),
  )
  return info


def costs(owned, run=None, trained=None):
  return jax.tree.map(np.asarray, account(owned, run, trained))


def bytes_of(modalities):
  """Of the groups of some modalities and the shared one, [K]."""
  on = np.where(MODALITY < 0, True, modalities[:, MODALITY])
  return 4 * (on * SIZE).sum(1)


@many
@given(masks(CLIENTS, MODALITIES), st.integers(0, MODALITIES - 1))
def test_an_absent_modality_costs_nothing(owned, m):
  """No byte up or down, no FLOP; those of the others stay what they are."""
  owned[:, (m + 1) % MODALITIES] = True
  without = owned.copy()
  without[:, m] = False
  more, less = costs(owned), costs(without)
  for found, has in ((more, owned), (less, without)):
    np.testing.assert_array_equal(found.upload, bytes_of(has))
    np.testing.assert_array_equal(found.download, bytes_of(has))
  lost = owned[:, m]
  for field in ('upload', 'download', 'seconds', 'joules'):
    a, b = getattr(more, field), getattr(less, field)
    assert (b < a)[lost].all()
    np.testing.assert_array_equal(a[~lost], b[~lost])


def plans():
  """Masks of run and trained groups that belong together."""

  def join(pair):
    run, trained = pair
    run[:, 0] = True
    reach = np.where(MODALITY < 0, True, run[:, MODALITY])
    return run, trained & reach

  return st.tuples(masks(CLIENTS, 3), masks(CLIENTS, 7)).map(join)


@many
@given(plans())
def test_costs_are_sums(plan):
  """Bytes over groups; seconds and joules over computing and transfers."""
  run, trained = plan
  found = costs(run, run, trained)
  fleet = jax.tree.map(lambda v: np.asarray(v, np.float64), WORLD.fleet)
  work = jax.tree.map(lambda v: np.asarray(v, np.float64), CNN.work)
  np.testing.assert_array_equal(found.upload, 4 * (trained * SIZE).sum(1))
  np.testing.assert_array_equal(found.download, bytes_of(run))
  passes = (work.path[None] * trained[:, None]).any(-1)
  flops = (
    work.shared + run @ work.fwd + trained @ work.wgrad + passes @ work.agrad
  )
  busy = np.stack(
    [
      2 * 4 * flops / fleet.speed,
      8 * 4 * (trained * SIZE).sum(1) / fleet.uplink,
      8 * bytes_of(run) / fleet.downlink,
    ],
    1,
  )
  np.testing.assert_allclose(found.seconds, busy.sum(1), rtol=1e-6)
  joules = (busy * fleet.watts[:, :3]).sum(1)
  np.testing.assert_allclose(found.joules, joules, rtol=1e-6)
  alone = sum(
    costs(run, run, trained & (np.arange(7) == g)).upload for g in range(7)
  )
  np.testing.assert_array_equal(found.upload, alone)


@many
@given(plans(), st.integers(0, 6))
def test_costs_are_monotone(plan, g):
  """One group more is never cheaper, and costs its bytes exactly."""
  run, trained = plan
  wider = trained.copy()
  reach = np.where(MODALITY < 0, True, run[:, MODALITY])
  wider[:, g] |= reach[:, g]
  less, more = costs(run, run, trained), costs(run, run, wider)
  grown = (wider != trained).any(1)
  for field in ('upload', 'seconds', 'joules'):
    a, b = getattr(less, field), getattr(more, field)
    assert (b > a)[grown].all()
    np.testing.assert_array_equal(a[~grown], b[~grown])
  np.testing.assert_array_equal(more.upload - less.upload, 4 * SIZE[g] * grown)
  np.testing.assert_array_equal(less.download, more.download)
