"""The compiled round against loops: parameters, divergence, bytes, plan."""

import jax
import numpy as np
import pytest

from tests.support import tiny
from tests.twins import twin

TWINS = {
  'fedavg': twin.Twin,
  'fedprox': twin.ProxTwin,
  'cohort_mean': twin.CohortTwin,
  'relief': twin.ReliefTwin,
}

ULP = 2.0**-23


def names_of(task, row):
  """[G] bool -> set of group names."""
  return {g for g, on in zip(task.blocks.name, row, strict=True) if on}


def assert_params(found, want, atol=1e-6):
  found = twin.named(found)
  assert found.keys() == want.keys()
  for k, v in want.items():
    np.testing.assert_allclose(found[k], v, rtol=0, atol=atol, err_msg=k)


def compare(method, task, population, setting, rounds=3, quick=True):
  """Runs both and compares every round; returns what the twin saw."""
  slow = TWINS[method](task, population, setting)
  seen = []
  fast = tiny.run(method, task, population, setting, rounds, quick=quick)
  for number, (state, info) in enumerate(fast):
    one = slow.round(number)
    seen.append(one)
    info = jax.tree.map(np.asarray, info)
    found = [names_of(task, row) for row in info.trained]
    assert found == one.trained
    np.testing.assert_array_equal(info.upload, one.upload)
    np.testing.assert_allclose(info.loss, one.loss, rtol=0, atol=1e-6)
    assert_params(state.params, one.params)
    want = slow.divergence if method == 'relief' else one.divergence
    for g, value in zip(task.blocks.name, info.divergence, strict=True):
      if np.isfinite(want.get(g, np.nan)):
        # Updates are differences of float32 parameters of about 1, each off
        # by up to ULP / 2: seen where a first LoRA step hardly moves A.
        atol = 2 * ULP * np.sqrt(want[g])
        np.testing.assert_allclose(
          value, want[g], rtol=1e-5, atol=atol, err_msg=g
        )
      else:
        assert np.isposinf(value) if method == 'relief' else np.isnan(value)
  # Something happened: else equal nothings would pass.
  start = twin.named(tiny.init(task))
  for k, v in slow.params.items():
    moved = any(twin.group_of(k) in t for s in seen for t in s.trained)
    assert (np.abs(v - start[k]).max() > 1e-5) == moved, k
  return seen


@pytest.mark.parametrize(
  ('method', 'overrides'),
  [
    ('fedavg', {'fill': 'input'}),
    ('fedavg', {'weight': 'samples'}),
    pytest.param('fedprox', {'prox': 0.7}, marks=pytest.mark.slow),
    ('cohort_mean', {}),
  ],
  ids=['fedavg-fill', 'fedavg-skip-samples', 'fedprox', 'cohort_mean'],
)
def test_plain_averaging(method, overrides):
  task = tiny.task()
  population = tiny.population(task, fill=-1.5)
  setting = tiny.setting(population, **overrides)
  compare(method, task, population, setting)


@pytest.mark.parametrize(
  ('backbone', 'quick'),
  [
    ('cnn', True),
    pytest.param('lora', True, marks=pytest.mark.slow),
    # With all of the compiler's passes, as in a real run.
    pytest.param('cnn', False, marks=pytest.mark.slow),
  ],
)
def test_relief(backbone, quick):
  """With budgets under which the devices really choose."""
  task = tiny.task(backbone)
  population = tiny.with_share(
    task, tiny.population(task), {'cnn': 0.6, 'lora': 0.8}[backbone]
  )
  setting = tiny.setting(population, deadline=1.0, client_lr=0.3)
  plans = compare('relief', task, population, setting, 5, quick)
  slow = twin.ReliefTwin(task, population, setting)
  for n in range(slow.clients):
    owned = slow.access(n)
    assert all(
      {'shared'} < s.trained[n] < owned for s in plans if len(owned) > 2
    )
  assert len({str(s.trained) for s in plans}) > 1, 'the same choice every round'


def update(method, task, population, setting):
  """What one round adds to the model, by name."""
  state, _ = tiny.step(method, task, population, setting)
  start = twin.named(tiny.init(task))
  return {k: v - start[k] for k, v in twin.named(state.params).items()}


def test_two_clients_by_hand_show_dilution():
  """0 owns acc, gyro and mag, 1 only acc; both are one round of SGD."""
  task = tiny.task()
  everybody = tiny.population(task)
  population = tiny.only(everybody, 0, 1)
  setting = tiny.setting(population)
  mean, cohort = (
    update(m, task, population, setting) for m in ('fedavg', 'cohort_mean')
  )
  one, other = (
    update('fedavg', task, tiny.only(everybody, n), setting) for n in (0, 1)
  )
  for k in one:
    if k.split('/')[0] in ('encoder', 'fusion') and '/acc' not in k:
      # A block that only client 0 has: FedAvg halves its update.
      np.testing.assert_allclose(mean[k], one[k] / 2, atol=1e-6, rtol=1e-5)
      np.testing.assert_allclose(cohort[k], one[k], atol=1e-6, rtol=1e-5)
      np.testing.assert_array_equal(other[k], 0)
    else:
      both = (one[k] + other[k]) / 2
      np.testing.assert_allclose(mean[k], both, atol=1e-6, rtol=1e-5)
      np.testing.assert_allclose(cohort[k], both, atol=1e-6, rtol=1e-5)
  rare = np.abs(one['fusion/mag']).max()
  assert rare > 1e-3
