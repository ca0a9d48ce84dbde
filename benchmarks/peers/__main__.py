"""How does the simulator compare with others on the same machine?

python -m benchmarks.peers --torch_python=… --pfl_python=… --fedjax_python=…
  --flower_python=… --blazefl_python=… [--workloads=…] [--repeats=15] [--smoke]

Every side lives in its own environment and process. They set up one after the
other and then run one round each in turns, while all others wait, so that a
ratio compares rounds of the same half minute. Prints the seconds of every
round as it ends, in the end every side's JSON line and then, per workload and
side, the ratio of our clients per second to theirs. A side without an
interpreter is skipped. README.md beside this file tells how to make the
environments.
"""

import json
import os
import pathlib
import sys
from typing import Any

from absl import flags

from benchmarks import turns
from relief_jax.cli import command
from relief_jax.errors import unknown

_PYTHONS = {
  side: flags.DEFINE_string(f'{side}_python', None, f'interpreter with {side}')
  for side in ('torch', 'pfl', 'fedjax', 'flower', 'blazefl')
}
_IMAGES = ('pfl_cifar10', 'flute_cnn_femnist', 'blazefl_cifar10')
_PUBLIC = (*_IMAGES, 'flute_lr_mnist')
_WORKLOADS = flags.DEFINE_list(
  'workloads', ['sensor', 'pfl_cifar10'], f'of sensor, {", ".join(_PUBLIC)}'
)
_SIDES = flags.DEFINE_list('sides', [], 'only these besides ours; all if empty')
_REPEATS = flags.DEFINE_integer('repeats', 15, 'turns, a round of each side')
_COHORT = flags.DEFINE_integer('cohort', 0, "clients per round, 0: workload's")
_CORES = flags.DEFINE_integer('cores', 2, 'cores, the same for all sides')
_TIMEOUT = flags.DEFINE_integer('timeout', 600, 'seconds of one round')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, once')

# Clients per round where the full cohort would take minutes on two cores.
_COHORTS = {'blazefl_cifar10': 4}
# Sides that share out one operation instead of running one worker per core.
_THREADED = ('pfl',)
_THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
_ROOT = pathlib.Path(__file__).parents[2]


def sides(workload: str) -> dict[str, tuple[str | None, str]]:
  """Lists the sides, {side: (interpreter, module)}, ours first."""
  if workload == 'sensor':
    found = {
      'relief': (sys.executable, 'benchmarks.round_throughput'),
      'naive_vmap': (sys.executable, 'benchmarks.peers.sensor_naive_vmap'),
      'torch': (_PYTHONS['torch'].value, 'benchmarks.peers.sensor_torch'),
    }
    found['torch_im2col'] = found['torch']
  else:
    found = {'relief': (sys.executable, 'benchmarks.peers.public_relief')}
    if workload in _IMAGES:
      found['relief_config'] = (
        sys.executable,
        'benchmarks.peers.public_config',
      )
    for side, python in _PYTHONS.items():
      found[side] = (python.value, f'benchmarks.peers.public_{side}')
  wanted = {'relief', *_SIDES.value} if _SIDES.value else set(found)
  return {k: v for k, v in found.items() if k in wanted}


def arguments(workload: str, side: str, count: int) -> list[str]:
  """Builds the flags of a side that runs `count` rounds, after one dropped."""
  if side == 'relief' and workload == 'sensor':
    given = ['--workload=sensor', f'--devices={_CORES.value}']
    given.append(f'--repeats={count}')
    if _SMOKE.value:
      given += ['--smoke', '--clients=8']
    return given
  given = [f'--rounds={count}', f'--cores={_CORES.value}']
  if _SMOKE.value:
    given.append('--smoke')
  if workload == 'sensor':
    given += ['--form=im2col'] if side == 'torch_im2col' else []
    return given + (['--clients=8'] if _SMOKE.value else [])
  cohort = _COHORT.value or _COHORTS.get(workload, 0)
  return given + [f'--setup={workload}', f'--cohort={cohort}']


def begin(
  workload: str, side: str, python: str, module: str, count: int
) -> turns.Job:
  """Starts a side and waits for its first round; raises `turns.Ended`."""
  threads = str(_CORES.value if side in _THREADED else 1)
  env = {**os.environ, 'PYTHONPATH': str(_ROOT), 'JAX_PLATFORMS': 'cpu'}
  if side not in ('relief', 'relief_config', 'naive_vmap', 'fedjax'):
    env |= dict.fromkeys(_THREADS, threads)
  job = turns.Job(
    [python, '-m', module, *arguments(workload, side, count)],
    timeout=_TIMEOUT.value,
    env=env,
    cwd=_ROOT,
  )
  try:
    job.round()
  except turns.Ended:
    job.end()
    raise
  return job


def compare(workload: str, count: int) -> list[dict[str, Any]]:
  """Times the sides: a line each, then one per ratio; prints all seconds."""
  jobs: dict[str, turns.Job] = {}
  lines: dict[str, dict[str, Any]] = {}
  seconds: dict[str, list[list[float]]] = {}

  def lose(side, error):
    lines[side] = {'failed': str(error)}
    jobs.pop(side).end()

  for side, (python, module) in sides(workload).items():
    if not python:
      name = side.removesuffix('_im2col')
      lines[side] = {'skipped': f'no --{name}_python given'}
      continue
    try:
      jobs[side] = begin(workload, side, python, module, count)
      seconds[side] = []
    except turns.Ended as error:
      lines[side] = {'failed': str(error)}
  try:
    for turn in range(count):
      for side in turns.order(list(jobs), turn):
        try:
          one = jobs[side].round()
          seconds[side].append([one])
          # At once: what was measured outlives what comes after it.
          told = {'workload': workload, 'turn': turn, 'of': side}
          print(json.dumps({**told, 'seconds': one}), flush=True)
        except turns.Ended as error:
          lose(side, error)
    for side in list(jobs):
      try:
        lines[side] = jobs[side].line()
      except turns.Ended as error:
        lose(side, error)
  finally:
    for job in jobs.values():
      job.end()
  ratios = [
    versus(seconds['relief'], seconds[side], side)
    if {'relief', side} <= set(jobs)
    else {'ours_over': side, 'skipped': 'no run of both sides'}
    for side in lines
    if side != 'relief'
  ]
  case = {'benchmark': 'peers', 'workload': workload}
  return [
    *({**line, **case, 'side': side} for side, line in lines.items()),
    *({**case, **line} for line in ratios),
  ]


def versus(
  ours: list[list[float]], theirs: list[list[float]], side: str
) -> dict[str, Any]:
  """Divides our clients per second by theirs: their seconds over ours."""
  found = turns.ratio(theirs, ours)
  return {
    'ours_over': side,
    'median_ratio': found.median,
    'min_ratio': found.least,
    'max_ratio': found.most,
    'turns': len(ours),
  }


def main(argv) -> None:
  """Compares the sides on all workloads; ratios follow each."""
  del argv
  for workload in _WORKLOADS.value:
    if workload not in ('sensor', *_PUBLIC):
      raise unknown('workload', workload, ('sensor', *_PUBLIC))
  for workload in _WORKLOADS.value:
    for line in compare(workload, 1 if _SMOKE.value else _REPEATS.value):
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
