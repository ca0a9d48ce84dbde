"""Does a sweep survive SIGKILL, and what does it cost beside its runs?

python -m benchmarks.sweep_resume --workdir=DIR [--data_dir=DIR]
    [--rates=20] [--seeds=5] [--rounds=10] [--workers=N] [--smoke]

`--rates` x `--seeds` points of FedAvg and of RELIEF. One JSON line per sweep:
the first runs through, the second is killed twice (a third and two thirds of
its points done) and started again. `same_tables` says whether its tables equal
the first one's byte for byte but for the columns of the wall clock. `overhead`
is worker time (seconds x workers) over the sum of the runs' own seconds (set
up, compile, run, evaluate), minus one. `overhead_parts` are its parts, of the
first sweep: the command around its workers (`command`: imports, points, tables
and figures, while the workers' cores wait), processes that start (`starting`),
the files of runs (`runs_beside`), workers without a job at the end (`waiting`).
"""

import csv
import io
import pathlib
import shutil
import subprocess
import sys
import time

from absl import flags

from benchmarks import common
from relief_jax.campaign import pool
from relief_jax.cli import command
from relief_jax.storage import records

_WORKDIR = command.define_path('workdir', None, 'both sweeps go below it')
_DATA_DIR = command.define_path('data_dir', None, 'where real data is')
_DATASET = flags.DEFINE_string('dataset', 'dsads', 'of all points')
_RATES = flags.DEFINE_integer('rates', 20, 'learning rates')
_SEEDS = flags.DEFINE_integer('seeds', 5, 'seeds')
_ROUNDS = flags.DEFINE_integer('rounds', 10, 'of every run')
_CHECKPOINT_EVERY = flags.DEFINE_integer('checkpoint_every', 5, 'rounds')
_CLIENTS = flags.DEFINE_integer('clients', 24, 'devices')
_WORKERS = flags.DEFINE_integer('workers', 0, '0: one per core')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case')
flags.mark_flags_as_required(['workdir'])


def command_line(folder: pathlib.Path) -> list[str]:
  """Builds the sweep's command line."""
  variant = ':smoke' if _SMOKE.value else ''
  rates = ','.join(f'{0.01 * 1.2**i:.4g}' for i in range(_RATES.value))
  found = [
    sys.executable,
    '-m',
    'experiments.sweep',
    f'--config=experiments/configs/relief.py{variant}',
    f'--workdir={folder}',
    f'--workers={_WORKERS.value}',
    f'--config.rounds={_ROUNDS.value}',
    '--config.deadline=1.75*tight',
    '--sweep.method=fedavg,relief',
    f'--sweep.hparams.client_lr={rates}',
    f'--sweep.seed=0:{_SEEDS.value}',
  ]
  if not _SMOKE.value:
    found += [
      f'--config.dataset={_DATASET.value}',
      f'--config.clients={_CLIENTS.value}',
      f'--config.checkpoint_every={_CHECKPOINT_EVERY.value}',
    ]
  else:
    found += ['--config.checkpoint_every=2', '--config.eval_every=2']
  return found + ([f'--data_dir={_DATA_DIR.value}'] if _DATA_DIR.value else [])


def start(folder: pathlib.Path, log) -> subprocess.Popen:
  """Starts the sweep, from the root of the source tree."""
  root = pathlib.Path(__file__).parent.parent
  return subprocess.Popen(
    command_line(folder), cwd=root, stdout=log, stderr=log
  )


def files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Finds a file of every run: RATE/METHOD/SEED/NAME, and none below it."""
  return sorted(folder.glob(f'*/*/*/{name}'))


def summaries(folder: pathlib.Path) -> list[dict]:
  """Reads the summaries of the runs that have ended."""
  return [records.read_json(p) for p in files(folder, 'summary.json')]


def tables(folder: pathlib.Path) -> list[list[str]]:
  """Reads table.csv without the columns of the wall clock."""
  text = (folder / 'table.csv').read_text(encoding='utf-8')
  rows = list(csv.reader(io.StringIO(text)))
  kept = [i for i, name in enumerate(rows[0]) if 'wall' not in name]
  return [[row[i] for i in kept] for row in rows]


def facts(folder: pathlib.Path, seconds: float) -> dict:
  """Collects the facts that both sweeps report."""
  workers = _WORKERS.value or pool.default_workers()
  found = summaries(folder)
  own = [sum(s['wall_seconds'].values()) for s in found]
  return {
    'benchmark': 'sweep_resume',
    'points': len(found),
    'complete': sum(s['status'] == 'complete' for s in found),
    'workers': workers,
    'total_seconds': seconds,
    'run_seconds': sum(own),
    'compiles': sum(s['compiles'] for s in found),
    'overhead': seconds * workers / sum(own) - 1,
  }


def parts(folder: pathlib.Path, found: dict) -> dict[str, float]:
  """Splits the overhead of an uninterrupted sweep into parts that add up.

  Args:
    folder: of the sweep.
    found: its `facts`.
  """
  spent = records.read_json(folder / 'manifest.json')['worker_seconds']
  own, every = found['run_seconds'], found['total_seconds'] * found['workers']
  seconds = {
    'command': every - sum(spent.values()),
    'starting': spent['starting'],
    'runs_beside': spent['working'] - own,
    'waiting': spent['waiting'],
  }
  return {name: value / own for name, value in seconds.items()}


def main(argv):
  """Runs both sweeps, one after the other."""
  del argv
  base = pathlib.Path(_WORKDIR.value)
  whole, killed = base / 'whole', base / 'killed'
  for folder in (whole, killed):
    shutil.rmtree(folder, ignore_errors=True)
  base.mkdir(parents=True, exist_ok=True)
  total = 2 * _RATES.value * _SEEDS.value
  with open(base / 'sweeps.log', 'w', encoding='utf-8') as log:
    started = time.monotonic()
    code = start(whole, log).wait()
    taken = time.monotonic() - started
    found = facts(whole, taken)
    found['overhead_parts'] = parts(whole, found)
    common.emit({**found, 'way': 'uninterrupted', 'exit': code})
    started, halves, begun, done = time.monotonic(), [], 0, 0
    for third in (1, 2):
      process = start(killed, log)
      while process.poll() is None:
        begun = len(files(killed, 'config.json'))
        done = len(files(killed, 'summary.json'))
        if done >= third * total / 3 and begun > done:
          break
        time.sleep(0.02)
      process.kill()
      process.wait()
      halves.append(begun - done)
    code = start(killed, log).wait()
    taken = time.monotonic() - started
  common.emit(
    {
      **facts(killed, taken),
      'way': 'killed twice',
      'exit': code,
      'half_finished_when_killed': halves,
      'same_tables': tables(whole) == tables(killed),
    }
  )


if __name__ == '__main__':
  command.launch(main)
