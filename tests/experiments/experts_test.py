"""The shipped comparison of experts: every variant is a config."""

import pathlib

import pytest

from experiments.configs import experts
from relief_jax.campaign import campaign
from relief_jax.config import validation
from relief_jax.storage import records

PLAIN = {
  'dense',
  'whole',
  'importance',
  'usage',
  'random',
  'routed',
  'aligned',
}


@pytest.mark.parametrize(
  'variant',
  [
    '',
    'smoke',
    'transformer,smoke',
    'text',
    'words,smoke',
    'skew',
    'skew,smoke',
  ],
)
def test_variants(variant):
  config = experts.get_config(variant)
  config.seeds = config.seeds[:1]
  jobs = campaign.of_comparison(config, pathlib.Path('x')).jobs
  blocks = config.backbone == 'transformer'
  assert blocks == ('skew' not in variant and variant not in ('', 'smoke'))
  for job in jobs:
    found = records.config_from_dict(job.config)
    validation.validate(found)
    mixed = 'dense' not in job.label
    assert found.model.experts.blocks == int(blocks and mixed)
    assert (found.model.fusion == 'experts') == (mixed and not blocks)
  assert len(jobs) == (9 if 'skew' in variant else len(PLAIN))


def test_levels_of_skew_differ_in_nothing_else():
  config = experts.get_config('skew')
  alphas = {
    label: keys['alpha'] for label, keys in config.methods.to_dict().items()
  }
  assert alphas['strong/aligned'] == 0.1 and alphas['iid/whole'] == experts.IID
  assert set(config.labels) == {
    f'{level}/{name}'
    for level in ('strong', 'mild', 'iid')
    for name in ('whole', 'importance', 'aligned')
  }
  assert set(experts.get_config().labels) == PLAIN
