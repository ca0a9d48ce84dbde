"""How long are rounds that are costs alone, from 1,000 to a million devices?

python -m benchmarks.time_only [--clients=1000,1000000] [--rounds=1000]
  [--method=fedavg] [--smoke]

`relief_jax.simulate.costs`: plans, links, time, energy and bytes of every
device in every round, and no training. One JSON line per number of devices,
every case in a process of its own, whose peak memory is its own. Devices share
a bank of made-up windows, 20 each on average.
"""

import json

from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command

_CLIENTS = flags.DEFINE_list(
  'clients', ['1000', '10000', '131072', '1000000'], 'sizes of the fleet'
)
_ROUNDS = flags.DEFINE_integer('rounds', 1000, 'of every case', lower_bound=1)
_METHOD = flags.DEFINE_string('method', 'fedavg', 'one that needs no training')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')
_CASE = flags.DEFINE_integer('case', 0, 'internal: one number of devices')


def case(clients: int) -> None:
  """Runs one case and prints its line."""
  c = config_lib.default(_METHOD.value)
  c.dataset, c.clients, c.rounds = 'synthetic', clients, _ROUNDS.value
  c.reuse, c.devices = 20, 1
  c.data.width = c.data.stride = 32
  found = simulate.costs(c)
  wall = found.wall_seconds
  common.emit(
    {
      'benchmark': 'time_only',
      'method': _METHOD.value,
      'clients': clients,
      'rounds': _ROUNDS.value,
      'setup_seconds': wall['setup'],
      'compile_seconds': wall['compile'],
      'run_seconds': wall['run'],
      'microseconds_per_device_and_round': 1e6
      * wall['run']
      / (clients * _ROUNDS.value),
      'simulated_seconds': float(found.rounds['seconds'].sum()),
      'joules': float(found.rounds['joules'].sum()),
    }
  )


def main(argv):
  """Runs all cases one after another."""
  del argv
  if _CASE.value:
    case(_CASE.value)
    return
  sizes, rounds = map(int, _CLIENTS.value), _ROUNDS.value
  if _SMOKE.value:
    sizes, rounds = [8, 16], 3
  for clients in sizes:
    given = {'case': clients, 'rounds': rounds, 'method': _METHOD.value}
    for line in common.child('time_only', **given):
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
