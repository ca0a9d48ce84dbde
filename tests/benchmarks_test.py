"""Every benchmark's smoke preset runs and prints what readers rely on."""

import json
import os
import subprocess
import sys

import pytest

CASES = {
  'clients_scaling': ['--clients=8', '--cohort=2'],
  'compile_time': ['--methods=relief'],
  'devices_scaling': ['--clients=8', '--devices=2'],
  'layouts': ['--clients=8', '--layouts=one@2', '--methods=relief'],
  'processes_scaling': ['--cases=2x1', '--repeats=1'],
  'round_throughput': ['--clients=8', '--devices=1'],
  'sweep_throughput': ['--seeds=1', '--rates=2', '--rounds=2', '--devices=2'],
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
  cases = [json.loads(line) for line in done.stdout.splitlines()]
  assert cases and all(case['benchmark'] == name for case in cases)
  assert not any(case.get('failed') for case in cases)
  if name == 'compile_time':
    assert [case['compiles'] for case in cases] == [1, 1, 0]
    return
  if name == 'sweep_throughput':
    assert [case['points'] for case in cases] == [2, 2]
    assert cases[1]['largest_f1_difference'] < 1e-6
    return
  (case,) = cases
  number = case.get('cohort', case['clients'])
  rate = number / case['median_seconds']
  assert case['clients_per_second'] == pytest.approx(rate)
  assert case['min_seconds'] <= case['median_seconds']
  if name == 'layouts':
    assert case['compiles'] == 1
    assert case['layout'] == 'one on 2 device(s)'
  if name == 'processes_scaling':
    assert case['layout'] == 'one on 2 device(s) of 2 processes'
