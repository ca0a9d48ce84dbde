"""Every key of the config: its row, and all that no key may be."""

import itertools
import json
import math
import re

import ml_collections
import numpy as np
import pytest

from relief_jax import algorithms, keys
from relief_jax import config as config_lib
from relief_jax.campaign import comparison
from relief_jax.config import registries
from relief_jax.config.validation import check, validate
from relief_jax.errors import InputError
from relief_jax.storage import records
from tests.support.paths import ROOT

ROWS = config_lib.rows()
DEFAULTS = keys.flatten(config_lib.default().to_dict())
NUMBERS = [k for k, row in ROWS.items() if row.kind in ('whole', 'real')]
OF_KIND = {
  kind: [k for k, row in ROWS.items() if row.kind == kind]
  for kind in {row.kind for row in ROWS.values()}
}
# No key takes these, whatever its kind.
NOTHING = (
  None,
  b'x',
  {},
  {'a': 1},
  1j,
  object(),
  math.nan,
  math.inf,
  -math.inf,
)


def refused(key, value):
  """What is said of a value, by whichever way it comes; must be refused."""
  with pytest.raises(InputError) as error:
    records.override(config_lib.default(), keys.nested({key: value}))
  if (
    config_lib.rows()[key].kind != 'real'
  ):  # of which a ConfigDict makes floats itself
    config = config_lib.default()
    *path, last = key.split('.')
    group = config_lib.get(config, '.'.join(path)) if path else config
    with group.ignore_type(), group.unlocked():
      group[last] = value
    with pytest.raises(InputError):
      validate(config)
  return str(error.value)


def test_every_key_has_a_row_and_every_row_is_a_key():
  assert sorted(DEFAULTS) == sorted(ROWS)
  for key, row in ROWS.items():
    assert isinstance(row.default, type(DEFAULTS[key])), key
    assert row.meaning and '\n' not in row.meaning, key


def test_every_default_is_in_its_range():
  validate(config_lib.default())
  for key, row in (ROWS | comparison.ROWS).items():
    check(key, row.default, row)


def test_the_cure_can_be_typed():
  """The value in a message is one that the key takes."""
  for row in ROWS.values():
    assert keys.spelled(row.default)
  assert '--config.alpha=0.5' in refused('alpha', math.nan)
  assert '--config.model.filters="(32,64)"' in refused('model.filters', ())


@pytest.mark.parametrize('key', ROWS)
def test_nothing_else_is_taken(key):
  row = ROWS[key]
  wrong = list(NOTHING)
  if row.kind != 'switch':
    wrong += [True, False, np.True_]
  if row.kind not in ('text', 'name'):
    wrong += ['', '1', 'nan', 'True']
  if row.kind in ('text', 'name'):
    wrong += ['a\0b', 2**80, -1, ('cnn',)]
  if row.kind == 'name':
    wrong += ['no such name', ' ', 'CNN']
  if row.kind in ('switch', 'wholes', 'names'):
    wrong += [0, 1, 1.0, 2**80]
  if row.kind == 'whole':
    wrong += [1.0, 1.5, (1,), '1', 2**80, -(2**80), 10**400]
  if row.kind == 'real':
    wrong += ['0.5', (0.5,), np.float32('nan'), 10**400, -(10**400), 1e300]
  if row.kind == 'wholes':
    wrong += [(one,) for one in (*NOTHING, True, 1.5, '4', 2**63, -(2**63))]
  if row.kind == 'names':
    wrong += [(one,) for one in (*NOTHING, True, 1, 'a\0b')]
  for value in wrong:
    said = refused(key, value)
    assert f'config.{key} is ' in said and len(said) < 1000, (value, said)


@pytest.mark.parametrize('key', NUMBERS)
def test_the_ends_of_a_range(key):
  row = ROWS[key]
  assert math.isfinite(row.least) and math.isfinite(row.most), key
  step = 1 if row.kind == 'whole' else None

  def beyond(end, way):
    return end + way * step if step else math.nextafter(end, way * math.inf)

  refused(key, row.least if row.above else beyond(row.least, -1))
  refused(key, row.most if row.below else beyond(row.most, 1))
  inside = [
    beyond(row.least, 1) if row.above else row.least,
    beyond(row.most, -1) if row.below else row.most,
  ]
  for value in inside:
    check(key, value if step else float(value), row)


@pytest.mark.parametrize('key', ROWS)
def test_what_is_taken_can_be_stored_and_read(key):
  row = ROWS[key]
  some = [row.default]
  if row.kind == 'whole':
    some += [int(row.least), int(row.most)]
  if row.kind == 'real':
    some += [1 if row.takes(1) else row.default, float(np.float32(row.default))]
  if row.kind == 'name':
    found = registries.REGISTRIES.get(row.choices)
    some += list(found.names() if found else row.choices)
  if row.kind == 'wholes':
    some += [(3, 1)]
  if row.kind == 'text':
    some += ['a b', 'é', '\udcff', '"', '\\']
  for value in some:
    config = config_lib.default()
    config.update_from_flattened_dict({key: value})
    text = json.dumps(records.clean(config), allow_nan=False)
    again = records.config_from_dict(json.loads(text))
    assert config_lib.get(again, key) == value
    check(key, config_lib.get(again, key), row)


