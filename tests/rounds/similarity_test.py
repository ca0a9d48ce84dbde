"""How alike updates are: against each device's update taken alone."""

import json

import jax
import numpy as np
import pytest

from relief_jax import simulate
from relief_jax.config import validation
from relief_jax.errors import InputError
from relief_jax.report import cosine_charts, gather
from relief_jax.rounds import similarity
from relief_jax.storage import runner
from tests.support import tiny


@pytest.mark.slow
def test_cosines_are_those_of_the_devices_own_updates():
  """A round of one device alone moves the model by that device's update."""
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population, 'fedavg', similarity=True)
  params = tiny.init(task)

  def alone(client):
    state, _ = tiny.step(
      'fedavg', task, tiny.only(population, client), setting, params=params
    )
    after = state.params['fusion']
    return [
      np.asarray(after[m] - params['fusion'][m], float).ravel()
      for m in task.modalities
    ]

  state, info = tiny.step('fedavg', task, population, setting, params=params)
  found = np.asarray(info.extra['similarity'])
  assert found.shape == (3, 5, 5)
  owned = np.asarray(population.fleet.owned).T
  both = owned[:, :, None] & owned[:, None]
  np.testing.assert_array_equal(np.isfinite(found), both)
  one, other = alone(0), alone(3)  # both own everything
  for m in range(3):
    expected = one[m] @ other[m]
    expected /= np.linalg.norm(one[m]) * np.linalg.norm(other[m])
    assert found[m, 0, 3] == pytest.approx(expected, abs=1e-4)
    assert found[m, 0, 0] == pytest.approx(1, abs=1e-5)
  # The record changes nothing else.
  plain = tiny.setting(population, 'fedavg')
  same, silent = tiny.step('fedavg', task, population, plain, params=params)
  assert 'similarity' not in silent.extra
  jax.tree.map(np.testing.assert_array_equal, same.params, state.params)


@pytest.mark.slow
def test_the_first_rounds_are_in_the_run_directory(tmp_path):
  config = tiny.config(method='relief', update_similarity=3)
  assert runner.run(config, tmp_path) == 'complete'
  text = (tmp_path / 'cosines.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert [line['round'] for line in lines] == [1, 2, 3]
  for line in lines:
    assert line['client'] == list(range(6))
    for name, block in line['cosines'].items():
      assert name.startswith('fusion/')
      values = np.array(block, float)
      np.testing.assert_array_equal(values, values.T)
      own = np.diag(values)
      assert np.isfinite(own).any() and np.nanmax(abs(own - 1)) < 1e-4
      assert np.isnan(own).any() or name != 'fusion/mag'  # sensors differ


def test_the_heat_map_has_owners_first_and_grey_for_nothing(tmp_path):
  fleet = {
    'client': [0, 1, 2],
    'tier': ['low', 'full', 'low'],
    'owned': ['acc', 'acc+mag', 'acc'],
  }
  none, line = None, [{'round': 1, 'f1': 0.5, 'f1_by_tier': {'low': 0.5}}]
  block = [[1.0, 0.25, none], [0.25, 1.0, none], [none, none, none]]
  row = {'round': 1, 'client': [0, 1, 2], 'cosines': {'fusion/mag': block}}
  (tmp_path / 'cosines.jsonl').write_text(json.dumps(row) + '\n')
  run = gather.Run('fedavg', 0, 0, {'fleet': fleet}, line, tmp_path)
  found = gather.Collection([run], 'fedavg')
  (chart,) = cosine_charts.heat_maps(found)
  assert 'round 1' in chart.title
  panel = chart.panels[''].axes[0]
  assert panel.get_title() == 'fedavg\nfusion/mag\nowners –, others 0.25'
  shown = np.ma.filled(panel.images[0].get_array(), np.nan)
  np.testing.assert_array_equal(  # devices 1, 0, 2
    shown, [[1, 0.25, np.nan], [0.25, 1, np.nan], [np.nan] * 3]
  )
  (tmp_path / 'cosines.jsonl').unlink()
  assert not cosine_charts.heat_maps(found)


def test_who_compares_nothing_is_refused():
  with pytest.raises(
    InputError, match='config.update_similarity with local_only'
  ):
    simulate.Simulation(tiny.config(method='local_only', update_similarity=1))
  with pytest.raises(InputError, match='with 65 devices a round'):
    validation.validate(tiny.config(clients=65, update_similarity=1))


def test_a_modality_that_is_one_group_is_one_block():
  task = tiny.task(groups='joint')
  assert [task.blocks.name[g] for g in similarity.blocks(task)] == list(
    task.modalities
  )
