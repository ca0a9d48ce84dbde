"""What does testing what the devices hold cost, beside the server's model?

python -m benchmarks.evaluation_cost [--methods=heterofl,fiarse] \
    [--data_dir=DIR] [--turns=7] [--smoke]

One JSON line per method: seconds of an evaluation of the server's whole model
on the held-out persons, the same with the models that devices hold, and with
their own later windows, in turns; ratios are of the same turn.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import common, turns
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.runs import evaluation, program

_METHODS = flags.DEFINE_list(
  'methods', 'fedavg,heterofl,fedrolex,fiarse,depthfl,tfedavg', 'methods'
)
_DATA_DIR = command.define_path('data_dir', None, 'where real data is')
_TURNS = flags.DEFINE_integer('turns', 7, 'timed evaluations of each kind')
_CLIENTS = flags.DEFINE_integer('clients', 24, 'devices')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')


def cases(method: str) -> dict:
  """Compiles the three evaluations: name -> a call that waits for its end."""
  c = config_lib.default()
  c.method, c.clients, c.devices = method, _CLIENTS.value, 1
  c.deadline = '1.75*tight'
  if _SMOKE.value:
    c.dataset, c.data.width, c.model.filters = 'synthetic', 32, (4, 8)
  simulation = simulate.Simulation(c, _DATA_DIR.value)
  call, task = simulation.call, simulation.task
  done, fleet, frozen, hparams, tests = simulation.test_arguments()
  model = task
  algorithm = simulation.algorithm
  if algorithm.ensemble and task.exits:
    model = task.exits.until(task.cuts, True)

  def server(params):
    return evaluation.evaluate(
      model, params, frozen, tests.replace(own=None), fleet, call.scope
    )

  every = program.evaluator(task, simulation.algorithm, call.scope)

  def devices(params, tests):
    return every(params, jnp.int32(5), fleet, frozen, hparams, tests)

  alone = tests.replace(own=None)
  functions = {
    'server': server,
    'held': lambda params: devices(params, alone),
    'held_and_own': lambda params: devices(params, tests),
  }
  found = {}
  for name, function in functions.items():
    compiled = jax.jit(function).lower(simulation.params).compile()
    found[name] = functools.partial(
      lambda run, params: jax.block_until_ready(run(params)),
      compiled,
      simulation.params,
    )
  return found


def measure(method: str) -> dict:
  """Times the evaluations of one method in turns."""
  runs = cases(method)
  seconds: dict[str, list[list[float]]] = {name: [] for name in runs}
  for run in runs.values():
    run()
  for turn in range(_TURNS.value):
    for name in turns.order(list(runs), turn):
      started = time.perf_counter()
      runs[name]()
      seconds[name].append([time.perf_counter() - started])
  line: dict = {'benchmark': 'evaluation_cost', 'method': method}
  for name, each in seconds.items():
    line[f'{name}_seconds'] = statistics.median(one for (one,) in each)
    if name != 'server':
      line[f'{name}_over_server'] = turns.ratio(
        each, seconds['server']
      )._asdict()
  return line


def main(argv):
  """Measures method after method."""
  del argv
  simulate.set_devices(1)
  for method in _METHODS.value:
    common.emit(measure(method))


if __name__ == '__main__':
  command.launch(main)
