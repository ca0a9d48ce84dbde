"""The paper's comparison: labels, which modality is rare, PAMAP2's shape."""

import json

import numpy as np
import pytest

from experiments.configs import from_json, paper
from relief_jax import world
from relief_jax.campaign import campaign
from relief_jax.errors import InputError
from relief_jax.report import gather, printed
from relief_jax.storage import records
from tests.datasets import originals


def jobs(variant, tmp_path, **keys):
  config = paper.get_config(variant)
  config.update(keys)
  return campaign.of_comparison(config, tmp_path).jobs


@pytest.mark.slow
def test_mhealth_has_every_setting_in_every_fold(tmp_path):
  found = jobs('mhealth', tmp_path)
  assert len(found) == 5 * 2 * 2 * 2 * len(paper.METHODS)
  assert [job.seed for job in found[:5]] == [0, 1, 2, 3, 4]
  for job in found:
    backbone, fleet, rare, _ = job.label.split('/')
    config = job.config
    assert (config['backbone'], config['fleet']) == (backbone, fleet)
    assert config['model']['adapters'] == (backbone == 'lora')
    assert config['data']['channels'].split(';')[-1].startswith(rare)
    assert 'ecg' not in config['data']['channels']
    assert config['data']['fold'] == job.seed
    evaluated = range(0, config['rounds'] + 1, config['eval_every'])
    assert {10, 15, 30, 60, 100} <= set(evaluated)
  few = jobs('mhealth,cnn', tmp_path, only='*/four_tiers/mag/relief*')
  assert [job.label for job in few[::5]] == [
    'cnn/four_tiers/mag/relief',
    'cnn/four_tiers/mag/relief_tight',
  ]
  assert few[0].config['data']['channels'] == 'acc;gyro=arm_gyro_*;mag'
  labels = {job.label.split('/')[2] for job in jobs('mhealth,ecg', tmp_path)}
  assert labels == {'ecg'}
  with pytest.raises(InputError, match='variant'):
    paper.get_config('wisdm')


@pytest.mark.slow
def test_it_comes_back_from_its_json_form(tmp_path):
  config = paper.get_config('pamap2')
  path = tmp_path / 'config.json'
  records.write_json(path, config)
  again = from_json.get_config(str(path))
  one, other = (campaign.of_comparison(c, tmp_path) for c in (again, config))
  assert one.jobs == other.jobs


def test_pamap2_on_files_in_its_layout(tmp_path, monkeypatch):
  """Every label finds its rare modality; persons of a fold are held out."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  root = tmp_path / 'data'
  originals.pamap2(root)
  config = paper.get_config('pamap2,cnn')
  config.clients, config.data.width, config.data.stride = 8, 16, 8
  config.model.filters, config.model.hidden = (4,), 8
  config.only, config.data.own_share = '*/relief', 0.0  # short recordings
  found = campaign.of_comparison(config, tmp_path).jobs
  assert len(found) == 3 * 2 * 2  # folds, fleets, rare modalities
  tested = {}
  for job in found:
    built = world.build(records.config_from_dict(job.config), str(root))
    rare = job.label.split('/')[2]
    assert built.spec.modalities[built.rare] == rare
    assert built.spec.modalities[0] == 'acc'
    assert dict(
      zip(built.spec.modalities, built.spec.channels, strict=True)
    ) == {
      'acc': 9,
      'gyro': 9,
      'mag': 9,
      'hr': 1,
    }
    assert built.title == 'pamap2'
    owners = np.asarray(built.population.fleet.owned).sum(0)
    assert owners[built.rare] == owners.min()
    tested[job.seed] = built.subjects['test']
    assert not set(built.subjects['test']) & set(built.subjects['train'])
  assert tested == {0: [1], 1: [3], 2: [8]}


def test_tables_name_the_data_and_what_limits_them(tmp_path):
  runs = [
    gather.Run(
      label,
      0,
      0,
      {'dataset': 'MHEALTH, truncated channels'},
      [{'round': 1, 'f1': 0.5, 'accuracy': 0.5}],
    )
    for label in ('fedavg', 'relief')
  ]
  printed.save(gather.Collection(runs, 'fedavg', 'folds'), tmp_path)
  for name in ('table.md', 'table.csv'):
    assert 'MHEALTH, truncated channels' in (tmp_path / name).read_text()


def test_smoke_is_the_small_world(tmp_path):
  found = jobs('mhealth,smoke', tmp_path)
  assert {job.config['dataset'] for job in found} == {'synthetic'}
  assert {job.config['data']['channels'] for job in found} == {''}
  assert [job.seed for job in found[:3]] == [0, 1, 0]
  json.dumps([job.config for job in found])
