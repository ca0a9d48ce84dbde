"""The time of a round of split training, drawn as it is charged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.budgets import cuts, server_order
from relief_jax.report import gather, split_charts
from relief_jax.runs import device_log
from tests.rounds import split_test

STEP = {
  'ahead': np.array([0.5, 2.0, 1.0, 4.0]),
  'server': np.array([0.6, 0.3, 1.1, 0.2]),
  'middle': np.array([0.2, 0.0, 0.4, 0.1]),
  'behind': np.array([1.0, 3.0, 0.5, 0.7]),
}


@pytest.mark.parametrize('order', server_order.ORDERS)
def test_a_step_ends_when_the_cost_model_says(order):
  bars, end = split_charts.step_bars(STEP, order, 3.0)
  nothing = jnp.zeros(4)
  own = cuts.Prices(up=nothing, down=nothing, memory=nothing, **STEP)
  want = server_order.ORDERS[order](own, jnp.ones(4, bool))
  assert end - 3 == pytest.approx(float(want), rel=1e-6)
  served = sorted((b.start, b.start + b.seconds) for b in bars if b.row < 0)
  assert len(served) == 4
  for (_, one), (other, _) in zip(served[:-1], served[1:], strict=True):
    assert one <= other  # one after another
  for n in range(4):
    mine = [b for b in bars if b.row == n]
    for one, other in zip(mine[:-1], mine[1:], strict=True):
      assert one.start + one.seconds <= other.start


def logged(**options):
  """A line of devices.jsonl about one round, and what the round cost."""
  info = split_test.info_of(**options)
  log = device_log.DeviceLog(split_test.world().fleet)
  log.add(jax.tree.map(lambda v: np.asarray(v)[None], info), 0)
  return log.window(split_test.TASK.blocks.name), info


@pytest.mark.slow
def test_what_is_logged_adds_up_to_the_round():
  """Receiving, as many steps, sending; of parts that stay only the steps."""
  line, info = logged()
  step = {k: np.array(v) for k, v in line['step'].items()}
  _, end = split_charts.step_bars(step, 'barrier', 0.0)
  own = step['receive'] + step['steps'].max() * end + step['send']
  np.testing.assert_allclose(own, info.seconds, rtol=1e-5)
  np.testing.assert_allclose(step['receive'] + step['send'], 0, atol=1e-9)


def test_a_round_is_drawn(tmp_path):
  clients = [0, 1, 2, 3]
  values = {k: v.tolist() for k, v in STEP.items()}
  values |= {'steps': [5.0] * 3 + [0.0], 'receive': [1.0] * 4}
  line = {
    'round': 1,
    'trained': {'a': [1] * 4},
    'last': {'round': 1, 'client': clients},
    'step': {**values, 'send': [2.0] * 4},
    'f1': [0.5] * 4,
  }
  (tmp_path / 'devices.jsonl').write_text(json.dumps(line) + '\n')
  fleet = {'client': clients, 'tier': ['low', 'low', 'high', 'high']}
  run = gather.Run(
    'x',
    0,
    0,
    {'fleet': {**fleet, 'owned': ['acc'] * 4}},
    [{'round': 1, 'f1': 0.5, 'f1_by_tier': {'low': 0.5, 'high': 0.5}}],
    tmp_path,
    {'method': 'psl', 'psl': {'server_order': 'queue'}},
  )
  (chart,) = split_charts.rounds(gather.Collection([run], 'x'))
  (figure,) = chart.panels.values()
  whole, one = figure.axes
  # Who holds the whole model is no part of it.
  names = [text.get_text() for text in one.get_yticklabels()]
  assert names == ['low 0', 'low 1', 'high 2', 'server']
  assert 'queue' in whole.get_title()
  figure.canvas.draw()
  shown = [t.get_text() for t in figure.legends[0].get_texts()]
  assert shown == list(split_charts._KINDS)


def test_without_split_training_there_is_no_such_figure(tmp_path):
  line = {'round': 1, 'last': None, 'trained': {}, 'f1': [0.5]}
  (tmp_path / 'devices.jsonl').write_text(json.dumps(line) + '\n')
  run = gather.Run('x', 0, 0, {}, [{'round': 1, 'f1': 0.5}], tmp_path)
  assert not split_charts.rounds(gather.Collection([run], 'x'))
