"""Bandwidths over time from a CSV file, against a loop over its lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.errors import InputError
from relief_jax.online import bandwidth_file

HEAD = 'device,second,uplink_mbps,downlink_kbps'
SECONDS = 700


def write(folder, lines, head=HEAD):
  path = folder / 'bandwidth.csv'
  path.write_text('\n'.join([head, *lines]), encoding='utf-8')
  return str(path)


def generated(clients=4, seed=0):
  """Lines of devices by turns, as a recorder writes them."""
  rng = np.random.default_rng(seed)
  traces = {}
  for n in range(clients):
    count = int(rng.integers(1, 6))
    at = np.sort(rng.choice(np.arange(1, 9_000), count - 1, replace=False))
    rates = rng.uniform(0.5, 50, (count, 2))
    traces[f'd{n}'] = list(zip([0, *at.tolist()], rates.tolist(), strict=True))
  lines = []
  for i in range(6):
    for name, own in traces.items():
      if i < len(own):
        second, (up, down) = own[i]
        lines.append(f'{name},{second},{up},{down}')
  return traces, lines


def test_the_last_line_that_has_begun_holds(tmp_path):
  traces, lines = generated()
  found = bandwidth_file.read(write(tmp_path, lines), 4, SECONDS)
  rounds = np.r_[0:60, 10**6 - 20 : 10**6]
  place = jnp.array([2, 0, 3])
  got = jax.jit(jax.vmap(lambda r: bandwidth_file.at(found, place, r)))(
    jnp.asarray(rounds, jnp.int32)
  )
  each = list(traces.values())
  for r, number in enumerate(rounds.tolist()):
    for k, n in enumerate(place.tolist()):
      own = each[n]
      period = 2 * own[-1][0] - own[-2][0] if len(own) > 1 else 1
      now = number * SECONDS % period
      up, down = [rates for second, rates in own if second <= now][-1]
      assert got['uplink'][r, k] == pytest.approx(1e6 * up)
      assert got['downlink'][r, k] == pytest.approx(1e3 * down)


def test_a_link_without_a_column_and_fewer_clients(tmp_path):
  path = write(
    tmp_path, ['a,0,3', 'b,0,5', 'c,0,7'], 'device,second,uplink_mbps'
  )
  found = bandwidth_file.read(path, 2, 60)
  rates = bandwidth_file.at(found, jnp.arange(2), jnp.int32(9))
  assert set(rates) == {'uplink'}
  np.testing.assert_array_equal(rates['uplink'], [3e6, 5e6])


@pytest.mark.parametrize(
  ('line', 'says'),
  [
    ('a,0,1,1', 'second .0. of device .a.'),
    ('a,-5,1,1', 'growing whole numbers'),
    ('a,1.5,1,1', 'growing whole numbers'),
    ('b,5,1,1', '0 first'),
    ('a,9,0,1', 'uplink_mbps'),
    ('a,9,1', 'downlink_kbps'),
    ('a,9,1,1,1', 'as many fields'),
    (f'a,{10**9},1,1', 'up to 2000000'),
  ],
)
def test_a_line_is_refused_by_its_number(tmp_path, line, says):
  with pytest.raises(InputError, match=says) as error:
    bandwidth_file.read(write(tmp_path, ['a,0,1,1', line]), 1, 60)
  assert 'line 3' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  'head',
  [
    'device,second',
    'device,uplink_mbps',
    'device,second,uplink_mbps,uplink_kbps',
    'device,second,speed_gflops',
    '',
  ],
)
def test_columns_are_refused(tmp_path, head):
  with pytest.raises(InputError, match='device, second, and uplink_mbps'):
    bandwidth_file.read(write(tmp_path, [], head), 1, 60)


def test_fewer_devices_than_the_fleet(tmp_path):
  with pytest.raises(InputError, match='1 devices for 2'):
    bandwidth_file.read(write(tmp_path, ['a,0,1,1']), 2, 60)


@pytest.mark.slow
def test_a_round_takes_as_long_as_its_links_of_the_day(tmp_path):
  lines = []
  for n in range(6):
    lines += [f'd{n},0,80,80000', f'd{n},100,8,8000']
  c = config_lib.default('fedavg')
  c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 6, 4, 16
  c.fleet = 'uniform'
  base = simulate.costs(c).rounds
  c.online.pace.path = write(tmp_path, lines)
  c.online.pace.round_seconds = 100
  found = simulate.costs(c).rounds
  bits = 8 * base['up_bytes'][0] / 6
  np.testing.assert_array_equal(found['up_bytes'], base['up_bytes'])
  seconds = found['seconds']
  np.testing.assert_allclose(seconds[0::2], seconds[0], rtol=1e-5)
  # Up and down, ten times as slow in every second round.
  slower = 2 * bits * (1 / 8e6 - 1 / 80e6)
  np.testing.assert_allclose(seconds[1::2] - seconds[0], slower, rtol=1e-3)
