"""Configs from the command line: what is wrong is told, own code is known."""

import contextlib
import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags
from ml_collections.config_flags import DEFINE_config_file

from relief_jax import algorithms
from relief_jax import config as config_lib
from relief_jax.campaign import campaign, points
from relief_jax.cli import command, config_flags
from relief_jax.config import modules
from relief_jax.config.validation import validate
from relief_jax.errors import InputError
from relief_jax.storage import identity, job_spec, records
from tests.support.paths import ROOT

# A method and a key of one's own beside the config that uses them.
OWN = """
from relief_jax import algorithms, config
from relief_jax.algorithms import fedavg
from relief_jax.config import presets
from relief_jax.keys import real

config.ROWS['mine'] = {'heads': real(0.5, 0, 1, 'probability')}
algorithms.ALGORITHMS['mine'] = fedavg.fedavg


def get_config(arg=None):
  return presets.method('mine', arg)
"""


def run(command_name, *args, cwd=ROOT):
  """Exit code and both outputs of a command; one thread is enough."""
  env = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-m', f'experiments.{command_name}', *args],
    cwd=cwd,
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.fixture
def own(monkeypatch):
  """Registries that are, afterwards, as they were."""
  monkeypatch.setattr(modules, '_loaded', set())
  for registry in (algorithms.ALGORITHMS, config_lib.ROWS):
    monkeypatch.setitem(registry, 'mine', None)
    del registry['mine']


BROKEN = {
  'x = 1': r'without get_config\(arg=None\)',
  'def get_config(): return 1': 'whose get_config returns no config',
  'def get_config(arg=None): pass': 'whose get_config returns no config',
  'def get_config(arg=None):\n  raise TypeError("mine")': 'line 2: TypeError',
  'def get_config(arg=None):\n  return mine': 'line 2: NameError: name',
  'def get_config(:': 'line 1: invalid syntax',
  'from relief_jax import nothing': 'line 1: ImportError',
  'from relief_jax import config\n\ndef get_config(arg=None):\n'
  '  c = config.default()\n  c.mine = 3\n  return c': 'line 5: AttributeError',
}


@pytest.mark.parametrize('text', BROKEN)
def test_what_is_wrong_with_a_config_file(text, tmp_path, monkeypatch):
  from ml_collections import config_flags

  path = tmp_path / 'mine.py'
  path.write_text(text)
  own_flags = flags.FlagValues()
  config_flags.DEFINE_config_file('config', None, 'x', flag_values=own_flags)
  own_flags['config']._GetArgv = lambda: argv
  monkeypatch.setattr(flags, 'FLAGS', own_flags)
  argv = ['x', f'--config={path}']
  with pytest.raises(InputError, match=BROKEN[text]) as error:
    command._parse(argv)
  assert str(path) in str(error.value) and '\n' not in str(error.value)
  assert len(str(error.value)) < 600


def jobs(**values):
  return [
    job_spec.Job(label, 0, label, {}, values={'hparams.client_lr': rate})
    if rate
    else job_spec.Job(label, 0, label, {})
    for label, rate in values.items()
  ]


@pytest.mark.parametrize(
  ('own', 'said'),
  [
    ({'a': None, 'b': 0.3}, ''),
    ({'a': None, 'b': 0.1}, 'is not for 1 of 2 runs, which have their own (b)'),
    ({'a': 0.2, 'b': 0.1}, 'but every run has its own (a, b)'),
  ],
)
def test_what_labels_set_themselves_is_told(own, said, monkeypatch, capsys):
  own_flags = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', own_flags)
  DEFINE_config_file('config', None, 'x', flag_values=own_flags)
  path = f'{ROOT}/experiments/configs/compare.py:smoke'
  argv = ['x', f'--config={path}', '--config.hparams.client_lr=.3']
  own_flags['config']._GetArgv = lambda: argv
  command._parse(argv)
  expected = contextlib.nullcontext()
  if 'every' in said:
    expected = pytest.raises(InputError, match=re.escape(said))
  with expected:
    config_flags.taken(own_flags.config, jobs(**own))
    assert said in capsys.readouterr().out
    assert said or not capsys.readouterr().out


@pytest.mark.parametrize(
  ('given', 'taken'),
  [
    ('seeds=0:3', 'seeds=(0, 1, 2)'),
    ('seeds=2:7:2', 'seeds=(2, 4, 6)'),
    ('repeats=0:2', 'repeats=(0, 1)'),
    ('data.test_subjects=1:3', 'data.test_subjects=(1, 2)'),
    ('data.test_subjects=(1,2)', 'data.test_subjects=(1,2)'),
    ('labels=a,b', "labels=('a', 'b')"),
    ('data_path=0:3', 'data_path=0:3'),
    ('layout=block:2', 'layout=block:2'),
    ('rounds=3', 'rounds=3'),
  ],
)
def test_tuples_are_spelled_as_in_a_sweep(given, taken):
  found = config_flags.prepare(['x', f'--config.{given}'])
  assert found == ['x', f'--config.{taken}']


@pytest.mark.parametrize('text', ['3:3', '3:1', '0:99999999999'])
def test_ranges_without_an_end(text):
  with pytest.raises(InputError, match='FIRST:END'):
    config_flags.prepare(['x', f'--config.seeds={text}'])
  with pytest.raises(InputError, match='FIRST:END'):
    points.parse('seed', text, 0)


