"""Do time per client and memory stay put from 100 to 100,000 clients?

python -m benchmarks.clients_scaling [--clients=100,100000] [--cohort=64]

One JSON line per number of clients, every case in a process of its own: that
is what makes its peak memory its own. The processes take turns, up the list
and down again, so that a machine that is slow for a while is slow for all of
them. Every client trains the same small model for the same number of steps on
about 20 windows of one shared bank. With `--cohort=K` only K clients, drawn
anew, take part in a round.
"""

import json

from absl import app, flags

from benchmarks import common, turns
from experiments import step_times
from relief_jax import config as config_lib
from relief_jax import simulate

_CLIENTS = flags.DEFINE_list(
  'clients', ['100', '1000', '10000', '100000'], 'sizes of the fleet'
)
_COHORT = flags.DEFINE_integer('cohort', 0, 'clients of a round, 0: everybody')
_METHOD = flags.DEFINE_string('method', 'relief', 'method')
_DEVICES = flags.DEFINE_integer('devices', 1, 'devices that share the clients')
_REPEATS = flags.DEFINE_integer('repeats', 50, 'timed rounds; fewer if long')
_TURNS = flags.DEFINE_integer('turns', 5, 'times up the list and down again')
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


def case(clients: int) -> None:
  """One case's process: times rounds and reads its own peak memory."""
  simulate.set_devices(_DEVICES.value)
  simulation = simulate.Simulation(make_config(clients))
  cohort = _COHORT.value or clients
  repeats = max(1, min(_REPEATS.value, 10_000 // cohort))
  calls = {'round': common.round_call(simulation)}

  def visit():
    found = step_times.in_turns(calls, repeats, dropped=0)
    facts = simulation.summary()
    return {
      'benchmark': 'clients_scaling',
      'method': _METHOD.value,
      'clients': clients,
      'cohort': cohort,
      'seconds': found['round'],
      'layout': facts['layout'],
      'setup_seconds': facts['wall_seconds']['setup'],
      'evaluate_seconds': facts['wall_seconds']['evaluate'],
      'compile_seconds': facts['compile_seconds'],
      'program_mbytes': (facts['program_bytes'] or 0) / 1e6,
      'peak_memory_mbytes': facts['peak_memory_bytes'] / 1e6,
    }

  turns.serve(visit)


def compare(changes: list[dict], count: int) -> list[dict]:
  """A line per case, in the order given; all flags but the changed are ours.

  Args:
    changes: to the flags, `case` (clients) among them.
    count: of turns.
  """
  ours = {
    'cohort': _COHORT.value,
    'method': _METHOD.value,
    'devices': _DEVICES.value,
    'repeats': _REPEATS.value,
    'smoke': _SMOKE.value,
  }
  cases = [{**ours, **change} for change in changes]
  found = turns.visit_all('clients_scaling', cases, count)
  lines = []
  for visits in found:
    cohort = visits[0][0]['cohort']
    work = cohort / found[0][0][0]['cohort']
    line = turns.summary(visits, found[0], work)
    line['microseconds_per_client'] = 1e6 * line['median_seconds'] / cohort
    line['clients_per_second'] = cohort / line['median_seconds']
    lines.append(line)
  return lines


def main(argv):
  """Compares all numbers of clients."""
  del argv
  if _CASE.value:
    case(_CASE.value)
    return
  changes = [{'case': int(clients)} for clients in _CLIENTS.value]
  for line in compare(changes, _TURNS.value):
    print(json.dumps(line), flush=True)


if __name__ == '__main__':
  app.run(main)
