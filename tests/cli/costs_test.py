"""`relief costs`: what it prints, what it writes and what it refuses."""

import os
import pathlib
import subprocess
import sys

import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = (
  '--config.dataset=synthetic',
  '--config.clients=8',
  '--config.rounds=30',
  '--config.data.width=16',
)


def command(*args, cwd):
  """Runs the command as a shell would."""
  code = "import sys; sys.argv[0] = 'relief'; "
  code += 'from relief_jax.cli import main; main.main()'
  return subprocess.run(
    [sys.executable, '-c', code, 'costs', *args],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.slow
def test_a_line_for_each_round_and_each_device(tmp_path):
  flags = ('--out=rounds.csv', '--devices=devices.csv')
  done = command('fedavg', *TINY, *flags, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  rounds = pd.read_csv(tmp_path / 'rounds.csv')
  devices = pd.read_csv(tmp_path / 'devices.csv')
  assert list(rounds['round']) == list(range(1, 31))
  assert len(devices) == 8 and (devices.rounds == 30).all()
  assert devices.joules.sum() == pytest.approx(rounds.joules.sum())
  assert '30 rounds take' in done.stdout and 'low' in done.stdout


@pytest.mark.slow
def test_what_it_refuses(tmp_path):
  for flags, told in (
    (('relief', *TINY), "'relief', which decides by what was trained"),
    (('fedavg', *TINY, '--out=no/rounds.csv'), '--out=no/rounds.csv'),
    (('fedavg', *TINY, '--devices=rounds.txt'), '--devices=rounds.txt'),
  ):
    done = command(*flags, cwd=tmp_path)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert 'Traceback' not in done.stderr
  assert not list(tmp_path.iterdir())
