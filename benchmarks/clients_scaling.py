"""Do time per client and memory stay put from 100 to 100,000 clients?

python -m benchmarks.clients_scaling [--clients=100,100000] [--cohort=64]

One JSON line per number of clients, every case in a process of its own: that
is what makes its peak memory its own. Every client trains the same small model
for the same number of steps on about 20 windows of one shared bank. With
`--cohort=K` only K clients, drawn anew, take part in a round.
"""

import json

from absl import app, flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate

_CLIENTS = flags.DEFINE_list(
  'clients', ['100', '1000', '10000', '100000'], 'sizes of the fleet'
)
_COHORT = flags.DEFINE_integer('cohort', 0, 'clients of a round, 0: everybody')
_METHOD = flags.DEFINE_string('method', 'relief', 'method')
_DEVICES = flags.DEFINE_integer('devices', 1, 'devices that share the clients')
_REPEATS = flags.DEFINE_integer('repeats', 50, 'timed rounds; fewer if long')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')
_CASE = flags.DEFINE_integer('case', 0, 'internal: one number of clients')


def make_config(clients: int):
  """The same work for every client, whatever their number."""
  c = config_lib.default()
  c.method, c.dataset, c.clients = _METHOD.value, 'synthetic', clients
  c.clients_per_round, c.devices = _COHORT.value, _DEVICES.value
  c.rounds, c.rounds_per_call, c.eval_every = 10_000, 1, 1
  c.reuse = 20  # windows of a client, on average
  c.data.width = c.data.stride = 32
  c.local_steps, c.batch = 2, 16
  c.model.filters, c.model.hidden = (16, 32), 64
  if _SMOKE.value:
    c.synthetic.windows_per_class = 4
    c.batch, c.model.filters, c.model.hidden = 2, (2, 2), 4
  return c


def measure(clients: int) -> dict:
  """Times a round and reads the process's peak memory."""
  simulate.set_devices(_DEVICES.value)
  simulation = simulate.Simulation(make_config(clients))
  cohort = _COHORT.value or clients
  repeats = max(1, min(_REPEATS.value, 10_000 // cohort))
  seconds = common.round_times(simulation, repeats)
  facts = simulation.summary()
  return {
    'benchmark': 'clients_scaling',
    'method': _METHOD.value,
    'clients': clients,
    'cohort': cohort,
    'layout': facts['layout'],
    'rounds_timed': repeats,
    **seconds,
    'microseconds_per_client': 1e6 * seconds['median_seconds'] / cohort,
    'clients_per_second': cohort / seconds['median_seconds'],
    'setup_seconds': facts['wall_seconds']['setup'],
    'evaluate_seconds': facts['wall_seconds']['evaluate'],
    'compile_seconds': facts['compile_seconds'],
    'program_mbytes': (facts['program_bytes'] or 0) / 1e6,
    'peak_memory_mbytes': facts['peak_memory_bytes'] / 1e6,
  }


def main(argv):
  """Runs the cases, each in a child process."""
  del argv
  if _CASE.value:
    common.emit(measure(_CASE.value))
    return
  for clients in _CLIENTS.value:
    lines = common.child(
      'clients_scaling',
      case=clients,
      cohort=_COHORT.value,
      method=_METHOD.value,
      devices=_DEVICES.value,
      repeats=_REPEATS.value,
      smoke=_SMOKE.value,
    )
    for line in lines:
      print(json.dumps(line), flush=True)


if __name__ == '__main__':
  app.run(main)
