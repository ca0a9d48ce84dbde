"""How long is a round in each layout, and what do compiling and memory cost?

python -m benchmarks.layouts [--clients=240] [--data_dir=DIR] [--smoke]

One JSON line per method and layout, every case in a process of its own: that
is what makes its peak memory its own.
"""

import json

from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command

_CLIENTS = flags.DEFINE_integer('clients', 240, 'all of them in every round')
_DATA_DIR = command.define_path('data_dir', None, 'where real data is')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'timed calls of one round')
_METHODS = flags.DEFINE_list('methods', 'relief,fedavg', 'methods')
_LAYOUTS = flags.DEFINE_list(
  'layouts', 'one@2,one@1,block:8@2,block:24@1,all@1', 'layout@devices'
)
_BUCKETS = flags.DEFINE_integer('buckets', 1, 'see config.buckets')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')
_CASE = flags.DEFINE_string('case', None, 'internal: method@layout@devices')


def measure(case: str) -> dict:
  """Times one round of `method@layout@devices` and describes the program."""
  method, layout, devices = case.split('@')
  simulate.set_devices(int(devices))
  c = config_lib.default()
  c.method, c.layout, c.devices = method, layout, int(devices)
  c.clients, c.rounds_per_call, c.eval_every = _CLIENTS.value, 1, 1
  c.rounds, c.buckets = 10_000, _BUCKETS.value
  if _SMOKE.value:
    c.dataset, c.data.width, c.model.filters = 'synthetic', 32, (4, 8)
    c.batch, c.local_steps = 4, 2
  simulation = simulate.Simulation(c, _DATA_DIR.value)
  seconds = common.round_times(simulation, _REPEATS.value)
  facts = simulation.summary()
  return {
    'benchmark': 'layouts',
    'method': method,
    'layout': facts['layout'],
    'dataset': facts['dataset'],
    'clients': c.clients,
    **seconds,
    'clients_per_second': c.clients / seconds['median_seconds'],
    'compile_seconds': facts['compile_seconds'],
    'compiles': facts['compiles'],
    'program_mbytes': (facts['program_bytes'] or 0) / 1e6,
    'peak_memory_mbytes': facts['peak_memory_bytes'] / 1e6,
  }


def main(argv):
  """Runs the cases, each in a child process."""
  del argv
  if _CASE.value:
    common.emit(measure(_CASE.value))
    return
  data = {'data_dir': _DATA_DIR.value} if _DATA_DIR.value else {}
  for method in _METHODS.value:
    for layout in _LAYOUTS.value:
      lines = common.child(
        'layouts',
        case=f'{method}@{layout}',
        clients=_CLIENTS.value,
        repeats=_REPEATS.value,
        buckets=_BUCKETS.value,
        smoke=_SMOKE.value,
        **data,
      )
      for line in lines:
        print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
