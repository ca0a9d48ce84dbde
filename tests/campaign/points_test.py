"""The points of a sweep: flags, draws, those of a config."""

import pytest

from relief_jax.campaign import points
from relief_jax.errors import InputError
from tests.support.campaigns import config


@pytest.mark.parametrize(
  ('text', 'like', 'values'),
  [
    ('.03,1', 0.1, [0.03, 1.0]),
    ('0:5:2', 0, [0, 2, 4]),
    ('1e2', 0, [100]),
    ('True,False', True, [True, False]),
    ('relief,fedavg', '', ['relief', 'fedavg']),
    ('tight,1.75*tight', '', ['tight', '1.75*tight']),
    ('(7,8),(1,)', (1, 2), [(7, 8), (1,)]),
  ],
)
def test_values_of_a_flag(text, like, values):
  assert points.parse('key', text, like) == values


@pytest.mark.parametrize(
  ('key', 'text', 'message'),
  [
    ('seed', 'a', "with 'a'"),
    ('seed', '5:0', '5:0'),
    ('sed', '1', "unknown config key 'sed'"),
    ('method', 'log(1,2)', 'two numbers'),
    ('hparams.ema', 'log(0,1)', 'two numbers'),
  ],
)
def test_bad_flags_are_refused(key, text, message):
  with pytest.raises(InputError, match=message):
    points.swept(config(), {key: text})


def test_draws_stay_when_there_are_more():
  flags = {
    'hparams.client_lr': points.Draw('log', 1e-3, 1e-1),
    'local_steps': points.Draw('int', 1, 3),
    'seed': [0, 1],
  }
  few, many = (points.expand([], flags, n, seed=3) for n in (20, 40))
  assert few == many[:40] and len(many) == 80
  rates = [p['hparams.client_lr'] for p in many[::2]]
  assert min(rates) >= 1e-3 and max(rates) <= 1e-1
  assert 10 <= sum(rate < 1e-2 for rate in rates) <= 30  # log, not even
  assert {p['local_steps'] for p in many} == {1, 2, 3}
  assert points.expand([], flags, 20, seed=4) != few
  with pytest.raises(InputError, match='--trials=0'):
    points.expand([], flags)
  with pytest.raises(InputError, match='--trials=2'):
    points.expand([], {'seed': [0]}, 2)


def test_a_configs_own_points_are_crossed_with_the_flags():
  def own(add):
    add({'method': 'relief', 'hparams': {'client_lr': 0.1}})
    add({'method': 'fedavg'})

  found = points.expand(points.collect(own), {'seed': [0, 1]})
  assert len(found) == 4
  assert found[1] == {
    'method': 'relief',
    'hparams.client_lr': 0.1,
    'seed': 1,
  }
