"""How fast is a round of transformers, by layout, beside a PyTorch loop?

python -m benchmarks.transformer_round [--models=full,lora]
  [--layouts=one@2,block:8@2,all@1] [--torch_python=…] [--repeats=5] [--smoke]

The sensor workload of round_throughput.py with the preset `sensor`, 64 clients;
cohort mean, so that nobody computes a sensor that it lacks. Every case is a
process of its own that runs a round in its turn while the others wait. Prints a
JSON line per case: clients per second (median of the turns), GFLOP/s of useful
work, and the ratio of its clients per second to PyTorch's in the same turn
(median and range), where `--torch_python` names an interpreter with torch.
"""

import json
import os
import pathlib
import statistics
import sys
from typing import Any

from absl import flags

from benchmarks import turns
from relief_jax.cli import command

_MODELS = flags.DEFINE_list('models', ['full', 'lora'], 'full, lora')
_LAYOUTS = flags.DEFINE_list(
  'layouts', ['one@2', 'block:8@2', 'all@1'], 'layout@devices'
)
_TORCH = flags.DEFINE_string('torch_python', None, 'interpreter with torch')
_CORES = flags.DEFINE_integer('cores', 2, 'processes of the PyTorch loop')
_CLIENTS = flags.DEFINE_integer('clients', 64, 'in the round')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'turns, a round of each case')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')

_ROOT = pathlib.Path(__file__).parents[1]
_WORKLOADS = {'full': 'transformer', 'lora': 'transformer_lora'}


def job(model: str, case: str) -> turns.Job:
  """Starts the process of a case, `torch` or a layout@devices."""
  env = {**os.environ, 'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': 'cpu'}
  shared = [f'--clients={_CLIENTS.value}'] + ['--smoke'] * _SMOKE.value
  if case == 'torch':
    env |= {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    given = [str(_TORCH.value), '-m', 'benchmarks.peers.transformer_torch']
    given += [f'--model={model}', f'--cores={_CORES.value}']
    given.append(f'--rounds={_REPEATS.value}')
  else:
    layout, devices = case.split('@')
    given = [sys.executable, '-m', 'benchmarks.round_throughput']
    given += [f'--workload={_WORKLOADS[model]}', f'--layout={layout}']
    given += [f'--devices={devices}', f'--repeats={_REPEATS.value}']
  return turns.Job([*given, *shared], env=env, cwd=_ROOT)


def compare(model: str) -> list[dict[str, Any]]:
  """Times the cases of a model, a line each."""
  cases = [*_LAYOUTS.value, *(['torch'] if _TORCH.value else [])]
  jobs = {case: job(model, case) for case in cases}
  seconds: dict[str, list[list[float]]] = {case: [] for case in cases}
  lines = {}
  try:
    for one in jobs.values():  # compiles
      one.round()
    for turn in range(_REPEATS.value):
      for case in turns.order(cases, turn):
        seconds[case].append([jobs[case].round()])
    for case, one in jobs.items():
      lines[case] = one.line()
  finally:
    for one in jobs.values():
      one.end()
  return [told(model, case, lines[case], seconds) for case in cases]


def told(model, case, line, seconds) -> dict[str, Any]:
  """Makes the line of a case."""
  middle = statistics.median(s for (s,) in seconds[case])
  found = {
    'benchmark': 'transformer_round',
    'model': model,
    'case': case,
    'clients': _CLIENTS.value,
    'median_seconds': middle,
    'min_seconds': min(s for (s,) in seconds[case]),
    'clients_per_second': _CLIENTS.value / middle,
  }
  if 'useful_gflop' in line:
    found['gflop_per_second'] = line['useful_gflop'] / middle
  if 'torch' in seconds and case != 'torch':
    ratio = turns.ratio(seconds['torch'], seconds[case])
    found['over_torch'] = ratio.median
    found['over_torch_range'] = [ratio.least, ratio.most]
  return found


def main(argv) -> None:
  """Compares the cases of every model."""
  del argv
  for model in _MODELS.value:
    for line in compare(model):
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
