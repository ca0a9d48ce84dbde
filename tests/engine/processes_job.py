"""What each of the processes in `processes_test.py` does.

python -m tests.engine.processes_job FOLDER PORT COUNT NUMBER DEVICES

Prints one JSON line: what it saw.
"""

import json
import os
import sys

import jax

from relief_jax import simulate
from relief_jax.engine import placement, processes
from relief_jax.errors import InputError
from relief_jax.runs import tuner
from relief_jax.storage import loop, runner
from tests.support import tiny


def config(**overrides):
  """Seven clients, which no number of devices divides; a cohort of them."""
  return tiny.config(
    **{
      'clients': 7,
      'rounds': 6,
      'layout': 'one',
      'synthetic.modalities': 2,
      'synthetic.subjects': 6,
      'keep_client_state': True,
      'deadline': '1.5*tight',
      **overrides,
    },
  )


class StopInOne(loop.Stop):
  """As if a signal had reached the second process alone, in round 2."""

  requested = property(lambda self: jax.process_index() == 1)  # type: ignore


def main(folder: str, port: int, count: int, number: int, devices: int):
  """Refusals, then a run that is stopped and resumed."""
  simulate.set_devices(devices)
  processes.start(f'127.0.0.1:{port}', count, number)
  own = config(devices=devices)
  seen = {'devices': len(jax.devices()), 'local': jax.local_device_count()}

  found = simulate.Simulation(own)._population.rows
  seen['rows'] = sum(s.data.shape[0] for s in found.addressable_shards)
  seen['table'] = found.shape[0]

  for name, changed in (
    ('another', config(devices=devices, seed=number)),
    ('broken', config(devices=devices, clients=7 if number else 0)),
  ):
    try:
      runner.run(changed, f'{folder}/{name}')
    except (InputError, processes.PeerError) as error:
      seen[name] = f'{type(error).__name__}: {error}'

  stop, loop.Stop = loop.Stop, StopInOne
  seen['first'] = runner.run(own, f'{folder}/whole')
  loop.Stop = stop
  try:
    runner.run(own, f'{folder}/whole')
  except (InputError, processes.PeerError) as error:
    seen['again'] = f'{type(error).__name__}: {error}'
  seen['second'] = runner.run(own, f'{folder}/whole', resume=True)
  seen['third'] = runner.run(own, f'{folder}/whole', resume=True)
  # Each measures another time; the first one's decides.
  measure = tuner.measure
  times = {'one': (2.0, 1.0), 'block:8': (1.0, 2.0)}
  tuner.measure = lambda name, part: measure(name, part) and times[name][number]
  wide = config(devices=devices, layout='tune', clients=40)
  tuned = simulate.Simulation(wide)
  tuned.advance_rounds(1)
  seen['tuned'] = [*tuned.choice[:3], str(tuned._layout)]
  tuner.measure = measure
  # What only the first one has kept is known to all.
  wide.layout = 'auto'
  os.environ['XDG_CACHE_HOME'] += f'-{number}' if number else ''
  seen['kept'] = simulate.Simulation(wide).choice[:3]

  layout = placement.parse_layout('one', devices)
  seen['layout'] = str(layout)
  print(json.dumps(seen))


if __name__ == '__main__':
  main(sys.argv[1], *map(int, sys.argv[2:]))
