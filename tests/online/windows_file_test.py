"""Availability in FedScale's records, against a loop over windows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.errors import InputError
from relief_jax.online import presence, windows_file

CLIENTS, SECONDS = 5, 1700
WORDS = jnp.array([3, 7], jnp.uint32)
ONE = {'active': [0, 50], 'inactive': [10, 60], 'finish_time': 100}


def generated(clients=CLIENTS, seed=0):
  """Records like those that are published, of unequal lengths and periods."""
  rng = np.random.default_rng(seed)
  found = {}
  for number in range(clients):
    period = int(rng.integers(40_000, 600_000))
    count = int(rng.integers(0, 7))
    at = np.sort(rng.integers(0, period, 2 * count)).tolist()
    found[str(1000 - number)] = {
      'active': at[::2],
      'inactive': at[1::2],
      'finish_time': period,
      'duration': sum(at[1::2]) - sum(at[::2]),
      'model': 'a phone',
    }
  return found


def write(folder, records):
  path = folder / 'trace.json'
  path.write_text(json.dumps(records), encoding='utf-8')
  return str(path)


def drawn(path, clients=CLIENTS, **changes):
  c = config_lib.default().online.presence
  c.update(kind='windows', path=path, round_seconds=SECONDS, **changes)
  return presence.draw(c, clients, np.random.default_rng(0))


def test_who_is_there_is_who_has_a_window_at_that_second(tmp_path):
  records = generated()
  found = drawn(write(tmp_path, {**records, 'more': ONE}))
  # Some beyond what int32 seconds hold, and all in any order.
  rounds = np.r_[0:400, 10**6 - 40 : 10**6]
  place = jnp.array([3, 0, 4, 1, 2])
  here = jax.jit(
    jax.vmap(lambda r: presence.here(found, WORDS, place, place, r))
  )(jnp.asarray(rounds, jnp.int32))
  each = list(records.values())
  for row, number in zip(np.asarray(here), rounds.tolist(), strict=True):
    for there, n in zip(row, place.tolist(), strict=True):
      now = number * SECONDS % each[n]['finish_time']
      pairs = zip(each[n]['active'], each[n]['inactive'], strict=True)
      assert there == any(a <= now < b for a, b in pairs), (number, n)
  assert 0.05 < np.asarray(here).mean() < 0.95


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    ({'inactive': [10]}, 'do not pair'),
    ({'active': 3}, 'do not pair'),
    ({'active': [0, 5]}, 'out of order'),
    ({'inactive': [10, 101]}, 'beyond finish_time=100'),
    ({'active': [0.5, 50]}, 'whole seconds'),
    ({'active': [-1, 50]}, 'out of order'),
    ({'finish_time': 0}, 'finish_time: 0'),
    ({'finish_time': 10**9}, 'check the unit'),
    ({'colour': 'red'}, "'colour'"),
  ],
)
def test_a_record_is_refused_in_one_line(tmp_path, change, says):
  records = {'a': ONE, 'b': {**ONE, **change}}
  drawn(write(tmp_path, {'a': ONE, 'b': ONE}), 2)
  with pytest.raises(InputError, match=says) as error:
    drawn(write(tmp_path, records), 2)
  assert "record 'b'" in str(error.value) and '\n' not in str(error.value)


def test_a_file_is_refused(tmp_path):
  path = write(tmp_path, {'a': ONE})
  with pytest.raises(InputError, match='1 records for 2 devices'):
    drawn(path, 2)
  with pytest.raises(InputError, match='no object of records'):
    drawn(write(tmp_path, [ONE]), 1)
  (tmp_path / 'trace.json').write_bytes(b'\x80\x04}q')  # a pickle
  with pytest.raises(InputError, match='trace.json'):
    drawn(str(tmp_path / 'trace.json'), 1)
  with pytest.raises(InputError, match='none.json'):
    windows_file.read(str(tmp_path / 'none.json'), 1, 60)
