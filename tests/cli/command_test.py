"""The door of every command: arguments, paths, configs, signals, printing."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from relief_jax import config as config_lib
from relief_jax import datasets
from relief_jax.cli import arguments, command, config_lookup
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.online import presence
from relief_jax.storage import naming, stop
from relief_jax.world.fleets import tier_names
from tests.support.paths import ROOT

KNOWN = ('config', 'workdir', 'resume')


def python(*args, **options):
  """A process that prints; CPU only."""
  return subprocess.Popen(
    [sys.executable, *args],
    stdout=options.pop('stdout', subprocess.PIPE),
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT), **options.pop('env', {})},
    **options,
  )


# -- Arguments -------------------------------------------------------------


@pytest.mark.parametrize(
  ('argv', 'cure'),
  [
    (['config.rounds=3'], 'write --config.rounds=3'),
    (['sweep.seed=0:2'], 'write --sweep.seed=0:2'),
    (['workdir', 'a'], 'write --workdir=a'),
    (['\u2014resume'], 'write --resume'),
    (['--resume', 'false'], 'write --resume=false'),
    (['--sweep.lr=.1', '.2', '.3', '--resume'], "'--sweep.lr=.1,.2,.3'"),
    (['--sweep.lr=.1,', '.2'], "'--sweep.lr=.1,.2'"),
    (['--workdir=my', 'runs'], "'--workdir=my runs' in quotes"),
    ([''], 'the variable that it came from'),
  ],
)
def test_the_spelling_that_was_meant_is_told(argv, cure):
  rest = [arg for arg in argv if not arg.startswith('--')]
  found, _, told = arguments.stray(rest, ['command', *argv], KNOWN)
  assert repr(rest[0]) in found and cure in told


@pytest.mark.slow
def test_no_command_ignores_an_argument(tmp_path):
  run = ['--config=relief:smoke', f'--workdir={tmp_path}/run']
  every = {
    'experiments.main': run,
    'experiments.compare': ['--config=compare:smoke', run[1]],
    'experiments.sweep': [*run, '--sweep.seed=0:2'],
    'experiments.inspect': run,
    'experiments.report': [],
    'experiments.profile_device': [f'--out={tmp_path}/a.json'],
    'benchmarks.layouts': ['--smoke'],
    'benchmarks.peers': ['--smoke'],
    'experiments.check_data': ['a.npz', 'b.npz'],
    'experiments.robustness': ['a', 'b'],
  }
  jobs = {
    name: python('-m', name, *flags, 'out=3', cwd=tmp_path)
    for name, flags in every.items()
  }
  for name, job in jobs.items():
    _, err = job.communicate(timeout=300)
    assert job.returncode == 2, (name, err)
    assert 'error: ' in err and 'Traceback' not in err, (name, err)
  assert not list(tmp_path.iterdir())


def test_operands_that_are_flags_are_found():
  assert arguments.looks_like_a_flag('out=a', ['out']) == '--out=a'
  assert not arguments.looks_like_a_flag('runs/a', ['out'])
  assert not arguments.looks_like_a_flag('lr=.1', ['out'])  # a folder's name


# -- Commands --------------------------------------------------------------


def test_all_commands_can_be_imported_and_pyplot_stays_as_it_was(tmp_path):
  code = """
import sys, matplotlib
matplotlib.use('svg')
from relief_jax.cli import (compare, inspect, main, profile_device, report,
  robustness, run, select, sweep)
