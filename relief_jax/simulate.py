"""Runs one simulation from Python.

`run` is what the command line does: it writes a run directory, which can be
resumed, where one is named. `Simulation` is advanced by hand, from evaluation
to evaluation, and holds no file.
"""

import os
from collections.abc import Sequence

import jax
import ml_collections

from relief_jax.engine import machine
from relief_jax.runs import program, start
from relief_jax.runs.cost_rounds import Costs
from relief_jax.runs.cost_rounds import simulate as costs
from relief_jax.runs.round_totals import Diverged
from relief_jax.runs.simulation import Simulation
from relief_jax.storage import progress, reading, records, runner
from relief_jax.storage.callback import Callback
from relief_jax.storage.opening import Member
from relief_jax.storage.result import Result

__all__ = [
  'Costs',
  'Diverged',
  'Result',
  'Simulation',
  'clear',
  'costs',
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
  *,
  workdir: str | os.PathLike | None = None,
  resume: bool = False,
  callbacks: Sequence[Callback] = (),
  reporter: progress.Quiet | None = None,
) -> Result:
  """Runs a simulation to the end.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 5, 32
  >>> run(c).metrics['f1'].size  # rounds 0 and 5
  2

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    workdir: the run directory, the same as the command's; None: nothing is
      written.
    resume: go on with the run in `workdir` from its newest checkpoint, also a
      finished one with more `config.rounds`; in a new directory, begin.
    callbacks: called while it goes on (`relief_jax.callbacks`).
    reporter: shows the progress, such as `progress.reporter()`.

  Returns:
    What came out. A run that has nothing left to do is read, not run.

  Raises:
    InputError: bad config, data or fleet, a directory that holds a run
      (without `resume`) or another one (with it).
    Diverged: a loss or a parameter is not finite; the directory says so, too.
    KeyboardInterrupt: a signal asked for it, after what was done is saved.
    PeerError: another process of the run failed.
    StorageError: the directory cannot be written.
  """
  done = runner.perform(
    Member(
      config,
      workdir,
      data_dir,
      reporter or progress.Quiet(),
      callbacks=callbacks,
    ),
    resume,
  )
  if isinstance(done, str):
    assert workdir is not None  # elsewhere there is always something to do
    return reading.load(workdir, data_dir)
  if done.diverged:
    raise done.diverged
  if done.status == records.INTERRUPTED:
    raise KeyboardInterrupt(
      f'saved in {workdir} after round {done.simulation.round}: '
      'run(..., resume=True) goes on'
    )
  return done.result()
