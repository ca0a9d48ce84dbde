"""What does a run compile, how long does it take, and what is kept?

python -m benchmarks.compile_time [--methods=relief,fedavg] [--smoke]

Three JSON lines per method: a process with an empty compile cache, a second
one that finds it filled, and in that one a run of another seed, learning rate
and deadline, which must compile nothing.
"""

import json
import tempfile

from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.engine import compile_cache

_METHODS = flags.DEFINE_list('methods', ['relief', 'fedavg'], 'methods')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')
_JOB = flags.DEFINE_string('job', None, 'internal: method')
_CACHE = flags.DEFINE_string('cache', '', 'internal: a folder')
_STATE = flags.DEFINE_string('state', '', 'internal: cold or warm')


def make_config(method: str):
  """Builds the config of the default model on synthetic data."""
  c = config_lib.default()
  c.method, c.dataset, c.clients, c.devices = method, 'synthetic', 48, 1
  c.rounds = c.rounds_per_call = c.eval_every = 1
  c.data.width = c.data.stride = 32
  if _SMOKE.value:
    c.synthetic.windows_per_class, c.model.filters = 4, (2, 2)
  return c


def measure(config, state: str) -> dict:
  """Compiles what a run needs and runs it."""
  simulation = simulate.Simulation(config)
  while not simulation.done:
    simulation.advance()
  facts = simulation.summary()
  seconds = facts['compile_seconds'] if facts['compiles'] else {}
  return {
    'benchmark': 'compile_time',
    'method': config.method,
    'state': state,
    'compiles': facts['compiles'],
    **{
      f'{stage}_seconds': seconds.get(stage, 0.0)
      for stage in ('trace', 'lower', 'compile')
    },
    'wall_seconds': facts['wall_seconds'],
  }


def main(argv):
  """Runs the cases, each pair of processes on a cache of its own."""
  del argv
  if _JOB.value:
    simulate.set_devices(1)
    compile_cache.enable(_CACHE.value)
    config = make_config(_JOB.value)
    common.emit(measure(config, _STATE.value))
    if _STATE.value == 'warm':
      config.seed, config.hparams.client_lr = 1, 0.01
      config.deadline = 'full'
      common.emit(measure(config, 'other values'))
    return
  for method in _METHODS.value:
    with tempfile.TemporaryDirectory() as folder:
      for state in ('cold', 'warm'):
        for line in common.child(
          'compile_time',
          job=method,
          cache=folder,
          state=state,
          smoke=_SMOKE.value,
        ):
          print(json.dumps(line), flush=True)


if __name__ == '__main__':
  command.launch(main)
