"""A method's facts live with it, and a method may live elsewhere."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from relief_jax import (
  algorithms,
  compressors,
  keys,
  plugins,
  settings,
  simulate,
)
from relief_jax import config as config_lib
from relief_jax.algorithms import fedavg, relief
from relief_jax.campaign import campaign, comparison
from relief_jax.cli import config_flags
from relief_jax.compressors import base
from relief_jax.config import registries
from relief_jax.config.validation import validate
from relief_jax.errors import InputError
from relief_jax.rounds import facts as facts_lib
from relief_jax.rounds.facts import Facts
from relief_jax.storage import identity, records
from tests.support import tiny
from tests.support.paths import ROOT

WITH = [m for m in algorithms.ALGORITHMS if algorithms.facts(m).options]

METHODS = """
import dataclasses

import jax
import jax.numpy as jnp
import optax

from relief_jax import keys
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.clients.work import local_sgd
from relief_jax.rounds.facts import Facts


@dataclasses.dataclass(frozen=True)
class Options:
  pull: float = keys.option(keys.real(0.25, 0, 1000, 'to the received model'))


@Facts(options=Options, fill='input')
def mine(task, setting):
  def penalty(params, received, device):
    gap = jax.tree.map(jnp.subtract, params, received)
    return setting.options.pull * optax.tree.norm(gap, squared=True)

  return fedavg(task, setting)._replace(client=local_sgd(task, penalty=penalty))


@Facts(options=Options)
def model(task, setting):
  return fedavg(task, setting)


def nothing(task, setting):
  return 3


def short(task):
  return task


number = 3
"""

WORLD = """
from fractions import Fraction

from relief_jax import compressors, datasets, models
from relief_jax.world.tiers import Tier, Tiers

fleet = Tiers((Tier('same', 100, Fraction(1), 'jetson_nano'),))


def small(spec):
  return models.MODELS['cnn'](spec._replace(hidden=3))


def windows(config, root):
  return datasets.DATASETS['synthetic'](config, root)


def coded(codec):
  return compressors.COMPRESSORS['int8'](codec)
"""

COMPARISON = """
from relief_jax.campaign import comparison
from relief_jax import config as config_lib
from relief_jax.config import presets


def get_config(arg=None):
  c = config_lib.default()
  presets.smoke(c)
  c.devices = 1
  labels = {
    'fedavg': {'method': 'fedavg'},
    'mine': {'method': 'my_package.methods:mine'},
    'strong': {'method': 'my_package/methods.py:mine', 'mine': {'pull': 9.0}},
  }
  return comparison.build(c, labels, (0,))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A package of one's own in the folder that one stands in."""
  folder = tmp_path / 'my_package'
  folder.mkdir()
  (folder / '__init__.py').write_text('')
  (folder / 'methods.py').write_text(METHODS)
  (folder / 'world.py').write_text(WORLD)
  (tmp_path / 'comparison.py').write_text(COMPARISON)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(plugins, '_found', {})
  monkeypatch.setattr(plugins, '_files', {})
  plugins._entries.cache_clear()
  yield tmp_path
  for name in [n for n in sys.modules if n.split('.')[0] == 'my_package']:
    del sys.modules[name]
  plugins._entries.cache_clear()


def install(folder, name, points):
  """Writes what an installed package tells of its entry points."""
  about = folder / f'{name}-1.0.dist-info'
  about.mkdir()
  (about / 'METADATA').write_text(f'Name: {name}\nVersion: 1.0\n')
  (about / 'entry_points.txt').write_text(points)
  plugins._entries.cache_clear()


# Facts and options.


@pytest.mark.parametrize('method', WITH)
def test_options_are_one_declaration(method):
  facts = algorithms.facts(method)
  record = facts.make()
  assert hash(record) == hash(facts.make())
  hash(settings.Setting(options=record))
  for field in dataclasses.fields(record):
    row = facts.rows[field.name]
    value = getattr(record, field.name)
    assert field.type is type(value) and value == row.default
    assert row == config_lib.rows()[f'{method}.{field.name}']
  group = config_lib.default()[method].to_dict()
  assert group == dataclasses.asdict(record)
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(record, field.name, value)


def test_only_methods_with_options_have_keys():
  groups = set(config_lib.default()) & set(algorithms.ALGORITHMS)
  assert groups == set(WITH)


def test_rules_have_one_list():
  row = config_lib.rows()['relief.rule']
  assert row.choices == relief.RULES == tuple(relief.scores.RULES)


def test_a_plain_function_has_plain_facts():
  def mine(task, setting):
    return fedavg.fedavg(task, setting)

  assert facts_lib.of(mine) == Facts() and algorithms.facts(mine).make() == ()
  assert algorithms.resolve_fill('fedavg', '') == 'input'
  assert algorithms.resolve_fill('cohort_mean', '') == 'skip'
  with pytest.raises(InputError, match='fill=skip'):
    algorithms.resolve_fill('relief', 'input')


