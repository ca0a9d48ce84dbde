"""Fine-tuning: every method of adapters and of split training, alike."""

import pathlib

import numpy as np
import pytest

from experiments.configs import finetune
from relief_jax import algorithms
from relief_jax.campaign import campaign
from relief_jax.config import validation
from relief_jax.storage import records
from relief_jax.world import fleets, splits


def jobs(variant=None, only=''):
  config = finetune.get_config(variant)
  config.only = only
  return campaign.of_comparison(config, pathlib.Path('x')).jobs


def test_all_methods_are_there_on_equal_terms():
  found = [job.config for job in jobs('tune')]
  wanted = {
    name
    for name, factory in algorithms.ALGORITHMS.items()
    if (facts := algorithms.facts(factory)).adapters or facts.splits
  }
  assert {c['method'] for c in found} == {*wanted, 'local_only'}
  shared = ('fleet', 'deadline', 'batch', 'rounds', 'local_steps', 'model')
  for key in shared:
    assert len({repr(c[key]) for c in found}) == 1, key


def test_rates_are_chosen_on_nobody_who_is_tested():
  folds = {job.config['data']['fold'] for job in jobs(only='fedit')}
  assert folds == set(finetune.FOLDS)
  data = jobs('tune', 'fedit')[0].config['data']
  assert data['validation_subjects'] == [*finetune.VALIDATION]
  persons = np.arange(1, 11)  # of MHEALTH
  for fold in folds:
    tested = splits.fold_subjects(persons, data['folds'], fold)
    assert not {*tested.tolist()} & {*finetune.VALIDATION}


@pytest.mark.parametrize('fleet', ['SENSORS', 'CHARACTERS'])
def test_only_memory_is_bounded(fleet):
  found = getattr(finetune, fleet).tiers
  for mine, plain in zip(found, fleets.find('four_tiers').tiers, strict=True):
    assert (mine.name, mine.share, mine.part) == plain[:3]
  memory = [tier.device.memory for tier in found]
  assert memory == sorted(memory)


@pytest.mark.parametrize('variant', ['smoke', 'words,smoke', 'text', 'hasfl'])
def test_variants(variant):
  config = finetune.get_config(variant)
  assert ('gapsl_style' in config.labels) == (variant == 'smoke')
  assert (config.dataset == 'synthetic') == (variant == 'smoke')
  config.seeds = config.seeds[:1]
  for job in campaign.of_comparison(config, pathlib.Path('x')).jobs:
    validation.validate(records.config_from_dict(job.config))
