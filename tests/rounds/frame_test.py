"""What every kind of round shares: whose rows, which weights, which budget."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relief_jax.algorithms import fedavg
from relief_jax.rounds import frame
from relief_jax.rounds.observe import Observer
from relief_jax.settings import Setting
from relief_jax.updates import transform
from tests.support import tiny
from tests.support.handmade import same

STORE = {'last': jnp.arange(12).reshape(6, 2), 'none': (), 'x': jnp.arange(6.0)}


def test_rows_go_out_and_come_back():
  place = jnp.array([4, 0, 3])
  rows = frame.take(STORE, place)
  np.testing.assert_array_equal(rows['last'], [[8, 9], [0, 1], [6, 7]])
  assert rows['none'] == ()
  same(frame.put(STORE, place, rows), STORE)
  after = frame.put(STORE, place, jax.tree.map(lambda v: v + 100, rows))
  np.testing.assert_array_equal(after['x'], [100, 1, 2, 103, 104, 5])
  others = jnp.array([1, 2, 5])
  same(frame.take(after, others), frame.take(STORE, others))


def test_everybody_begins_alike():
  found = frame.everyone({'a': jnp.array([1.0, 2]), 'b': jnp.int32(7)}, 3)
  np.testing.assert_array_equal(found['a'], [[1, 2]] * 3)
  np.testing.assert_array_equal(found['b'], [7] * 3)
  # Nothing kept is nothing stored, however many there are.
  assert jax.tree.leaves(frame.everyone((), 10**9)) == []


@pytest.mark.parametrize('kind', ['uniform', 'samples'])
def test_weights_are_of_those_who_are_there(kind):
  fleet = tiny.population(tiny.task(), samples=[3, 9, 0, 4, 5]).fleet
  active = (fleet.samples > 0) & (fleet.id != 3)
  found = frame.weights(Setting(weight=kind), fleet, active)
  want = [3, 9, 0, 0, 5] if kind == 'samples' else [1, 1, 0, 0, 1]
  np.testing.assert_array_equal(found, want)


def test_a_plan_sees_budgets_in_reach_and_who_is_there():
  task = tiny.task()
  fleet = tiny.population(task, samples=[3, 9, 0, 4, 5]).fleet
  place = jnp.array([2, 0, 1])
  setting = Setting(schedule=True)
  hparams = {
    'deadline': jnp.float32(1),
    'deadline_end': jnp.float32(3),
    'rounds': jnp.float32(3),
  }
  some = frame.take(fleet, place)
  found = frame.seen(
    jax.random.key(0), task, setting, hparams, some, place, jnp.int32(1)
  )
  np.testing.assert_array_equal(found.active, [False, True, True])
  np.testing.assert_allclose(found.budget, 2 * fleet.budget[place])
  modality = np.asarray(task.blocks.modality)
  owned = np.asarray(some.owned)
  np.testing.assert_array_equal(
    found.access, np.where(modality < 0, True, owned[:, modality])
  )
  assert found.hparams is hparams and found.place is place
  # What devices hold after three rounds follows from the last one's plan.
  last = frame.last(task, setting, hparams, fleet, jnp.int32(3))
  assert last.round_index == 2
  np.testing.assert_allclose(last.budget, 3 * fleet.budget)
  first = frame.last(task, setting, hparams, fleet, jnp.int32(0))
  np.testing.assert_allclose(first.budget, fleet.budget)


@pytest.mark.slow
def test_a_method_brings_transforms_and_observers_of_its_own():
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population, 'fedavg')

  def half(task, setting):
    return fedavg.fedavg(task, setting)._replace(
      transforms=(
        transform.stateless(
          lambda update, device, key: update._replace(
            delta=jax.tree.map(lambda u: u / 2, update.delta)
          )
        ),
      ),
      observers=(
        Observer(
          lambda device, update: optax.tree.norm(update.delta),
          lambda rows: {'norm': rows},
        ),
      ),
    )

  found, info = tiny.step(half, task, population, setting)
  slow = setting._replace(
    hparams={**setting.hparams, 'server_lr': jnp.float32(0.5)}
  )
  want, plain = tiny.step('fedavg', task, population, slow)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
    found.params,
    want.params,
  )
  assert info.extra['norm'].shape == (5,) and (info.extra['norm'] > 0).all()
  assert not plain.extra
