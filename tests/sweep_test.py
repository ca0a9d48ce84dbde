"""Many runs in one program: each is the run that it would be alone."""

import pytest

from relief_jax import sweep
from relief_jax.errors import InputError
from relief_jax.simulate import Simulation
from tests.support import tiny


def config(**overrides):
  return tiny.config(
    backbone='lora',
    layout='one',
    **{
      'deadline': '1.5*tight',
      'model.base': 'random',
      'synthetic.modalities': 2,
      **overrides,
    },
  )


@pytest.mark.slow
def test_a_point_is_the_run_alone():
  """Three points over two devices; the world's own seed at two rates."""
  points = [
    sweep.Point(0),
    sweep.Point(1, {'client_lr': 0.2}),
    sweep.Point(0, {'client_lr': 0.2}),
  ]
  found = sweep.run_points(config(devices=2), points)
  assert [p['seed'] for p in found.points] == [0, 1, 0]
  for number, changes in ((0, {}), (2, {'hparams.client_lr': 0.2})):
    alone = Simulation(config(eval_every=4, **changes))
    while not alone.done:
      alone.advance()
    last, point = alone.history[-1], found.points[number]
    assert point['f1'] == pytest.approx(last['f1'])
    assert point['loss'] == pytest.approx(last['loss'], rel=1e-5)
    for key in ('sim_seconds', 'joules', 'up_bytes', 'down_bytes'):
      assert point[key] == pytest.approx(last[key], rel=1e-5)
  first, second, third = (p['loss'] for p in found.points)
  assert first != third and second != third


def test_what_no_sweep_can_run_is_refused():
  with pytest.raises(InputError, match='no points'):
    sweep.run_points(config(), [])
  with pytest.raises(InputError, match="unknown hparam 'lr'"):
    sweep.run_points(config(), [sweep.Point(0, {'lr': 1})])
  with pytest.raises(InputError, match='several structures'):
    runs = [Simulation(config(batch=b, devices=1)) for b in (2, 3)]
    sweep.Together(runs)
