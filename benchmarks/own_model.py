"""What does a model of one's own cost over the built-in one?

python -m benchmarks.own_model [--clients=64] [--turns=5] [--smoke]

The sensor workload of `round_throughput` with the built-in CNN and with the
same network as a chain of Flax modules (`flax_cnn.py`): rounds in turns, wall
and CPU seconds, and the seconds that building and checking the task takes.
"""

import time

import jax
from absl import flags

from benchmarks import common, round_throughput, turns
from relief_jax import simulate
from relief_jax.cli import command

_TURNS = flags.DEFINE_integer('turns', 5, 'a round of each')

_MODELS = ('sensor', 'flax')
_CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def main(argv):
  """Times both models in turns and prints a JSON line each, then ratios."""
  del argv
  simulate.set_devices(flags.FLAGS.devices)
  smoke = flags.FLAGS.smoke
  spec, _ = round_throughput.workload(8, smoke)
  rounds, seconds = {}, {}
  for name in _MODELS:
    round_throughput.WORKLOADS[name](spec)  # imports, first arrays
    building = _timed(lambda name=name: round_throughput.WORKLOADS[name](spec))
    rounds[name] = round_throughput.make_round(name, 'cohort_mean')
    seconds[name] = {clock: [] for clock in _CLOCKS}
    common.emit(
      {'benchmark': 'own_model', **rounds[name].facts, 'building': building}
    )
  for turn in range(1 if smoke else _TURNS.value):
    for name in turns.order(_MODELS, turn):
      call = rounds[name].call
      found = _timed(lambda call=call: jax.block_until_ready(call()))
      for clock, value in found.items():
        seconds[name][clock].append([value])
  for clock in _CLOCKS:
    own, built_in = (seconds[name][clock] for name in _MODELS[::-1])
    found = turns.ratio(own, built_in)
    common.emit(
      {
        'benchmark': 'own_model',
        'clock': clock,
        'seconds': {name: seconds[name][clock] for name in _MODELS},
        'flax_over_built_in': found._asdict(),
      }
    )


def _timed(call) -> dict[str, float]:
  """Times a call by both clocks, seconds."""
  before = {name: clock() for name, clock in _CLOCKS.items()}
  call()
  return {name: clock() - before[name] for name, clock in _CLOCKS.items()}


if __name__ == '__main__':
  command.launch(main)
