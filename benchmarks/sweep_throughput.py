"""Is a sweep in one program faster than its runs one by one?

python -m benchmarks.sweep_throughput [--seeds=8] [--rates=4] [--smoke]

One JSON line per way: all points in one program, spread over the devices;
then the same points as single runs in one process, which share one compiled
program and spread their clients over the devices. Every single run sets up
its own state and tests once, at the end; data are loaded once for all.
"""

import time

from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate, sweep
from relief_jax.cli import command

_SEEDS = flags.DEFINE_integer('seeds', 8, 'seeds')
_RATES = flags.DEFINE_integer('rates', 4, 'learning rates')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'of every run')
_DEVICES = flags.DEFINE_integer('devices', 0, '0: one per core')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


def make_config():
  """Builds the config of 48 clients of RELIEF on synthetic data."""
  c = config_lib.default()
  c.dataset, c.clients, c.devices = 'synthetic', 48, _DEVICES.value
  c.rounds = c.rounds_per_call = c.eval_every = _ROUNDS.value
  c.data.width = c.data.stride = 32
  c.local_steps, c.batch = 2, 16
  c.model.filters, c.model.hidden = (16, 32), 64
  if _SMOKE.value:
    c.synthetic.windows_per_class, c.clients = 4, 8
    c.batch, c.model.filters, c.model.hidden = 2, (2, 2), 4
  return c


def main(argv):
  """Times both ways, in this process."""
  del argv
  simulate.set_devices(_DEVICES.value)
  config = make_config()
  points = [
    sweep.Point(seed, {'client_lr': 0.01 * 2**rate})
    for seed in range(_SEEDS.value)
    for rate in range(_RATES.value)
  ]
  facts = {
    'benchmark': 'sweep_throughput',
    'points': len(points),
    'rounds': config.rounds,
    'clients': config.clients,
  }
  started = time.perf_counter()
  found = sweep.run_points(config, points)
  total = time.perf_counter() - started
  common.emit(
    {
      **facts,
      'way': 'one program',
      'layout': found.layout,
      'run_seconds': found.seconds['run'],
      'compile_seconds': sum(found.seconds.values()) - found.seconds['run'],
      'total_seconds': total,
    }
  )
  started, run, compiling, worst = time.perf_counter(), 0.0, 0.0, 0.0
  for point, one in zip(points, found.points, strict=True):
    config.seed = point.seed
    config.hparams.client_lr = point.hparams['client_lr']
    alone = simulate.Simulation(config)
    while not alone.done:
      alone.advance()
    wall = alone.summary()['wall_seconds']
    run, compiling = run + wall['run'], compiling + wall['compile']
    if point.seed == 0:  # the world of the sweep: the same run
      worst = max(worst, abs(alone.history[-1]['f1'] - one['f1']))
  common.emit(
    {
      **facts,
      'way': 'single runs',
      'layout': alone.summary()['layout'],
      'run_seconds': run,
      'compile_seconds': compiling,
      'total_seconds': time.perf_counter() - started,
      'largest_f1_difference': worst,
    }
  )


if __name__ == '__main__':
  command.launch(main)
