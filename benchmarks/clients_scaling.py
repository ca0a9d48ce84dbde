"""Do time per client and memory stay put from 100 to 100,000 clients?

python -m benchmarks.clients_scaling [--clients=100,100000] [--cohort=64]

One JSON line per number of clients, every case in a process of its own: that
is what makes its peak memory its own. The processes take turns, up the list
and down again, so that a machine that is slow for a while is slow for all of
them. Every client trains the same small model for the same number of steps on
about 20 windows of one shared bank. With `--cohort=K` only K clients, drawn
anew, take part in a round. `over_first` is the time per client over that of the
first case in the same turn: median, least, most.
"""

import json

from absl import flags

from benchmarks import common, turns
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command

_CLIENTS = flags.DEFINE_list(
  'clients', ['100', '1000', '10000', '100000'], 'sizes of the fleet'
)
_COHORT = flags.DEFINE_integer('cohort', 0, 'clients of a round, 0: everybody')
_METHOD = flags.DEFINE_string('method', 'relief', 'method')
_DEVICES = flags.DEFINE_integer('devices', 1, 'devices that share the clients')
_REPEATS = flags.DEFINE_integer(
  'repeats', 50, 'rounds of a turn; fewer if long'
)
_TURNS = flags.DEFINE_integer('turns', 10, 'up the list and down again')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')
_CASE = flags.DEFINE_integer('case', 0, 'internal: one number of clients')


def make_config(clients: int):
  """Builds a config with the same work for every client, of any number."""
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
  """Runs one case's process: times rounds and reads its own peak memory."""
  simulate.set_devices(_DEVICES.value)
  simulation = simulate.Simulation(make_config(clients))
  cohort = _COHORT.value or clients
  seconds = common.round_times(simulation, _REPEATS.value)
  facts = simulation.summary()
  common.emit(
    {
      'benchmark': 'clients_scaling',
      'method': _METHOD.value,
      'clients': clients,
      'cohort': cohort,
      'layout': facts['layout'],
      'rounds_timed': _REPEATS.value,
      **seconds,
      'microseconds_per_client': 1e6 * seconds['median_seconds'] / cohort,
      'clients_per_second': cohort / seconds['median_seconds'],
      'setup_seconds': facts['wall_seconds']['setup'],
      'evaluate_seconds': facts['wall_seconds']['evaluate'],
      'compile_seconds': facts['compile_seconds'],
      'program_mbytes': (facts['program_bytes'] or 0) / 1e6,
      'peak_memory_mbytes': facts['peak_memory_bytes'] / 1e6,
    }
  )


def compare(changes: list[dict]) -> list[dict]:
  """Runs a case per change, a line each in order; other flags are our own.

  Args:
    changes: to the flags, `case` (clients) among them.

  Raises:
    turns.Ended: a case failed.
  """
  ours = {
    'cohort': _COHORT.value,
    'method': _METHOD.value,
    'devices': _DEVICES.value,
    'smoke': _SMOKE.value,
  }
  cohorts = [_COHORT.value or change['case'] for change in changes]
  each = [max(1, min(_REPEATS.value, 10_000 // k)) for k in cohorts]
  jobs = [
    turns.Job(
      common.command(
        'clients_scaling', repeats=_TURNS.value * count, **{**ours, **change}
      )
    )
    for change, count in zip(changes, each, strict=True)
  ]
  try:
    for job in jobs:
      job.round()  # not counted
    found: list[list[list[float]]] = [[] for _ in jobs]
    for turn in range(_TURNS.value):
      for i in turns.order(range(len(jobs)), turn):
        found[i].append([jobs[i].round() for _ in range(each[i])])
    lines = [job.line() for job in jobs]
  finally:
    for job in jobs:
      job.end()
  for line, seconds in zip(lines, found, strict=True):
    work = line['cohort'] / lines[0]['cohort']
    over = turns.ratio(seconds, found[0])
    line['turns'] = _TURNS.value
    line['over_first'] = [value / work for value in over]
  return lines


def main(argv):
  """Compares all numbers of clients."""
  del argv
  if _CASE.value:
    case(_CASE.value)
    return
  changes = [{'case': int(clients)} for clients in _CLIENTS.value]
  for line in compare(changes):
    print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
