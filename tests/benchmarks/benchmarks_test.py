"""Every benchmark's smoke preset runs and prints what readers rely on."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import turns

CASES = {
  'clients_scaling': ['--clients=8', '--cohort=2', '--turns=1'],
  'devices_scaling': ['--clients=8', '--counts=2', '--turns=1'],
  'layouts': ['--clients=8', '--layouts=one@2', '--methods=relief'],
  'processes_scaling': ['--cases=2x1', '--repeats=1'],
  'round_throughput': ['--clients=8', '--devices=1'],
  'transformer_round': [
    '--clients=8',
    '--models=lora',
    '--layouts=one@1',
    '--repeats=1',
  ],
}


def smoke(name, *args):
  """The JSON lines of a benchmark's smoke preset."""
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{name}', '--smoke', *args],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  cases = [json.loads(line) for line in done.stdout.splitlines()]
  assert cases and {case['benchmark'] for case in cases} == {name}
  assert not any(case.get('failed') for case in cases)
  return cases


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_smoke(name):
  (case,) = smoke(name, *CASES[name])
  number = case.get('cohort', case['clients'])
  rate = number / case['median_seconds']
  assert case['clients_per_second'] == pytest.approx(rate)
  assert case['min_seconds'] <= case['median_seconds']
  if name == 'layouts':
    assert case['compiles'] == 1
    assert case['layout'] == 'one on 2 device(s)'
  if name == 'processes_scaling':
    assert case['layout'] == 'one on 2 device(s) of 2 processes'


@pytest.mark.slow
def test_costs_alone_grow_with_devices_and_rounds():
  few, many = smoke('time_only')
  assert (few['clients'], many['clients']) == (8, 16)
  for case in (few, many):
    each = 1e6 * case['run_seconds'] / (3 * case['clients'])
    assert case['microseconds_per_device_and_round'] == pytest.approx(each)
  assert 1.5 < many['joules'] / few['joules'] < 2.5


@pytest.mark.slow
@pytest.mark.parametrize('more', [(), ('--processor_time',)])
def test_predicted_over_measured_adds_up(more):
  *models, whole = smoke('predicted', *more)
  assert [m['model'] for m in models] == ['cnn, one sensor', 'cnn, small']
  for model in models:
    seconds = model['flops'] / whole['speed']
    assert model['predicted_seconds'] == pytest.approx(seconds)
    assert model['ratio'] == pytest.approx(seconds / model['measured_seconds'])
  first, second = (model['ratio'] for model in models)
  mean = (first * second) ** 0.5
  assert whole['geometric_mean_ratio'] == pytest.approx(mean)
  factor = max(max(r, 1 / r) for r in (first, second))
  assert whole['largest_factor'] == pytest.approx(factor)
  assert abs(whole['spearman']) == pytest.approx(1)


def test_a_job_runs_rounds_when_asked_and_tells_why_it_ended(tmp_path):
  script = tmp_path / 'case.py'
  script.write_text(
    'import json, sys\n'
    'from absl import app\n'
    'from benchmarks import turns\n'
    'def one_round():\n'
    '  print("a round")\n'
    'def main(argv):\n'
    '  seconds = turns.timed(one_round, 2)\n'
    '  print(json.dumps({"rounds": len(seconds)}), flush=True)\n'
    '  sys.exit("enough of it")\n'
    'app.run(main)\n'
  )
  env = {**os.environ, 'PYTHONPATH': os.getcwd()}
  job = turns.Job([sys.executable, str(script)], timeout=60, env=env)
  try:
    for _ in range(3):
      assert 0 <= job.round() < 60
    assert job.line() == {'rounds': 2}
    with pytest.raises(turns.Ended, match='enough of it'):
      job.round()
  finally:
    job.end()
  with pytest.raises(turns.Ended, match='No such file'):
    turns.Job([str(tmp_path / 'nowhere')])
  asleep = [sys.executable, '-c', 'import time; time.sleep(600)']
  job = turns.Job(asleep, timeout=0.5)
  with pytest.raises(turns.Ended, match='exit code -9'):
    job.round()
  job.end()


