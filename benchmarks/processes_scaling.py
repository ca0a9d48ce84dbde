"""What do several processes gain, and what does their talking cost?

python -m benchmarks.processes_scaling [--cases=1x1,1x2,2x1] [--smoke]

One JSON line per case, PROCESSES x DEVICES of each, on this machine over
loopback; the work is that of `clients_scaling`. Process 0 reports. The
processes share out the cores, since otherwise each has a thread per core and
they are in each other's way.
"""

import json
import os
import socket

from absl import flags

from benchmarks import clients_scaling, common
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.engine import processes

_CASES = flags.DEFINE_list(
  'cases', ['1x1', '1x2', '2x1'], 'processes x devices'
)
_JOB = flags.DEFINE_string('job', None, 'internal: clients,port,count,number')


def measure(job: str) -> dict:
  """Times a round in one of several processes."""
  clients, port, count, number = map(int, job.split(','))
  if hasattr(os, 'sched_setaffinity'):  # Linux
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number::count] or cores)
  simulate.set_devices(flags.FLAGS.devices)
  processes.start(f'127.0.0.1:{port}', count, number)
  simulation = simulate.Simulation(clients_scaling.make_config(clients))
  seconds = common.round_times(simulation, flags.FLAGS.repeats)
  facts = simulation.summary()
  return {
    'benchmark': 'processes_scaling',
    'clients': clients,
    'layout': facts['layout'],
    'processes': facts['processes'],
    **seconds,
    'clients_per_second': clients / seconds['median_seconds'],
    'peak_memory_mbytes': facts['peak_memory_bytes'] / 1e6,
  }


def main(argv):
  """Runs the cases, each in child processes."""
  del argv
  if _JOB.value:
    case = measure(_JOB.value)
    if processes.is_main():
      common.emit(case)
    return
  clients = 8 if flags.FLAGS.smoke else 1000
  first = None
  for case in _CASES.value:
    count, devices = map(int, case.split('x'))
    with socket.socket() as found:
      found.bind(('127.0.0.1', 0))
      port = found.getsockname()[1]
    jobs = [
      common.start(
        'processes_scaling',
        job=f'{clients},{port},{count},{number}',
        devices=devices,
        repeats=flags.FLAGS.repeats,
        smoke=flags.FLAGS.smoke,
      )
      for number in range(count)
    ]
    found = [
      common.collect('processes_scaling', {'case': case}, job) for job in jobs
    ]
    for line in found[0]:
      if not line.get('failed'):
        first = first or line['median_seconds']
        line['speedup'] = first / line['median_seconds']
      print(json.dumps({**line, 'case': case}), flush=True)


if __name__ == '__main__':
  command.launch(main)
