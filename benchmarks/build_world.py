"""How long and how much memory does a world of many clients take to build?

python -m benchmarks.build_world [--clients=100000] [--smoke]

`world.build` on synthetic windows, 20 on a device on average (a window is on
several), in every partition of them. Each case is a process of its own: that
is what makes its peak memory its own. `deal_seconds` is the part of it that
assigns windows, sensors and devices, once more with the windows at hand;
nothing of a round is compiled.
"""

import json
import os
import time

import numpy as np
from absl import flags

from benchmarks import common
from relief_jax import config, world
from relief_jax.cli import command
from relief_jax.engine import memory
from relief_jax.world import client_data

_CLIENTS = flags.DEFINE_integer('clients', 100_000, 'devices', lower_bound=2)
_SMOKE = flags.DEFINE_bool('smoke', False, '50 devices')
_CASE = flags.DEFINE_string('case', None, 'internal: partition@quantity skew')

CASES = ('contiguous@0', 'subject@0', 'subject@0.5', 'dirichlet@0')
_MEAN = 20  # windows on a device


def _peak_mb() -> int:
  return memory.peak() // 2**20


def measure(case: str, clients: int) -> dict:
  """Builds a world and reports seconds and peak memory of this process.

  Args:
    case: one of `CASES`.
    clients: N.
  """
  kind, skew = case.split('@')
  c = config.default()
  c.dataset, c.clients, c.reuse = 'synthetic', clients, _MEAN
  c.data.width = c.data.stride = 32
  c.synthetic.windows_per_class = 60
  c.partition, c.quantity_skew, c.alpha = kind, float(skew), 100.0
  start_mb = _peak_mb()
  started, used = time.perf_counter(), time.process_time()
  built = world.build(c, None)
  samples = np.asarray(built.population.fleet.samples)
  seconds = time.perf_counter() - started
  used = time.process_time() - used
  peak_mb = _peak_mb()
  started = time.perf_counter()
  client_data.build_clients(c, None)
  return {
    'benchmark': 'build_world',
    'clients': clients,
    'partition': kind,
    'quantity_skew': float(skew),
    'windows': int(samples.sum()),
    'seconds': round(seconds, 2),
    'cpu_seconds': round(used, 2),
    'deal_seconds': round(time.perf_counter() - started, 2),
    'rows_mb': built.population.rows.nbytes // 2**20,
    'peak_mb': peak_mb,
    'start_mb': start_mb,
    'load_average': os.getloadavg()[0],
  }


def main(_) -> None:
  """Measures every case in a process of its own."""
  clients = 50 if _SMOKE.value else _CLIENTS.value
  if _CASE.value:
    common.emit(measure(_CASE.value, clients))
    return
  for case in CASES:
    lines = common.child(
      'build_world', case=case, clients=clients, smoke=_SMOKE.value
    )
    for line in lines:
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