def test_a_registered_method_gets_its_keys_at_once(monkeypatch):
  @dataclasses.dataclass(frozen=True)
  class Options:
    heads: float = keys.option(keys.real(0.5, 0, 1, 'a probability'))

  @Facts(options=Options, budgeted=True)
  def mine(task, setting):
    return fedavg.fedavg(task, setting)

  before = registries.contents()
  monkeypatch.setitem(algorithms.ALGORITHMS, 'mine', mine)
  assert registries.contents() != before
  config = config_lib.default('mine')
  assert config.method == 'mine' and config.mine.heads == 0.5
  found = config_flags.prepare(['x', '--config.mine.heads=1'])
  assert found == ['x', '--config.mine.heads=1']
  validate(config)
  with pytest.raises(InputError, match='a number from 0 to 1'):
    records.override(config, {'mine': {'heads': 2.0}})
  monkeypatch.setitem(algorithms.ALGORITHMS, 'model', mine)
  monkeypatch.setitem(config_lib.ROWS, 'model', {'heads': mine.facts.rows})
  with pytest.raises(InputError, match='rename its function'):
    config_lib.rows()


def test_the_round_holds_the_record_of_the_config():
  config = tiny.config(**{'method': 'relief', 'relief.rule': 'static'})
  setting = simulate.Simulation(config).setting
  assert setting.options == relief.Options(rule='static')
  assert hash(setting) == hash(setting._replace())


# Outside of the tree.


def test_references():
  assert not plugins.is_reference('block:2') and not plugins.is_reference(3)
  assert plugins.short('a/b.py:Class.mine') == 'mine'
  path = str(pathlib.Path('a.py').resolve())
  assert plugins.absolute('a.py:mine') == f'{path}:mine'
  assert plugins.absolute('a.b:mine') == 'a.b:mine'


@pytest.mark.parametrize(
  'name', ['my_package.methods:mine', 'my_package/methods.py:mine']
)
def test_a_method_from_outside_brings_its_keys(own, name):
  config = config_lib.default()
  config.method = name
  assert 'mine' not in config
  validate(config)  # defaults, until it is settled
  registries.settle(config)
  assert config.mine.pull == 0.25
  assert config_lib.default(name).method == plugins.absolute(name)
  stored = records.clean(config)
  plugins._found.clear()  # another process
  again = records.config_from_dict(json.loads(json.dumps(stored)))
  assert again == config
  with pytest.raises(InputError, match='config.mine.pull is -1'):
    records.config_from_dict({**stored, 'mine': {'pull': -1}})


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('no_package.methods:mine', 'ModuleNotFoundError'),
    ('my_package/none.py:mine', 'FileNotFoundError'),
    ('my_package.methods:nobody', 'AttributeError'),
    ('my_package.methods:number', r'a function \(task, setting\)'),
    ('my_package.methods:short', r'a function \(task, setting\)'),
    ('my_package.methods:model', 'keys config.model'),
    ('fedagv', "one of 'centralized'"),
  ],
)
def test_what_is_no_method(own, name, said):
  config = config_lib.default()
  config.method = name
  for refused in (
    lambda: validate(config),
    lambda: records.config_from_dict({'method': name}),
    lambda: records.override(config_lib.default(), {'method': name}),
  ):
    with pytest.raises(InputError, match=said) as error:
      refused()
    assert '\n' not in str(error.value)
  validate(config_lib.default())  # nothing is left of it


def test_a_factory_that_makes_no_method(own):
  with pytest.raises(InputError, match='whose factory gives a int'):
    algorithms.build('my_package.methods:nothing', None, None)


def test_entry_points(own):
  points = '[relief_jax.methods]\nmine = my_package.methods:mine\n'
  install(own, 'one', points + 'relief = my_package.methods:mine\n')
  assert 'mine' in plugins.names(algorithms.KIND)
  assert plugins.outside(algorithms.KIND) == {}  # not before it is asked for
  config = records.config_from_dict({'method': 'mine', 'mine': {'pull': 0.5}})
  validate(config)
  assert config.mine.pull == 0.5 and algorithms.facts('mine').fill == 'input'
  assert algorithms.find('relief') is relief.relief  # the package's own first
  plugins._found.clear()
  install(own, 'two', '[relief_jax.methods]\nmine = other.methods:mine\n')
  with pytest.raises(InputError, match='entry point of 2 installed packages'):
    records.config_from_dict({'method': 'mine'})


@pytest.mark.slow
def test_models_data_fleets_and_codecs_too(own):
  given = {
    'backbone': 'my_package.world:small',
    'dataset': 'my_package.world:windows',
    'fleet': 'my_package.world:fleet',
    'uplink_codec.name': 'my_package.world:coded',
  }
  config = tiny.config(**{'method': 'fedavg', 'rounds': 2, **given})
  found = simulate.Simulation(config)
  assert found.config.dataset == given['dataset']
  found.advance()
  assert found.params['head']['w'].shape[0] == 3
  assert found.description['tiers'] == {'same': 6}
  codec = found.setting.uplink_codec
  same = codec._replace(name='int8')
  sizes = [base.wire_bytes(compressors.make(c), (9,)) for c in (codec, same)]
  assert sizes[0] == sizes[1] < 4 * 9
  for key in given:
    config = config_lib.default()
    config.update_from_flattened_dict({key: 'my_package.methods:number'})
    with pytest.raises(InputError, match='my_package.methods:number'):
      validate(config)


