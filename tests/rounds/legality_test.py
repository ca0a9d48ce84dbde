"""Pairs of methods and settings that mean nothing together, and why."""

import pytest

from relief_jax.aggregation.mean import masked_mean, with_sums
from relief_jax.compressors import Codec
from relief_jax.errors import InputError
from relief_jax.rounds import legality
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Faults, Guard, Setting
from relief_jax.updates import link
from tests.support.handmade import TASK

MEAN = masked_mean(TASK)
MEDIAN = Guard(mean='median')
UP, DOWN = ({f'{way}link_codec': Codec('int8')} for way in ('up', 'down'))


def check(traits, aggregate=MEAN, **fields):
  setting = Setting(**fields)
  method = Method(None, None, aggregate, None, traits=traits)
  legality.check(setting, method, link.make(setting), 'mine')


PLAIN = Traits()
SILENT, WIRED = Traits(silent=True), Traits(wire='codes its updates itself')
PAIRS = {
  'parts in code, up': (Traits(submodels=True), UP, 'parts of layers'),
  'parts in code, down': (Traits(submodels=True), DOWN, 'parts of layers'),
  'silent, up': (SILENT, UP, 'sends neither models nor updates'),
  'silent, down': (SILENT, DOWN, 'downlink_codec.name=int8'),
  'silent, drop': (SILENT, {'guard': Guard(drop=True)}, 'nonfinite=drop'),
  'silent, clip': (SILENT, {'guard': Guard(clip=True)}, 'clip_norm'),
  'silent, median': (SILENT, {'guard': MEDIAN}, 'mean=median'),
  'silent, faults': (SILENT, {'guard': Guard(faults=Faults('nan'))}, 'faults'),
  'silent, late': (SILENT, {'late': 'lost'}, 'nobody waits'),
  'codes twice': (WIRED, UP, 'this method codes its updates itself'),
  'optimizer': (
    Traits(optimizers=('sgd', 'momentum')),
    {'server_optimizer': 'adam'},
    "'sgd', 'momentum': the model is the mean",
  ),
  'clip of codes': (
    Traits(projects=True),
    {'guard': Guard(clip=True)},
    'no longer ends at such parameters',
  ),
  'median by samples': (
    PLAIN,
    {'guard': MEDIAN, 'weight': 'samples'},
    'weights by samples',
  ),
  'median of found weights': (
    Traits(finds_weights=True),
    {'guard': MEDIAN},
    'weights that the devices find',
  ),
  'median beside sums': (Traits(sums=True), {'guard': MEDIAN}, 'plain sums'),
}


@pytest.mark.parametrize('pair', PAIRS)
def test_a_pair_is_refused_for_a_reason(pair):
  traits, fields, says = PAIRS[pair]
  with pytest.raises(InputError, match=says):
    check(traits, **fields)
  # It is the pair: neither half alone is wrong.
  check(traits)
  if traits is not PLAIN:
    check(PLAIN, **fields)


@pytest.mark.parametrize(
  ('aggregate', 'says'),
  [
    (masked_mean(TASK, 'all'), 'who do not hold an element'),
    (with_sums(MEAN, lambda update, device: ()), 'plain sums of updates'),
  ],
)
def test_a_median_takes_the_place_of_a_plain_mean_alone(aggregate, says):
  with pytest.raises(InputError, match=says):
    check(PLAIN, aggregate, guard=MEDIAN)
  check(PLAIN, aggregate)
  check(PLAIN, MEAN, guard=MEDIAN)


@pytest.mark.parametrize(
  'fields',
  [
    {'late': 'lost', 'guard': Guard(drop=True, clip=True), **UP, **DOWN},
    {'guard': Guard(mean='trimmed', trim=0.2, faults=Faults('flip'))},
    {'server_optimizer': 'yogi', 'keep_client_state': True},
  ],
)
def test_a_plain_method_goes_with_everything(fields):
  check(PLAIN, **fields)
