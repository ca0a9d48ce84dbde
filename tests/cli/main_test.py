"""The command `relief`: what it lists, plans, keeps and tells."""

import importlib
import logging
import pathlib
import runpy

import pytest
from absl import flags

from relief_jax.campaign import campaign
from relief_jax.cli import (
  arguments,
  cache,
  command,
  config_flags,
  config_lookup,
  keys,
  main,
  plan,
)
from relief_jax.errors import InputError
from relief_jax.files import invocation, output
from relief_jax.storage import identity, runner
from tests.support import tiny


def started(monkeypatch, capsys, *argv):
  """Exit code and both outputs of `relief` with these arguments."""
  monkeypatch.setattr('sys.argv', ['relief', *argv])
  with pytest.raises(SystemExit) as ended:
    main.main()
  return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize('argv', [[], ['--help'], ['-h'], ['help']])
def test_all_commands_are_listed_a_line_each(monkeypatch, capsys, argv):
  code, out, _ = started(monkeypatch, capsys, *argv)
  lines = [line.split()[0] for line in out.splitlines() if line[:2] == '  ']
  assert code == 0 and lines == list(main.COMMANDS)


def test_the_version_and_a_mistyped_command(monkeypatch, capsys):
  assert started(monkeypatch, capsys, '--version')[1].startswith('relief_jax ')
  code, _, err = started(monkeypatch, capsys, 'rum')
  assert code == 2 and "unknown command 'rum'" in err and err.count('\n') == 1


@pytest.mark.parametrize('name', main.COMMANDS)
def test_a_command_is_a_module(name):
  module = importlib.import_module(f'relief_jax.cli.{name.replace("-", "_")}')
  assert callable(module.main) and callable(module.define)
  assert f'relief {name}' in module.__doc__  # an example of its use


# -- The config as the first argument --------------------------------------


@pytest.mark.parametrize(
  ('argv', 'at'),
  [
    (['relief:smoke'], 1),
    (['--resume', 'relief', '--workdir=a'], 2),
    (['--workdir', 'a', 'relief'], 3),
    (['config.rounds=3'], 0),  # a flag without its dashes
    (['workdir', 'a'], 0),
    (['\u2014resume'], 0),
    ([''], 0),
  ],
)
def test_the_first_argument_that_is_no_flag_is_found(argv, at):
  known, valued = ('workdir', 'resume'), ('workdir',)
  assert arguments.operand(['x', *argv], known, valued.__contains__) == at


def test_a_file_with_an_equals_sign_in_its_name_is_a_config(tmp_path):
  path = tmp_path / 'lr=1.py'
  path.touch()
  assert arguments.operand(['x', f'{path}:smoke'], (), lambda _: False) == 1


# -- Keys ------------------------------------------------------------------


def test_every_key_has_its_line():
  found = keys.find('')
  assert found == config_flags.rows()
  lines = [keys.line(key, row, 1) for key, row in found.items()]
  assert not any('\n' in line for line in lines)
  (method,) = (line for line in lines if line.startswith('method '))
  assert "'relief'" in method and "'fedavg'" in method  # its choices


def test_keys_are_found_by_name_pattern_and_meaning():
  assert list(keys.find('hparams.*')) == [
    key for key in config_flags.rows() if key.startswith('hparams.')
  ]
  assert 'hparams.client_lr' in keys.find('--config.hparams.client_lr')
  assert list(keys.find('share of the values cut off')) == ['trim']
  with pytest.raises(InputError, match='no key with'):
    keys.find('no such thing')


# -- Cache -----------------------------------------------------------------


