"""The LoRA family side by side, and its merges alone."""

import pathlib

import pytest

from experiments.configs import lora
from relief_jax.campaign import campaign
from relief_jax.config import validation
from relief_jax.storage import records


@pytest.mark.parametrize('variant', ['smoke', 'merges', 'merges,smoke'])
def test_variants(variant):
  config = lora.get_config(variant)
  config.seeds = config.seeds[:1]
  found = campaign.of_comparison(config, pathlib.Path('x')).jobs
  for job in found:
    validation.validate(records.config_from_dict(job.config))
  if 'merges' in variant:
    # One world and one budget, and every run records its error.
    for key in ('deadline', 'model', 'fleet', 'rounds'):
      assert len({repr(job.config[key]) for job in found}) == 1
    for job in found:
      assert job.config[job.config['method']]['merge_error']
      assert job.config['dataset'] == 'synthetic_text'
