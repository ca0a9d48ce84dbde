"""Prepares runs for their first round, and says what they wait for."""

import time
from collections.abc import Sequence

from relief_jax import sweep
from relief_jax.engine import memory
from relief_jax.runs import compile_times
from relief_jax.runs.simulation import Simulation
from relief_jax.storage import progress


def prepare(
  simulation: Simulation,
  together: sweep.Together | None,
  reporters: Sequence[progress.Quiet],
) -> memory.Estimate:
  """Compiles the programs of runs, and estimates their memory.

  Args:
    simulation: the run, or the first of several.
    together: all of them, None where it is alone.
    reporters: of the runs, told where something has to be compiled.

  Raises:
    InputError: they need more memory than there is.
    PeerError: in another process of the run.
  """
  if not together and simulation.compiled:
    return simulation.prepare()
  name = compile_times.key(simulation, len(reporters))
  before = compile_times.before(name)
  for reporter in reporters:
    reporter.compiling(before)
  started = time.perf_counter()
  found = (together or simulation).prepare()
  compile_times.keep(name, time.perf_counter() - started)
  return found
