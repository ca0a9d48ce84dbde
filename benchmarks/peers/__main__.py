"""How does the simulator compare with others on the same machine?

python -m benchmarks.peers --torch_python=… --pfl_python=… --fedjax_python=…
  --flower_python=… --blazefl_python=… [--workloads=…] [--repeats=5] [--smoke]

Every side runs in its own environment and process, one after the other, all of
them once per repeat, so that a ratio compares runs of the same minute. Prints
every side's JSON lines and then, per workload and side, the ratio of our
clients per second to theirs. A side without an interpreter is skipped.
README.md beside this file tells how to make the environments.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

from absl import app, flags

_PYTHONS = {
  side: flags.DEFINE_string(f'{side}_python', None, f'interpreter with {side}')
  for side in ('torch', 'pfl', 'fedjax', 'flower', 'blazefl')
}
_PUBLIC = ('pfl_cifar10', 'flute_lr_mnist', 'blazefl_cifar10')
_WORKLOADS = flags.DEFINE_list(
  'workloads', ['sensor', 'pfl_cifar10'], f'of sensor, {", ".join(_PUBLIC)}'
)
_SIDES = flags.DEFINE_list('sides', [], 'only these besides ours; all if empty')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'alternating runs of every side')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'timed rounds of a run')
_COHORT = flags.DEFINE_integer('cohort', 0, "clients per round, 0: workload's")
_CORES = flags.DEFINE_integer('cores', 2, 'cores, the same for all sides')
_TIMEOUT = flags.DEFINE_integer('timeout', 600, 'seconds of one run')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, once')

# Clients per round where the full cohort would take minutes on two cores.
_COHORTS = {'blazefl_cifar10': 4}
# Sides that share out one operation instead of running one worker per core.
_THREADED = ('pfl',)
_THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
_ROOT = pathlib.Path(__file__).parents[2]


def sides(workload: str) -> dict[str, tuple[str | None, str]]:
  """{side: (interpreter, module)}, ours first."""
  if workload == 'sensor':
    found = {
      'relief': (sys.executable, 'benchmarks.round_throughput'),
      'naive_vmap': (sys.executable, 'benchmarks.peers.sensor_naive_vmap'),
      'torch': (_PYTHONS['torch'].value, 'benchmarks.peers.sensor_torch'),
    }
    found['torch_im2col'] = found['torch']
  else:
    found = {'relief': (sys.executable, 'benchmarks.peers.public_relief')}
    for side, python in _PYTHONS.items():
      found[side] = (python.value, f'benchmarks.peers.public_{side}')
  wanted = {'relief', *_SIDES.value} if _SIDES.value else set(found)
  return {k: v for k, v in found.items() if k in wanted}


def arguments(workload: str, side: str) -> list[str]:
  """Flags of one run."""
  if side == 'relief' and workload == 'sensor':
    given = ['--workload=sensor', f'--devices={_CORES.value}']
    given.append(f'--repeats={_ROUNDS.value}')
    if _SMOKE.value:
      given += ['--smoke', '--clients=8']
    return given
  given = [f'--rounds={_ROUNDS.value}', f'--cores={_CORES.value}']
  if _SMOKE.value:
    given.append('--smoke')
  if workload == 'sensor':
    given += ['--form=im2col'] if side == 'torch_im2col' else []
    return given + (['--clients=8'] if _SMOKE.value else [])
  cohort = _COHORT.value or _COHORTS.get(workload, 0)
  return given + [f'--setup={workload}', f'--cohort={cohort}']


def run(workload: str, side: str, python: str | None, module: str) -> dict:
  """One run: the side's JSON line, or why there is none."""
  case = {'benchmark': 'peers', 'workload': workload, 'side': side}
  if not python:
    name = side.removesuffix('_im2col')
    return {**case, 'skipped': f'no --{name}_python given'}
  count = str(_CORES.value if side in _THREADED else 1)
  env = {**os.environ, 'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': 'cpu'}
  if side not in ('relief', 'naive_vmap', 'fedjax'):
    env |= dict.fromkeys(_THREADS, count)
  command = [python, '-m', module, *arguments(workload, side)]
  try:
    done = subprocess.run(
      command,
      capture_output=True,
      text=True,
      env=env,
      cwd=_ROOT,
      timeout=_TIMEOUT.value,
    )
  except (OSError, subprocess.TimeoutExpired) as error:
    return {**case, 'failed': str(error)}
  lines = [v for v in done.stdout.splitlines() if v.startswith('{"benchmark"')]
  if done.returncode or not lines:
    last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return {**case, 'failed': ''.join(last)}
  return {**json.loads(lines[-1]), **case}


def compare(workload: str, side: str, ours: list, theirs: list) -> dict:
  """Ratios of clients per second, repeat by repeat."""
  ratios = [a / b for a, b in zip(ours, theirs, strict=True) if a and b]
  case = {'benchmark': 'peers', 'workload': workload, 'ours_over': side}
  if not ratios:
    return {**case, 'skipped': 'no run of both sides'}
  return {
    **case,
    'median_ratio': statistics.median(ratios),
    'min_ratio': min(ratios),
    'max_ratio': max(ratios),
    'repeats': len(ratios),
    'ours': statistics.median([v for v in ours if v]),
    'theirs': statistics.median([v for v in theirs if v]),
  }


def main(argv) -> None:
  """All workloads; ratios follow each."""
  del argv
  for workload in _WORKLOADS.value:
    if workload not in ('sensor', *_PUBLIC):
      raise app.UsageError(f'unknown workload {workload!r}')
    team = sides(workload)
    rates: dict[str, list] = {side: [] for side in team}
    for repeat in range(1 if _SMOKE.value else _REPEATS.value):
      for side, (python, module) in team.items():
        line = run(workload, side, python, module)
        rates[side].append(line.get('clients_per_second'))
        print(json.dumps({**line, 'repeat': repeat}), flush=True)
        if 'skipped' in line or 'failed' in line:
          team = {k: v for k, v in team.items() if k != side}
    for side, found in rates.items():
      if side != 'relief':
        ours = rates['relief']
        missing = [None] * (len(ours) - len(found))
        result = compare(workload, side, ours, found + missing)
        print(json.dumps(result), flush=True)


if __name__ == '__main__':
  app.run(main)
