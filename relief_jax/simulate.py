"""Runs many rounds in one compiled program, with evaluations between calls.

`Simulation` is what the command line, the benchmarks and notebooks drive. It
holds no file: `relief_jax/storage` writes the run directory.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from relief_jax.engine import machine, placement
from relief_jax.runs import program, start
from relief_jax.runs.result import Result
from relief_jax.runs.round_totals import Diverged
from relief_jax.runs.simulation import Simulation

__all__ = [
  'Diverged',
  'Result',
  'Simulation',
  'clear',
  'run',
  'set_devices',
]


def set_devices(count: int) -> None:
  """Asks for virtual CPU devices; must come before JAX starts its backend.

  Args:
    count: 0 for one per core that this process may use.

  Raises:
    RuntimeError: JAX has already started.
  """
  jax.config.update('jax_num_cpu_devices', count or machine.cores())


def clear() -> None:
  """Forgets all compiled programs (long sweeps over unlike shapes)."""
  start.clear()
  program.clear()
  jax.clear_caches()


def run(
  config: ml_collections.ConfigDict,
  data_dir: str | None = None,
  on_eval: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
  """Runs a simulation to the end.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 5, 32
  >>> run(c).to_pandas()['f1'].size  # rounds 0 and 5
  2

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    on_eval: called with the record of every evaluation.

  Returns:
    The result of the run.

  Raises:
    InputError: bad config, data or fleet.
    Diverged: a loss or a parameter is not finite.
  """
  simulation = Simulation(config, data_dir)
  while not simulation.done:
    record = simulation.advance()
    if on_eval:
      on_eval(record)
  return Result(
    config=simulation.config,
    history=simulation.history,
    summary=simulation.summary(),
    params=jax.device_get(placement.local(simulation.params)),
  )
