"""Costs without training are those of the training run."""

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.errors import InputError


def config(**keys):
  c = config_lib.default()
  c.dataset, c.clients, c.rounds = 'synthetic', 12, 5
  c.data.width, c.local_steps = 16, 1
  c.eval_every = c.rounds_per_call = 5
  c.update(keys)
  return c


def both(**keys):
  """Gives the costs without training, and the last record of a run."""
  run = simulate.Simulation(config(**keys))
  while not run.done:
    run.advance()
  return simulate.costs(config(**keys)), run.history[-1]


NAMES = {'sim_seconds': 'seconds'} | {
  name: name for name in ('joules', 'up_bytes', 'down_bytes')
}


@pytest.mark.slow
def test_equal_to_training_to_the_bit():
  # Draws what is trained, and who.
  found, last = both(
    method='feddrop', deadline='1.5*tight', clients_per_round=5
  )
  for total, name in NAMES.items():
    assert found.rounds[name].sum() == last[total] > 0, name
  assert found.rounds['working'].max() <= 5


@pytest.mark.slow
def test_equal_to_training_where_pace_and_links_vary():
  # XLA fuses the exponentials with other operations in either program, which
  # changes the last digit.
  pace = {'wait': 0.8, 'fading': 0.5, 'loss': 0.1}
  found, last = both(method='cohort_mean', online={'pace': pace})
  for total, name in NAMES.items():
    assert found.rounds[name].sum() == pytest.approx(last[total], rel=1e-6)
  assert found.rounds['late'].sum() > 0


@pytest.mark.slow
def test_sums_over_devices_are_sums_over_rounds():
  found = simulate.costs(config(method='fedpmt', deadline='1.5*tight'))
  for name in ('joules', 'up_bytes', 'down_bytes'):
    assert found.devices[name].sum() == pytest.approx(found.rounds[name].sum())
  assert found.devices['rounds'].sum() == found.rounds['working'].sum()
  busiest = found.devices['seconds'].max()
  assert busiest <= found.rounds['seconds'].sum() * (1 + 1e-6)
  assert np.isfinite(found.deadline).all()


def test_refuses_what_only_training_shows():
  with pytest.raises(InputError, match="'relief', which decides by what"):
    simulate.costs(config(method='relief', deadline='1.5*tight'))
