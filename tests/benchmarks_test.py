"""Every benchmark's smoke preset runs and prints what readers rely on."""

import json
import os
import subprocess
import sys

import pytest

CASES = {
  'layouts': ['--clients=8', '--layouts=one@2', '--methods=relief'],
  'round_throughput': ['--clients=8', '--devices=1'],
}


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_smoke(name):
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{name}', '--smoke', *CASES[name]],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  (line,) = done.stdout.splitlines()
  case = json.loads(line)
  assert case['benchmark'] == name
  rate = case['clients'] / case['median_seconds']
  assert case['clients_per_second'] == pytest.approx(rate)
  assert case['min_seconds'] <= case['median_seconds']
  if name == 'layouts':
    assert case['compiles'] == 1
    assert case['layout'] == 'one on 2 device(s)'
