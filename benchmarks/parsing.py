"""How long does a full-size data set take to load, and in how much memory?

python -m benchmarks.parsing [--workdir=DIR] [--smoke]

Writes PAMAP2 (2,872,533 rows) and MHEALTH (1,215,745 rows) in their original
layouts, made-up numbers with bursts of NaN, 2 GB in all, into a folder that is
deleted afterwards. Each load is a process of its own: that is what makes its
peak memory its own. First from text, then from the cache. One JSON line each.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from relief_jax.cli import command

_WORKDIR = command.define_path('workdir', None, 'where the files are written')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a thousandth of the rows')
_CASE = flags.DEFINE_string('case', None, 'internal: data set@first or @cached')

# Rows of every person, as in the originals.
ROWS = {
  'pamap2': (
    *(376417, 447000, 252833, 329576, 374783, 361817),
    *(313599, 408031, 8477),
  ),
  'mhealth': (
    *(161280, 130561, 122112, 116736, 119808),
    *(98304, 104448, 129024, 135168, 98304),
  ),
}
_POOL = 5000  # different lines
_STRETCH = 3000  # rows of one label
_ACTIVITIES = (1, 0, 2, 0, 3, 17, 16, 0, 12, 13, 0, 4, 7, 6, 5, 24)


def write(root: pathlib.Path, smoke: bool) -> None:
  """Writes both data sets below `root`."""
  rng = np.random.default_rng(0)
  imu = rng.normal(0, 9, (_POOL, 51))
  imu[:150, :17] = np.nan  # lost packets of one place
  imu[150:200] = np.nan
  pool = {
    'pamap2': [' '.join(f'{v:.6g}' for v in row) for row in imu],
    'mhealth': [
      '\t'.join(f'{v:.5g}' for v in row)
      for row in rng.normal(0, 9, (_POOL, 23))
    ],
  }
  pool['pamap2'] = [line.replace('nan', 'NaN') for line in pool['pamap2']]
  for name, sizes in ROWS.items():
    for person, size in enumerate(sizes, 1):
      path = root / name / f'mHealth_subject{person}.log'
      if name == 'pamap2':
        path = root / name / 'Protocol' / f'subject10{person}.dat'
      path.parent.mkdir(parents=True, exist_ok=True)
      rest = pool[name]
      with open(path, 'w', encoding='ascii') as file:
        for row in range(size // 1000 if smoke else size):
          stretch = row // (30 if smoke else _STRETCH)
          text = rest[row % _POOL]
          if name == 'pamap2':
            heart = f'{60 + stretch % 90}' if row % 11 == 0 else 'NaN'
            label = _ACTIVITIES[stretch % len(_ACTIVITIES)]
            file.write(f'{row / 100:.2f} {label} {heart} {text}\n')
          else:
            file.write(f'{text}\t{stretch % 13}\n')


def measure(case: str, root: str, smoke: bool) -> dict:
  """Loads a data set and reports seconds and peak memory of this process."""
  from relief_jax import config as config_lib
  from relief_jax import datasets

  name, source = case.split('@')
  c = config_lib.default()
  c.dataset = name
  if smoke:
    c.data.width = c.data.stride = 10
  started, used = time.perf_counter(), time.process_time()
  windows, _ = datasets.load(c, root)
  return {
    'benchmark': 'parsing',
    'data': name,
    'from': 'text' if source == 'first' else 'cache',
    'rows': sum(ROWS[name]) // (1000 if smoke else 1),
    'windows': len(windows.y),
    'seconds': round(time.perf_counter() - started, 2),
    'cpu_seconds': round(time.process_time() - used, 2),
    'load_average': os.getloadavg()[0],
    'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
  }


def main(_) -> None:
  """Writes the files, then measures every case in a process of its own."""
  if _CASE.value:
    print(json.dumps(measure(_CASE.value, _WORKDIR.value or '', _SMOKE.value)))
    return
  with tempfile.TemporaryDirectory(dir=_WORKDIR.value) as folder:
    root = pathlib.Path(folder)
    write(root / 'data', _SMOKE.value)
    for name in ROWS:
      for source in ('first', 'cached'):
        command = [sys.executable, '-m', 'benchmarks.parsing']
        command += [f'--case={name}@{source}', f'--workdir={root / "data"}']
        command += ['--smoke'] if _SMOKE.value else []
        subprocess.run(
          command,
          check=True,
          env={**os.environ, 'XDG_CACHE_HOME': str(root / 'cache')},
        )


if __name__ == '__main__':
  command.launch(main)
