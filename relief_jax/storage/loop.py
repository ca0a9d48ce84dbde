"""Runs opened simulations to their ends: evaluates, records and saves."""

import contextlib

from relief_jax import datasets, plugins, sweep
from relief_jax.engine import processes
from relief_jax.runs.round_totals import Diverged
from relief_jax.storage import callback, preparing, records
from relief_jax.storage.opening import Member, Opened
from relief_jax.storage.result import Result
from relief_jax.storage.stop import Stop


class Going:
  """Holds a run while it goes on.

  Attributes:
    simulation: the run.
    folder: its run directory, None where nothing is kept.
    reporter: shows the progress.
    status: how it ended, '' while it goes on.
    diverged: what ended it, if that did.
    stop_reason: why a callback wants it to stop, '' if none does.
  """

  def __init__(self, opened: Opened, member: Member):
    """Takes up an opened run.

    Args:
      opened: its simulation and files.
      member: what was asked for.
    """
    self.simulation, self.status = opened.simulation, ''
    self.reporter, self.stop_reason = member.reporter, ''
    self.diverged: Diverged | None = None
    self._callbacks, self._keep = member.callbacks, member.keep
    self.folder, self._files = opened.folder, opened.files
    self._saved = self.simulation.round
    self._invented = (
      member.config['dataset'] == 'auto'
      and self.simulation.config.dataset == 'synthetic'
    )
    self._summary: dict = {}

  def start(self) -> None:
    """Tells that the run begins, or goes on."""
    run = self.simulation
    self.reporter.start(title(run), run.config.rounds, run.round)
    if self._invented:
      self.reporter.note(datasets.remark(['synthetic']))
    self.reporter.note(str(run.choice))
    if self._callbacks and processes.is_main():
      for one in self._callbacks:
        one.on_start(self.result())

  def take(self, outcome: dict | Diverged | None) -> None:
    """Takes what came out of a call; None where the run had ended before."""
    if isinstance(outcome, dict):
      self._record(outcome)
    elif outcome:
      self.diverged = outcome
      self.finish(
        records.DIVERGED,
        diverged_round=outcome.round,
        diverged_group=outcome.group,
        reason=str(outcome),
      )

  def _record(self, record: dict) -> None:
    """Writes an evaluation, with what callbacks measure."""
    main = processes.is_main()
    if self._callbacks and main:
      record |= callback.measure(self._callbacks, self.result(), record)
    if self._files:
      self._files.record(self.simulation, record)
    self.reporter.update(record)
    if self._callbacks and main:
      self.stop_reason = callback.asks_to_stop(
        self._callbacks, self.result(), record
      )

  def settle(self, interrupted: bool, stopped: str = '') -> None:
    """Saves where it is time to, and ends where it is over.

    Args:
      interrupted: the process was asked to end.
      stopped: why a callback wants the run to stop.
    """
    run, over = self.simulation, bool(interrupted or stopped)
    due = 0 < run.config.checkpoint_every <= run.round - self._saved
    if self._keep if run.done else due or over:
      if self._files:
        self._files.save(run)
      self._saved = run.round
    if run.done:
      self.finish(records.COMPLETE)
    elif stopped:
      self.finish(records.STOPPED, stop_reason=stopped)
    elif interrupted:
      self.finish(records.INTERRUPTED)

  def finish(self, status: str, **facts) -> None:
    """Writes the summary.

    Args:
      status: how it ended.
      **facts: more about that.
    """
    self._summary = {
      **self._so_far(status),
      **facts,
      **records.environment(),
    }
    if self._files:
      self._files.finish(self.simulation, self._summary)
    self.status = status
    self.reporter.finish(self._summary)
    if self._callbacks and processes.is_main():
      for one in self._callbacks:
        one.on_end(self.result())

  def _so_far(self, status: str = records.RUNNING) -> dict:
    return {
      'schema': records.SCHEMA,
      'status': status,
      'round': self.simulation.round,
      **self.simulation.summary(),
    }

  def result(self) -> Result:
    """Gives what came out of the run so far."""
    run, summary = self.simulation, self._summary
    return Result(
      run.config,
      run.history,
      (lambda: summary) if self.status else self._so_far,
      run.model,
      self.folder,
    )


def loop(runs: list[Going]) -> None:
  """Runs simulations of one structure to their ends.

  Args:
    runs: at the same round.

  Raises:
    InputError: they do not fit into memory.
    PeerError: another process of the run failed.
    StorageError: a directory cannot be written.
  """
  first = runs[0].simulation
  together = (
    sweep.Together([run.simulation for run in runs]) if len(runs) > 1 else None
  )
  stop = Stop()
  # Where nothing is kept, a signal acts as it always does.
  kept = any(run.folder for run in runs)
  with stop if kept else contextlib.nullcontext():
    with processes.together():
      for run in runs:
        run.start()
    reporters = [run.reporter for run in runs]
    estimate = str(preparing.prepare(first, together, reporters))
    for run in runs:
      run.reporter.note(estimate)
      if run.simulation.done:  # killed before the summary
        run.finish(records.COMPLETE)
    while not all(run.status for run in runs):
      outcomes = together.advance() if together else [_advance(first)]
      # A signal may have reached one process only.
      interrupted = any(processes.gather(stop.requested))
      with processes.together():  # only the first one meets a full disk
        for run, outcome in zip(runs, outcomes, strict=True):
          if not run.status:
            run.take(outcome)
      for run in runs:
        stopped = processes.share(run.stop_reason)
        with processes.together():
          if not run.status:
            run.settle(interrupted, stopped)


def _advance(simulation) -> dict | Diverged:
  """Advances one simulation, as `sweep.Together.advance` does several."""
  try:
    return simulation.advance()
  except Diverged as error:
    return error


def title(simulation) -> str:
  """Describes a run in a few words."""
  config, facts = simulation.config, simulation.description
  tiers = ', '.join(f'{n} {k}' for k, n in facts['tiers'].items())
  return (
    f'{plugins.short(config.method)} on {facts["dataset"]}, {config.backbone}, '
    f'seed {config.seed}: {facts["clients_per_round"]} of '
    f'{facts["clients"]} clients a round ({tiers}), speed ratio '
    f'{facts["speed_ratio"]:.0f}, deadline {facts["deadline"][0]:.3g}, '
    f'{facts["parameters"]:,} parameters, {facts["layout"]}'
  )
