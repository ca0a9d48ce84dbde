"""How much faster is a round on two devices than on one?

python -m benchmarks.devices_scaling [--counts=1,2] [--clients=1000] [--smoke]

One JSON line per number of (virtual) devices, each in a process of its own,
which take turns; the work and the other flags are those of `clients_scaling`.
"""

import json

from absl import flags

from benchmarks import clients_scaling
from relief_jax.cli import command

_COUNTS = flags.DEFINE_list('counts', ['1', '2'], 'numbers of devices')


def main(argv):
  """Runs the cases, each in a child process."""
  del argv
  given = flags.FLAGS
  changes = [
    {'case': int(clients), 'devices': int(count)}
    for clients in given.clients
    for count in _COUNTS.value
  ]
  for line in clients_scaling.compare(changes):
    line['benchmark'] = 'devices_scaling'
    line['speedup'] = 1 / line['over_first'][0]
    print(json.dumps(line), flush=True)


if __name__ == '__main__':
  flags.FLAGS.set_default('clients', ['1000'])
  command.launch(main)