@pytest.mark.parametrize(
  ('key', 'text'),
  [
    ('hparams.ema', 'nan'),
    ('hparams.ema', '0.5,2'),
    ('hparams.ema', 'uniform(0,2)'),
    ('hparams.ema', 'uniform(nan,1)'),
    ('hparams.client_lr', 'log(.001,inf)'),
    ('hparams.client_lr', '1e999'),
    ('seed', '-1:2'),
    ('seed', '4294967295:4294967297'),
    ('local_steps', 'int(1,1e30)'),
    ('local_steps', 'uniform(0.5,2)'),
    ('rounds', 'True'),
    ('rounds', '-' * 99999 + '1'),
    ('method', 'fedagv'),
    ('data.optional', '1'),
  ],
)
def test_swept_values_go_through_the_same_check(key, text):
  with pytest.raises(InputError) as error:
    points.swept(config_lib.default(), {key: text})
  assert len(str(error.value)) < 1000


def test_what_a_sweep_may_draw():
  texts = {
    'local_steps': 'int(1,8)',
    'hparams.client_lr': 'log(.001,.3)',
    'data.test_subjects': '(7,8),(1,2)',
    'deadline': 'tight,1.5*tight',
  }
  assert len(points.swept(config_lib.default(), texts)) == 4


def test_a_module_is_imported_once_and_said_so(own, tmp_path, caplog):
  (tmp_path / 'mine.py').write_text(OWN)
  path = str(tmp_path / 'mine.py')
  with caplog.at_level(logging.WARNING):
    config = records.config_from_dict({'modules': [path], 'method': 'mine'})
    validate(config)
    records.config_from_dict(records.clean(config))
  assert caplog.text.count(f'importing {path}, as config.modules says') == 1
  assert config.mine.heads == 0.5
  jobs = campaign.of_sweep(config, [{'mine.heads': 0.1}], tmp_path).jobs
  assert jobs[0].config['modules'] == [path]
  assert jobs[0].config['mine'] == {'heads': 0.1}


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('no_such_module', None),
    ('{}/none.py', None),
    ('{}/broken.py', 'def x(:'),
    ('{}/broken.py', '1 / 0'),
  ],
)
def test_a_module_that_cannot_be_imported(own, tmp_path, name, text):
  name = name.format(tmp_path)
  if text:
    pathlib.Path(name).write_text(text)
  with pytest.raises(InputError, match='config.modules with '):
    records.config_from_dict({'modules': [name]})


def test_only_the_place_of_a_module_does_not_make_another_run():
  config = config_lib.default()
  stored = records.clean(config)
  config.modules = ('/elsewhere/mine.py',)
  assert identity.difference(config, stored) == ''


@pytest.mark.slow
def test_own_code_in_a_run_its_record_and_a_sweep(tmp_path):
  """From a folder of one's own, where nothing of the package lies."""
  (tmp_path / 'mine.py').write_text(OWN)
  file = ['--config=mine.py:smoke', '--config.devices=1']
  here = {'cwd': tmp_path}
  assert run('main', *file, '--workdir=a', **here)[0] == 0
  stored = json.loads((tmp_path / 'a' / 'config.json').read_text())
  assert stored['modules'] == [str(tmp_path / 'mine.py')]
  again = ['--config=a/config.json', '--workdir=b']
  code, said = run('main', *again, **here)
  assert code == 0 and 'as config.modules says' in said
  sweep = ['--workdir=c', '--sweep.method=mine,fedavg', '--workers=1']
  assert run('sweep', *file, *sweep, **here)[0] == 0
  first = [(tmp_path / x / 'metrics.jsonl').read_text() for x in 'ab']
  rows = [[json.loads(line)['f1'] for line in t.splitlines()] for t in first]
  assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_named_module_reaches_a_comparison(tmp_path):
  (tmp_path / 'mine.py').write_text(OWN)
  code, said = run(
    'compare',
    f'--config={ROOT}/experiments/configs/compare.py:smoke',
    '--config.modules=mine.py',
    '--config.only=fedavg',
    '--config.seeds=0:1',
    '--workdir=a',
    '--workers=1',
    cwd=tmp_path,
  )
  assert code == 0, said
  stored = json.loads((tmp_path / 'a/fedavg/seed_0/config.json').read_text())
  assert stored['modules'] == [str(tmp_path / 'mine.py')]
  assert stored['mine'] == {'heads': 0.5}


@pytest.mark.parametrize(
  'old, new',
  [
    ('shift.noise', 'sensor_faults.noise'),
    ('shift.gone', 'sensor_faults.lost'),
    ('online.missing.struck', 'online.missing.share'),
    ('cosines', 'update_similarity'),
    ('uplink_codec.memory', 'uplink_codec.error_feedback'),
  ],
)
def test_an_old_key_is_answered_with_its_new_name(old, new):
  with pytest.raises(InputError, match=f'write --config.{new}'):
    config_flags.prepare(['main', f'--config.{old}=1'])
  with pytest.raises(InputError, match=f'write --config.{new}'):
    config_flags.prepare(['sweep'], {old: '0,1'})
  *groups, leaf = old.split('.')
  values = {leaf: 1}
  for group in reversed(groups):
    values = {group: values}
  with pytest.raises(InputError, match='its name now'):
    records.override(config_lib.default(), values)
  assert new in config_lib.rows()
