"""The leaderboard's labels: everybody is there, on equal terms."""

import pathlib

import pytest

from experiments.configs import leaderboard
from relief_jax import algorithms
from relief_jax.campaign import campaign
from relief_jax.config import validation
from relief_jax.storage import records


def _budgeted():
  names = algorithms.ALGORITHMS
  budgeted = {m for m in names if algorithms.facts(m).budgeted}
  others = {*leaderboard.ADAPTED, *leaderboard.SPLIT, *leaderboard.ARRIVALS}
  return budgeted - others


ONE = {'seeds': (0,), 'repeats': (0,)}  # fold and seed


def jobs(variant=None, only='', **given):
  """Runs of the comparison; of one fold and seed where the rest is alike."""
  config = leaderboard.get_config(variant)
  config.update(only=only, **given)
  return campaign.of_comparison(config, pathlib.Path('x')).jobs


def test_every_method_has_a_label_and_all_share_the_protocol():
  found = {job.label: job.config for job in jobs(**ONE)}
  methods = {config['method'] for config in found.values()}
  assert methods == set(algorithms.ALGORITHMS) - {
    *leaderboard.ONLINE,
    *leaderboard.ADAPTED,
    *leaderboard.SPLIT,
    *leaderboard.ARRIVALS,
  }
  for config in found.values():
    assert tuple(config['model']['filters']) == (16, 32, 64)
    assert config['model']['groups'] == 'layer'
    assert (config['data']['split'], config['data']['folds']) == ('folds', 4)
    assert (config['rounds'], config['eval_every']) == (100, 2)
    assert config['deadline'] == '1.75*tight'
  rates = {
    (config['backbone'], config['hparams']['client_lr'])
    for config in found.values()
  }
  assert rates == {('cnn', 0.05), ('lora', 0.02)}


def test_fills():
  """What a label promises about absent sensors is what is run."""
  found = {
    job.label: algorithms.resolve_fill(job.config['method'], job.config['fill'])
    for job in jobs(**ONE)
  }
  for method in _budgeted():
    assert found[f'cnn/{method}'] == 'skip'
  assert set(leaderboard.WHOLE) < _budgeted()
  for label, fill in found.items():
    if label.endswith('_input'):
      assert fill == 'input'
  for backbone in ('cnn', 'lora'):
    assert found[f'{backbone}/fedavg'] == 'input'
    assert found[f'{backbone}/fedavg_skip'] == 'skip'


def test_folds_and_seeds():
  few = 'cnn/fedavg,cnn/relief'
  label = [job for job in jobs(only=few) if job.label == 'cnn/relief']
  found = [(job.config['data']['fold'], job.config['seed']) for job in label]
  assert found == [(fold, seed) for fold in range(4) for seed in (0, 1)]
  five = jobs('mhealth', only=few)
  other = [job for job in five if job.label == 'cnn/relief']
  assert [job.config['data']['fold'] for job in other] == list(range(5))
  assert {job.config['dataset'] for job in other} == {'mhealth'}


def test_values_are_chosen_on_nobody_who_is_tested():
  found = [job.config for job in jobs('tune')]
  assert {config['data']['fold'] for config in found} == {0}
  persons = found[0]['data']['validation_subjects']
  assert persons and not {1, 5} & set(persons)  # DSADS's fold 0


@pytest.mark.parametrize('variant', ['cnn,smoke', 'lora,smoke', 'tune,smoke'])
def test_variants(variant):
  config = leaderboard.get_config(variant)
  assert config.dataset == 'synthetic'
  for job in campaign.of_comparison(config, pathlib.Path('x')).jobs:
    validation.validate(records.config_from_dict(job.config))