assert matplotlib.get_backend() == 'svg'
assert 'matplotlib.pyplot' not in sys.modules
from absl import flags
assert 'workdir' not in flags.FLAGS
"""
  job = python('-c', code, cwd=tmp_path)
  assert job.communicate(timeout=120)[1] == '' and job.returncode == 0


@pytest.mark.slow
def test_the_console_command_is_shadowed_by_no_folder(tmp_path):
  # A folder with an experiments/ of its own, as research projects have.
  (tmp_path / 'experiments').mkdir()
  (tmp_path / 'experiments' / '__init__.py').touch()
  start = 'import sys; sys.argv[0] = "relief"; sys.path.pop(0); '
  start += 'from relief_jax.cli import main; main.main()'
  args = ('report', 'runs/none')
  job = python('-c', start, *args, cwd=tmp_path)
  _, err = job.communicate(timeout=120)
  assert job.returncode == 2 and 'no folder runs/none' in err


def test_shipped_configs_have_names_everywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shipped = str(ROOT / 'experiments' / 'configs' / 'relief.py')
  for name in ('relief', 'relief.py', 'experiments/configs/relief.py'):
    assert config_lookup.find(name) == shipped
    assert config_lookup.find(f'{name}:smoke') == f'{shipped}:smoke'
  assert 'common' not in config_lookup.names()
  with pytest.raises(InputError, match='relief, .*they lie in'):
    config_lookup.find('releif')
  own = tmp_path / 'relief.py'
  own.touch()  # one's own file comes first
  assert config_lookup.find('relief.py') == 'relief.py'
  monkeypatch.setenv('HOME', str(tmp_path))
  assert config_lookup.find('~/relief.py:a,b') == f'{own}:a,b'
  (tmp_path / 'config.json').write_text('{}')
  assert config_lookup.find('~/config.json').endswith(
    f':{own.parent}/config.json'
  )
  with pytest.raises(InputError, match='no variants'):
    config_lookup.find('config.json:smoke')


# -- Paths -----------------------------------------------------------------


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert paths.expand('~/a', 'x') == str(tmp_path / 'a')
  assert paths.expand(pathlib.Path('~'), 'x') == str(tmp_path)
  assert paths.expand('./~', 'x') == './~'
  for wrong in ('', ' ', '~nobody-of-this-name/a'):
    with pytest.raises(InputError, match='--workdir='):
      paths.expand(wrong, '--workdir')


def test_so_it_is_in_every_key_of_the_config(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'board.json').write_text('{"speed_gflops": 1}')
  (tmp_path / 'fleet.csv').write_text(
    'name,share,sensors,device\nband,100,all,jetson_nano\n'
  )
  assert tier_names('~/fleet.csv') == ('band',)
  (tmp_path / 'trace.csv').write_text('1,0\n')
  assert presence.read('~/trace.csv').tolist() == [[True, False]]
  (tmp_path / 'data').mkdir()
  assert datasets.find_data_dir('~/data') == tmp_path / 'data'
  monkeypatch.setenv('RELIEF_DATA_DIR', '~/data')
  assert datasets.find_data_dir(None) == tmp_path / 'data'
  c = config_lib.default()
  c.dataset, c.data_path = 'npz', '~/mine.npz'
  assert datasets.stamp(c) == []
  (tmp_path / 'mine.npz').touch()
  assert datasets.stamp(c)
  parser = command._Path('workdir')
  assert parser.parse('~/run') == str(tmp_path / 'run')
  with pytest.raises(InputError, match="--workdir=''"):
    parser.parse('')


def test_a_trace_that_nobody_would_read_is_refused():
  c = config_lib.default().online.presence
  c.path = 'trace.csv'
  with pytest.raises(InputError, match='kind=trace'):
    presence.draw(c, 3, None)


# -- Signals ---------------------------------------------------------------


@pytest.mark.parametrize('number', stop.signals(), ids=lambda s: s.name)
def test_every_way_to_ask_for_an_end_is_heard_once(number):
  before = signal.getsignal(number)
  with stop.Stop() as found:
    os.kill(os.getpid(), number)
    assert found.requested
    assert signal.getsignal(number) == before  # a second one acts as ever


def test_a_closed_terminal_is_among_them_but_not_under_nohup():
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  try:
    names = {s.name for s in stop.signals()}
    assert {'SIGHUP', 'SIGINT', 'SIGTERM'} <= names
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in stop.signals()
  finally:
    signal.signal(signal.SIGHUP, before)


# -- Printing --------------------------------------------------------------

# By path: importing the library takes longer than this.
SET_UP = f"""
import runpy, sys
runpy.run_path({str(ROOT / 'relief_jax' / 'files' / 'output.py')!r})['set_up']()
print('90 % – done')
for _ in range(20000): print('line', flush=True)
print('at the end', file=sys.stderr)
"""


def test_what_cannot_be_shown_is_replaced():
  job = python('-c', SET_UP, env={'PYTHONIOENCODING': 'latin-1'})
  out, err = job.communicate(timeout=60)
  assert job.returncode == 0 and err == 'at the end\n'
  assert out.startswith('90 % ? done\n')


def test_a_reader_that_has_gone_ends_nothing():
  job = python('-c', SET_UP)
  assert job.stdout.readline().startswith('90')
  job.stdout.close()
  assert job.stderr.read() == 'at the end\n' and job.wait(60) == 0


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no full device')
def test_a_full_disk_behind_the_output_is_told_once():
  with open('/dev/full', 'w') as full:
    job = python('-c', SET_UP, stdout=full)
  _, err = job.communicate(timeout=60)
  assert job.returncode == 0 and err.count('No space left') == 1
  assert err.endswith('at the end\n')


# -- Names -----------------------------------------------------------------


def test_long_names_are_cut_and_kept_apart():
  one, other = (naming.fit('lr=' + '0' * 300 + end) for end in 'ab')
  assert one != other and one == naming.fit('lr=' + '0' * 300 + 'a')
  assert len(naming.fit('é' * 300).encode()) <= naming.MOST
  assert len(naming.file_name('a' * 300, 'f1').encode()) <= naming.MOST
  for wrong in ('', '../a', 'a//b', '/a', 'a' * 300):
    with pytest.raises(InputError, match='the label'):
      naming.check_label(wrong)
  naming.check_label('cnn/best/relief')