def test_up_the_list_and_down_again():
  assert [turns.order('abc', turn) for turn in range(3)] == [
    ['a', 'b', 'c'],
    ['c', 'b', 'a'],
    ['a', 'b', 'c'],
  ]


@pytest.mark.slow
def test_compile_time():
  cases = smoke('compile_time', '--methods=relief')
  assert [case['compiles'] for case in cases] == [1, 1, 0]


@pytest.mark.slow
def test_operations():
  (case,) = smoke('operations', '--top=3', '--clients=8')
  assert sum(case['shares'].values()) == pytest.approx(1)
  assert case['shares']['products'] > 0.1
  assert len(case['longest']) == 3


@pytest.mark.slow
def test_sweep_throughput():
  args = ['--seeds=1', '--rates=2', '--rounds=2', '--devices=2']
  cases = smoke('sweep_throughput', *args)
  assert [case['points'] for case in cases] == [2, 2]
  assert cases[1]['largest_f1_difference'] < 1e-6


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_with_the_same_tables(tmp_path):
  args = ['--rates=1', '--seeds=3', '--rounds=30', '--workers=2']
  whole, killed = smoke('sweep_resume', *args, f'--workdir={tmp_path}')
  for case in (whole, killed):
    assert case['points'] == case['complete'] == 6
    assert case['exit'] == 0
  assert killed['same_tables']
  assert max(killed['half_finished_when_killed']) > 0


@pytest.mark.slow
def test_building_a_world():
  (case,) = smoke('build_world', '--case=subject@0.5')
  assert (case['clients'], case['partition']) == (50, 'subject')
  assert case['windows'] >= 20 * 50
  assert case['seconds'] >= 0 and case['peak_mb'] >= case['start_mb'] > 0


@pytest.mark.slow
def test_parsing(tmp_path):
  cases = smoke('parsing', f'--workdir={tmp_path}')
  assert [(case['data'], case['from']) for case in cases] == [
    (name, source)
    for name in ('pamap2', 'mhealth')
    for source in ('text', 'cache')
  ]
  for text, cached in (cases[:2], cases[2:]):
    assert text['windows'] == cached['windows'] > 0
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_conv_lowering():
  cases = smoke('conv_lowering')
  assert [c['form'] for c in cases[-2:]] == ['ours', 'vmapped']
  assert max(c['largest_difference'] for c in cases) < 1e-6
  for case in cases:
    assert 0 < case['min_ms_per_step'] <= case['median_ms_per_step']


@pytest.mark.slow
def test_expert_dispatch():
  cases = smoke('expert_dispatch')
  assert [c['form'] for c in cases[:2]] == ['loop', 'product']
  assert max(c['largest_difference'] for c in cases) < 1e-5
  for case in cases:
    assert 0 < case['min_ms_per_step'] <= case['median_ms_per_step']


@pytest.mark.slow
def test_roofline():
  args = ['--clients=8', '--devices=2', '--workload=sensor,lora,lora_cached']
  cases = smoke('roofline', *args, '--repeats=2')
  assert [c['workload'] for c in cases] == ['sensor', 'lora', 'lora_cached']
  # The simulated device runs the frozen encoders, cached here or not.
  assert cases[0]['useful_gflop'] > cases[1]['useful_gflop']
  assert cases[1]['useful_gflop'] == cases[2]['useful_gflop']
  for case in cases:
    assert case['min_share'] <= case['share'] <= case['max_share']


@pytest.mark.slow
def test_own_model():
  cases = smoke('own_model', '--clients=8', '--devices=1')
  models, ratios = cases[:2], cases[2:]
  assert [case['workload'] for case in models] == ['sensor', 'flax']
  assert [case['clock'] for case in ratios] == ['wall', 'cpu']
  assert all(case['flax_over_built_in']['median'] > 0 for case in ratios)
