"""The script for one GPU: every part runs, whatever becomes of the others."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / 'benchmarks' / 'gpu.sh'
PARTS = re.findall(r'^ *part "?([a-z0-9_]+)', SCRIPT.read_text(), re.M)
# Stands for Python: takes a note of the command and fails in one part.
STUB = """#!/bin/sh
echo "$@" >> "$NOTES"
case "$*" in *lora_cached*) exit 3;; esac
echo '{"benchmark": "stub"}'
"""


def run(*args, **environment):
  done = subprocess.run(
    ['bash', str(SCRIPT), *args],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
  )
  return done, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def stub(tmp_path):
  path = tmp_path / 'python'
  path.write_text(STUB)
  path.chmod(0o755)
  return {'PYTHON': str(path), 'NOTES': str(tmp_path / 'notes')}


@pytest.mark.parametrize('args', [['--smoke'], []])
def test_a_part_that_fails_says_so_and_the_others_go_on(stub, args, tmp_path):
  done, lines = run(*args, **stub)
  assert done.returncode == 1
  (failed,) = [line for line in lines if line.get('failed')]
  assert (failed['part'], failed['exit_code']) == ('lora_cached', 3)
  notes = (tmp_path / 'notes').read_text().splitlines()
  commands = [line for line in notes if '-m benchmarks' in line]
  # All but pfl-research's side, and three layouts of the sensor round.
  assert len(commands) == len(PARTS) - 1 + 2
  assert all(('--smoke' in line) == bool(args) for line in commands)
  assert any(f'--rounds={2 if args else 1500} ' in line for line in commands)


def test_a_folder_of_data_and_the_other_simulator(stub, tmp_path):
  _, lines = run('--smoke', '/some data', PFL_PYTHON=stub['PYTHON'], **stub)
  notes = (tmp_path / 'notes').read_text()
  assert '--data_dir=/some data' in notes and 'public_pfl' in notes
  assert len([line for line in lines if 'stub' in line['benchmark']]) > 9


def test_all_parts_take_ten_minutes_at_most():
  text = SCRIPT.read_text()
  limits = dict(re.findall(r'^ *part "?([a-z0-9_]+)\S* (\d+)', text, re.M))
  assert list(limits) == PARTS
  del limits['cifar10_pfl']
  sensor = int(limits['sensor_'])
  assert sum(map(int, limits.values())) + 2 * sensor <= 600


@pytest.mark.slow
def test_smoke():
  done, lines = run('--smoke', PYTHON=sys.executable)
  assert done.returncode == 0, done.stderr[-2000:]
  for line in lines:
    assert line['device_kind'] and line['peak_memory_mbytes'] > 0, line
  shares = [line for line in lines if 'share' in line]
  assert len(shares) == 7


@pytest.mark.slow
def test_plain_convolutions_encode_the_same_numbers():
  """In another order within an image."""
  import jax

  from benchmarks.peers import common, image_task

  setup = common.SETUPS['pfl_cifar10']
  params = image_task.init(jax.random.key(0), setup)['encoder']['image']
  x = jax.random.normal(jax.random.key(1), (3, *setup.shape))
  one = np.asarray(image_task.encode(params, x)).swapaxes(0, 1).reshape(3, -1)
  other = np.asarray(image_task.encode_plain(params, x))[0]
  np.testing.assert_allclose(np.sort(one), np.sort(other), rtol=0, atol=1e-4)