def test_numpy_numbers_are_numbers():
  for value in (np.int32(5), np.int64(5)):
    assert keys.whole(0, 0, 9, 'x').takes(value)
  assert keys.real(0.0, 0, 9, 'x').takes(np.float32(0.5))


def test_seeds_are_those_that_jax_tells_apart():
  config = config_lib.default()
  config.seed = keys.LARGEST_SEED
  validate(config)
  assert '0 to 4294967295' in refused('seed', keys.LARGEST_SEED + 1)


def test_a_key_without_a_row_and_one_left_out():
  config = config_lib.default()
  with config.unlocked():
    config.mine = 1
  with pytest.raises(InputError, match='config.mine, a key without a row'):
    validate(config)
  config = config_lib.default()
  with config.unlocked():
    del config.hparams['ema']
  with pytest.raises(InputError, match='config without hparams.ema'):
    validate(config)


def test_a_key_of_ones_own(monkeypatch):
  """One row makes the default, the check and the record."""
  row = {'heads': keys.real(0.5, 0, 1, 'a probability', below=True)}
  monkeypatch.setitem(config_lib.ROWS, 'coin', row)
  config = config_lib.default()
  assert config.coin.heads == 0.5
  validate(config)
  assert 'from 0 and below 1' in refused('coin.heads', 1.0)
  again = records.config_from_dict(records.clean(config))
  assert again == config


@pytest.mark.parametrize('key', registries.REGISTRIES)
def test_registries_are_looked_up(key):
  """Every row's registry is there, and none is left over."""
  used = {row.choices for row in ROWS.values() if isinstance(row.choices, str)}
  assert key in used and used <= set(registries.REGISTRIES)
  assert list(registries.REGISTRIES[key].names())


@pytest.mark.parametrize(
  'key, name, registry',
  [
    ('method', 'mine', 'ALGORITHMS'),
    ('backbone', 'mine', 'MODELS'),
    ('dataset', 'mine', 'DATASETS'),
    ('fleet', 'mine', 'FLEETS'),
    ('uplink_codec.name', 'mine', 'COMPRESSORS'),
    ('downlink_codec.name', 'mine', 'COMPRESSORS'),
  ],
)
def test_what_is_registered_may_be_named(key, name, registry, monkeypatch):
  from relief_jax import algorithms, compressors, datasets, models
  from relief_jax.world import fleets

  assert 'name what adds it in --config.modules' in refused(key, name)
  for module in (algorithms, compressors, datasets, fleets, models):
    if hasattr(module, registry):
      found = getattr(module, registry)
      monkeypatch.setitem(found, name, next(iter(found.values())))
  config = config_lib.default()
  config.update_from_flattened_dict({key: name})
  validate(config)


def test_ranges_in_words():
  shares = itertools.product((False, True), repeat=2)
  said = [
    keys.real(0.5, 0, 1, '', above=above, below=below).range
    for above, below in shares
  ]
  assert said == [
    'from 0 to 1',
    'from 0 and below 1',
    'above 0 and at most 1',
    'above 0 and below 1',
  ]


def test_a_number_too_long_to_be_shown():
  assert 'thousands of digits' in keys.shown(10**5000)
  assert len(keys.shown('x' * 999)) < 99


def test_overrides_go_through_the_same_check():
  for values in (
    {'hparams': {'ema': math.nan}},
    {'rounds': True},
    {'seed': -1},
  ):
    with pytest.raises(InputError, match='Usual cure: set --config'):
      records.override(config_lib.default(), values)
  assert isinstance(config_lib.default(), ml_collections.ConfigDict)


def test_messages_name_keys_that_exist():
  """A cure that names no key would be refused when it is followed."""
  known = {*ROWS, *comparison.ROWS, 'values'}  # short for values_file
  for name, factory in algorithms.ALGORITHMS.items():
    known |= {f'{name}.{key}' for key in algorithms.facts(factory).rows}
  known |= {'.'.join(part) for k in known for part in prefixes(k.split('.'))}
  for path in (ROOT / 'relief_jax').rglob('*.py'):
    named = re.findall(r'--config\.([a-z_.0-9]+)(?![a-z_.0-9{])', read(path))
    assert {key.rstrip('.') for key in named} <= known, path


def prefixes(words):
  return [words[:i] for i in range(1, len(words))]


def read(path):
  """The source, with strings that go on in the next line as one."""
  return re.sub(r"'\s*\n\s*f?'", '', path.read_text(encoding='utf-8'))
