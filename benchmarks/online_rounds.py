"""What a round of an online world costs beside one of a static world.

python -m benchmarks.online_rounds [--clients=24] [--method=relief]
  [--data_dir=DIR] [--repeats=5] [--smoke]

One JSON line per case, all timed in turns: the static world; every process
alone; all but noise together; noise. Rates are such that nobody is away and no
sensor is missing (each is drawn all the same), so that all cases train the same
work: with real rates a round is cheaper. `ratio` is the median over the static
world's.
"""

import statistics

from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.runs import step_times

_CLIENTS = flags.DEFINE_integer('clients', 24, 'all of them in every round')
_METHOD = flags.DEFINE_string('method', 'relief', 'method')
_DATA_DIR = command.define_path('data_dir', None, 'where real data is')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'timed rounds of each case')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')

_NEVER = 1e-7
PROCESSES: dict[str, dict] = {
  'stream': {'online.stream.buffer': 100, 'online.stream.arrive': 10},
  'missing': {'online.missing.kind': 'each', 'online.missing.rate': _NEVER},
  'bursts': {'online.missing.kind': 'bursts', 'online.missing.rate': _NEVER},
  'presence': {
    'online.presence.kind': 'each',
    'online.presence.rate': 1 - _NEVER,
  },
  'pace': {
    'online.pace.slowdown': 0.5,
    'online.pace.fading': 0.5,
    'online.pace.loss': 0.05,
  },
}
CASES: dict[str, dict] = {
  'static': {},
  **PROCESSES,
  'all': {
    **PROCESSES['stream'],
    **PROCESSES['bursts'],
    **PROCESSES['presence'],
    **PROCESSES['pace'],
  },
  'noise': {'sensor_faults.noise': 3.0, 'sensor_faults.share': 0.4},
}


def simulation(keys: dict) -> simulate.Simulation:
  """Starts a run of one round a call, past its first test."""
  c = config_lib.default()
  c.method, c.layout, c.devices = _METHOD.value, 'one', 1
  c.clients, c.rounds, c.rounds_per_call = _CLIENTS.value, 10_000, 1
  c.eval_every = 1
  if _SMOKE.value:
    c.dataset, c.data.width, c.model.filters = 'synthetic', 32, (4, 8)
    c.batch, c.local_steps = 4, 2
  c.update_from_flattened_dict(keys)
  found = simulate.Simulation(c, _DATA_DIR.value)
  found.advance()
  return found


def main(argv):
  """Times all cases in turns."""
  del argv
  runs = {name: simulation(keys) for name, keys in CASES.items()}

  def round_of(run):
    def call():
      run.advance_rounds(1)
      return run.params

    return call

  calls = {name: round_of(run) for name, run in runs.items()}
  seconds = step_times.in_turns(calls, _REPEATS.value)
  static = statistics.median(seconds['static'])
  for name, found in seconds.items():
    median = statistics.median(found)
    common.emit(
      {
        'benchmark': 'online_rounds',
        'case': name,
        'method': _METHOD.value,
        'clients': _CLIENTS.value,
        'min_seconds': min(found),
        'median_seconds': median,
        'clients_per_second': _CLIENTS.value / median,
        'ratio': median / static,
      }
    )


if __name__ == '__main__':
  command.launch(main)
