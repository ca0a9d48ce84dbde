"""How much faster is a round on two devices than on one?

python -m benchmarks.devices_scaling [--devices=1,2] [--clients=1000] [--smoke]

One JSON line per number of (virtual) devices, each in a process of its own;
the work is that of `clients_scaling`.
"""

import json

from absl import app, flags

from benchmarks import common

_DEVICES = flags.DEFINE_list('devices', ['1', '2'], 'numbers of devices')
_CLIENTS = flags.DEFINE_integer('clients', 1000, 'all of them in every round')
_REPEATS = flags.DEFINE_integer('repeats', 9, 'timed rounds')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


def main(argv):
  """Runs the cases, each in a child process."""
  del argv
  first = None
  for devices in map(int, _DEVICES.value):
    lines = common.child(
      'clients_scaling',
      case=_CLIENTS.value,
      devices=devices,
      repeats=_REPEATS.value,
      smoke=_SMOKE.value,
    )
    for line in lines:
      line['benchmark'] = 'devices_scaling'
      if not line.get('failed'):
        first = first or line['median_seconds']
        line['speedup'] = first / line['median_seconds']
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  app.run(main)