def test_a_run_knows_nothing_of_methods_beside_it(own, tmp_path):
  name = 'my_package.methods:mine'
  swept = {'method': f'{name},fedavg', 'mine.pull': '0.0,0.5'}
  config_flags.prepare(['x'], swept)
  config = config_lib.default('fedavg')
  points = [
    {'method': method, 'mine.pull': pull}
    for method in (name, 'fedavg')
    for pull in (0.0, 0.5)
  ]
  jobs = campaign.of_sweep(config, points, tmp_path).jobs
  assert [job.label for job in jobs] == [
    'pull=0.0/mine',
    'pull=0.5/mine',
    'pull=0.0/fedavg',
    'pull=0.5/fedavg',
  ]
  assert jobs[1].config['mine'] == {'pull': 0.5}
  assert 'mine' not in jobs[2].config
  run = records.config_from_dict(jobs[2].config)
  assert 'mine' not in run and isinstance(run, ml_collections.ConfigDict)
  assert identity.changes(run, jobs[2].config) == {}


def test_a_comparison_stores_where_its_methods_are(own):
  labels = {'a': {'method': 'my_package/methods.py:mine'}}
  config = comparison.build(config_lib.default(), labels, (0,), 'a')
  assert config.mine.pull == 0.25
  stored = records.clean(config)
  place = str(own / 'my_package' / 'methods.py')
  assert stored['methods']['a']['method'] == f'{place}:mine'
  plugins._found.clear()
  assert comparison.from_dict(stored).mine.pull == 0.25


def launch(folder, command, *args):
  """Exit code and what is printed, in a folder without the package."""
  done = subprocess.run(
    [sys.executable, '-m', f'experiments.{command}', *args],
    cwd=folder,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=600,
  )
  return done.returncode, done.stdout + done.stderr


def stored(path):
  return json.loads((path / 'config.json').read_text())


@pytest.mark.slow
def test_main_and_its_resumption(own):
  flags = '--config=fedavg:smoke', '--config.devices=1'
  named = '--config.method=my_package/methods.py:mine', '--config.mine.pull=0.5'
  code, said = launch(own, 'main', *flags, *named, '--workdir=a')
  assert code == 0, said
  config = stored(own / 'a')
  assert config['method'] == f'{own}/my_package/methods.py:mine'
  assert config['mine'] == {'pull': 0.5} and config['fill'] == 'input'
  elsewhere = own / 'elsewhere'
  elsewhere.mkdir()
  again = '--config=../a/config.json', '--workdir=../a', '--resume'
  code, said = launch(elsewhere, 'main', *again, '--config.rounds=3')
  assert code == 0 and 'complete after round 3' in said, said
  code, said = launch(
    own, 'main', *flags, '--workdir=a', '--resume', *named[:1]
  )
  assert code == 2 and 'config.mine.pull=0.25 where 0.5 is stored' in said


@pytest.mark.slow
def test_sweep_in_workers(own):
  code, said = launch(
    own,
    'sweep',
    '--config=fedavg:smoke',
    '--sweep.method=my_package.methods:mine,fedavg',
    '--sweep.mine.pull=0,9',
    '--workers=2',
    '--workdir=a',
  )
  assert code == 0, said
  runs = [own / 'a' / f'pull={pull}' for pull in ('0.0', '9.0')]
  pulls = [stored(run / 'mine' / 'seed_0')['mine']['pull'] for run in runs]
  assert pulls == [0.0, 9.0]
  assert 'mine' not in stored(runs[1] / 'fedavg' / 'seed_0')
  f1 = {
    (run.name, method): (run / method / 'seed_0/metrics.jsonl').read_text()
    for run in runs
    for method in ('mine', 'fedavg')
  }
  loss = {
    k: [json.loads(line)['loss'] for line in v.splitlines()][-1]
    for k, v in f1.items()
  }
  # Without a pull it is FedAvg, and fills as it does.
  assert loss['pull=0.0', 'mine'] == loss['pull=0.0', 'fedavg']
  assert loss['pull=9.0', 'mine'] != loss['pull=0.0', 'mine']


@pytest.mark.slow
def test_compare_in_workers(own):
  flags = '--config=comparison.py', '--config.mine.pull=0.5', '--workers=2'
  code, said = launch(own, 'compare', *flags, '--workdir=a')
  assert code == 0, said
  found = {
    name: stored(own / 'a' / name / 'seed_0')
    for name in ('fedavg', 'mine', 'strong')
  }
  assert 'mine' not in found['fedavg']
  assert found['mine']['mine'] == {'pull': 0.5}
  assert found['strong']['mine'] == {'pull': 9.0}
  code, said = launch(
    own, 'compare', '--config=a/config.json', '--workdir=a', '--workers=2'
  )
  assert code == 0 and '3 runs, 3 of them done' in said
