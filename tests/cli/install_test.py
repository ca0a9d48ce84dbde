"""The wheel: what it holds, and that it works away from the checkout."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import relief_jax
from tests.support.paths import ROOT

SOURCES = ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')
NEEDED = 77  # version of setuptools, as pyproject.toml says


def pip(*args):
  done = subprocess.run(
    [sys.executable, '-m', 'pip', '--disable-pip-version-check', *args],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel of this checkout, built without a network."""
  if not importlib.util.find_spec('pip'):
    pytest.skip('no pip in this environment')
  try:
    version = importlib.metadata.version('setuptools')
  except importlib.metadata.PackageNotFoundError:
    version = '0'
  if int(version.partition('.')[0]) < NEEDED:
    pytest.skip(
      f'a wheel needs setuptools>={NEEDED} here, found {version}: '
      "pip install -e '.[dev]'"
    )
  work = tmp_path_factory.mktemp('wheel')
  source = work / 'source'  # a build leaves files beside the sources
  for folder in ('relief_jax', 'experiments'):
    shutil.copytree(
      ROOT / folder,
      source / folder,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  for name in SOURCES:
    shutil.copy(ROOT / name, source / name)
  pip(
    *('wheel', '--no-deps', '--no-build-isolation', '--no-index'),
    *('--wheel-dir', str(work), str(source)),
  )
  (found,) = work.glob('*.whl')
  return found


@pytest.mark.slow
def test_the_wheel_has_one_package_and_every_file(wheel):
  assert wheel.name.startswith(f'relief_jax-{relief_jax.__version__}-')
  names = zipfile.ZipFile(wheel).namelist()
  tops = {name.partition('/')[0] for name in names}
  assert {top for top in tops if not top.endswith('.dist-info')} == {
    'relief_jax'
  }
  there = {
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob('relief_jax/**/*.py')
  }
  configs = ROOT / 'experiments' / 'configs'
  there |= {f'relief_jax/configs/{path.name}' for path in configs.glob('*.py')}
  assert {name for name in names if name.endswith('.py')} == there


def test_the_newest_changes_are_of_this_version():
  text = (ROOT / 'CHANGELOG.md').read_text()
  newest = re.search(r'(?m)^## (\d+\.\d+\.\d+)', text)
  assert newest and newest[1] == relief_jax.__version__


@pytest.mark.slow
def test_it_works_beside_an_experiments_folder_of_ones_own(wheel, tmp_path):
  target, project = tmp_path / 'installed', tmp_path / 'project'
  pip(
    *('install', '--no-deps', '--no-index', '--quiet'),
    *('--target', str(target), str(wheel)),
  )
  own = project / 'experiments'
  own.mkdir(parents=True)
  (own / '__init__.py').write_text('raise RuntimeError("the user\'s own")\n')
  env = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([str(project), str(target)]),
    'JAX_PLATFORMS': 'cpu',
    'XDG_CACHE_HOME': str(tmp_path / 'cache'),
  }

  def python(*args):
    done = subprocess.run(
      [sys.executable, *args],
      cwd=project,
      env=env,
      capture_output=True,
      text=True,
      timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  relief = str(target / 'bin' / 'relief')
  assert python(relief, '--version').startswith('relief_jax ')
  where = 'from relief_jax.cli import config_lookup as c; print(c.folder())'
  assert python('-c', where).strip() == str(target / 'relief_jax' / 'configs')
  assert 'hparams.client_lr' in python(relief, 'keys', 'client_lr')
  out = python(
    *(relief, 'run', 'fedavg:smoke', '--config.rounds=1'),
    *('--config.layout=one', '--config.devices=1'),
  )
  assert 'complete after round 1' in out
  run = project / 'runs' / 'fedavg_smoke'
  assert json.loads((run / 'summary.json').read_text())['status'] == 'complete'