def test_the_cache_is_told_and_cleared_by_part(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  home = tmp_path / 'relief_jax'
  for name in ('parsed/a.npz', 'dsads/data/b.txt', 'own/c.txt'):
    (home / name).parent.mkdir(parents=True)
    (home / name).write_bytes(bytes(2_000_000))
  parsed, data = cache.account(['parsed', 'data'])
  assert parsed.split() == ['parsed', '1', 'files', '2.0', 'MB']
  assert data.split() == ['data', '1', 'files', '2.0', 'MB']
  assert cache.account(['parsed'], clear=True)[0].endswith('removed')
  assert not (home / 'parsed').exists() and (home / 'dsads').exists()
  cache.account(list(cache.PARTS), clear=True)
  assert [path.name for path in home.iterdir()] == ['own']
  with pytest.raises(InputError, match="the part 'own'"):
    cache.account(['own'], clear=True)
  assert cache.compiled('auto') == home / 'compiled'
  assert cache.compiled('there') == pathlib.Path('there')


# -- Plans -----------------------------------------------------------------


def test_the_plan_of_a_run(tmp_path, capsys):
  folder = tmp_path / 'run'
  config, lines = plan.of_run(tiny.config(rounds=7, eval_every=2), folder)
  found = dict(lines)
  assert config.dataset == 'synthetic' and config.fill == 'skip'  # resolved
  assert found['devices'].startswith('6, 6 a round')
  assert found['rounds'] == '7, tested 4 times after the start'
  assert found['workdir'] == f'{folder}, new'
  assert not folder.exists()
  plan.show((config, lines))
  out = capsys.readouterr().out
  assert '--config.rounds=7\n' in out and '--config.hparams.client_lr=' in out


def test_the_plan_tells_how_a_folder_stands(fake, tmp_path):
  config = identity.resolved(tiny.config(rounds=4))
  runner.run(config, tmp_path)
  said = plan._state(tmp_path, config, None)
  assert said == f'{tmp_path}, complete: nothing is left to do'
  config.rounds = 6
  said = plan._state(tmp_path, config, None)
  assert said == f'{tmp_path}, complete: goes on with --resume'


def test_the_plan_of_a_comparison(tmp_path):
  from experiments.configs import compare

  config = compare.get_config('smoke')
  jobs = campaign.of_comparison(config, tmp_path / 'many').jobs
  found = dict(plan.of_campaign(config, jobs, tmp_path / 'many', 3)[1])
  assert found['runs'] == '12: 12 waiting'
  assert found['labels'].startswith('6: fedavg, fedavg_skip, ')
  assert found['seeds'] == '0, 1' and found['workers'] == '3'
  assert found['rounds'] == '2 a run, 24 in all'
  assert not (tmp_path / 'many').exists()


# -- Flags and messages ----------------------------------------------------


def test_a_run_without_a_folder_is_named_after_its_config(monkeypatch, capsys):
  own = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', own)
  flags.DEFINE_string('workdir', None, '', flag_values=own)
  flags.DEFINE_string('config', None, '', flag_values=own)
  own(['x', '--config=a'])
  at = 'x/relief.py:best,lora'
  monkeypatch.setattr(command, 'get_config_filename', lambda _: at)
  assert command.workdir() == pathlib.Path('runs/relief_best_lora')
  assert command.workdir('-sweep').name == 'relief_best_lora-sweep'
  assert 'to runs/relief_best_lora (--workdir)\n' in capsys.readouterr().out
  at = 'x/from_json.py:runs/a/config.json'
  with pytest.raises(InputError, match='config.json without --workdir'):
    command.workdir()
  own.workdir = 'there'
  assert command.workdir() == pathlib.Path('there')
  own.config = None
  with pytest.raises(InputError, match='no config'):
    command.config()


def test_try_is_short_for_a_comparison(monkeypatch):
  begun = []
  monkeypatch.setattr(main, 'start', begun.append)
  monkeypatch.setattr('sys.argv', ['bin/relief', 'try', '--workdir=a'])
  main.main()
  assert begun == ['compare']
  assert invocation.command_line() == 'relief compare try --workdir=a'
  path = pathlib.Path(config_lookup.find('try'))
  own = runpy.run_path(str(path))['get_config']()
  found = campaign.of_comparison(own, pathlib.Path('x'))
  assert found.baseline == 'fedavg'
  assert len(found.jobs) == 3 * len({job.label for job in found.jobs}) == 9


def test_hints_have_no_prefix(monkeypatch, capsys):
  """While flags are read, too: absl has a lot to say before them."""
  ours = logging.getLogger('relief_jax')
  monkeypatch.setattr(ours, 'handlers', [])
  monkeypatch.setattr(ours, 'propagate', True)
  output.plain_hints()
  logging.getLogger('relief_jax.plugins').warning('importing %s', 'a')
  assert capsys.readouterr() == ('', 'importing a\n')


def test_a_config_that_is_not_named_is_asked_for(monkeypatch):
  own = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', own)
  flags.DEFINE_string('config', None, '', flag_values=own)
  flags.DEFINE_bool('resume', False, '', flag_values=own)
  found = command._named(['x', '--config.fusion_norm', 'relief', '--resume'])
  assert found == ['x', '--config=relief', '--config.fusion_norm', '--resume']
  given = ['x', '--config=relief', 'fedavg']
  assert command._named(given) == given  # told as stray later
  with pytest.raises(InputError, match='no config'):
    command._named(['x', '--config.rounds', '3'])


def test_a_folder_names_the_config_of_what_is_in_it(monkeypatch, tmp_path):
  own = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', own)
  flags.DEFINE_string('config', None, '', flag_values=own)
  flags.DEFINE_string('workdir', None, '', flag_values=own)
  argv = ['x', f'--workdir={tmp_path}', '--config.rounds=3']
  with pytest.raises(InputError, match='no config'):
    command._named(argv)
  (tmp_path / 'config.json').write_text('{}')
  found = f'--config={tmp_path / "config.json"}'
  assert command._named(argv) == ['x', found, *argv[1:]]
  apart = ['x', '--workdir', str(tmp_path)]
  assert command._named(apart) == ['x', found, *apart[1:]]
  named = command._named([*argv, 'relief'])
  assert named[1] == '--config=relief'
