"""Estimates when a campaign ends, from what its first runs took. **Ours.**

A run's time is its start (the process, the world, compilation), then its
rounds. The start of the first run of a structure costs far more than that of
the ones after it, so a mean over finished runs misleads while there are few.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relief_jax.storage import job_spec


class _Going(NamedTuple):
  """Describes a run that a worker has taken.

  Attributes:
    job: the run.
    fresh: it is the first one of its worker.
    since: clock when its worker was started, or when it was taken.
    tested: clock and round of its newest evaluation here, None before that.
  """

  job: job_spec.Job
  fresh: bool
  since: float
  tested: tuple[float, int] | None = None


class _Mean:
  """Averages by structure, and over all for structures not yet seen."""

  def __init__(self) -> None:
    self._sums: dict[str, tuple[float, float]] = {}

  def add(self, structure: str, value: float, weight: float = 1.0) -> None:
    total, weights = self._sums.get(structure, (0.0, 0.0))
    self._sums[structure] = total + value, weights + weight

  def get(self, structure: str) -> float | None:
    found = self._sums.get(structure)
    listed = [found] if found else list(self._sums.values())
    weights = sum(weight for _, weight in listed)
    return sum(total for total, _ in listed) / weights if weights else None


class Estimate:
  """Follows the runs of a campaign."""

  def __init__(
    self,
    jobs: Sequence[job_spec.Job],
    workers: int,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares an estimate.

    Args:
      jobs: that are left.
      workers: processes that share them.
      clock: gives seconds.
    """
    self._workers, self._clock = workers, clock
    self._structure = {
      job.workdir: job_spec.structure(job.config) for job in jobs
    }
    self._waiting = {job.workdir: job for job in jobs}
    self._going: dict[str, _Going] = {}
    self._taken: set[str] = set()  # structures
    # Seconds of the first start, of a later one, and of a round.
    self._first, self._later, self._round = _Mean(), _Mean(), _Mean()

  def event(self, job: job_spec.Job, message: dict) -> None:
    """Takes up a message of `pool.Pool.run`."""
    name, now = job.workdir, self._clock()
    structure = self._structure[name]
    match message['event']:
      case 'take':
        self._waiting.pop(name, None)
        self._taken.add(structure)
        fresh = message['fresh']
        since = now - message['waited']
        self._going[name] = _Going(job, fresh, since)
      case 'update':
        self._update(name, now, message['round'])
      case 'end':
        self._waiting.pop(name, None)
        self._going.pop(name, None)

  def _update(self, name: str, now: float, done: int) -> None:
    """Takes up an evaluation."""
    one, structure = self._going[name], self._structure[name]
    if one.tested is None:
      start = self._first if one.fresh else self._later
      start.add(structure, now - one.since)
    else:
      then, before = one.tested
      self._round.add(structure, now - then, done - before)
    self._going[name] = one._replace(tested=(now, done))

  def left(self) -> float | None:
    """Estimates the seconds that are left; None before a round was measured."""
    now, seconds = self._clock(), []
    for one in self._going.values():
      start, done = 0.0, 0
      if one.tested:
        done = one.tested[1]
      else:
        kind = self._first if one.fresh else self._later
        whole = kind.get(self._structure[one.job.workdir]) or 0.0
        start = max(0.0, whole - (now - one.since))
      seconds.append((one.job, start, done))
    new = set[str]()
    for job in self._waiting.values():
      structure = self._structure[job.workdir]
      fresh = structure not in self._taken and structure not in new
      new.add(structure)
      kind = self._first if fresh else self._later
      seconds.append((job, kind.get(structure) or 0.0, 0))
    times = []
    for job, start, done in seconds:
      each = self._round.get(self._structure[job.workdir])
      if each is None:
        return None
      times.append(start + each * max(job.config['rounds'] - done, 0))
    return max(sum(times) / self._workers, max(times, default=0.0))
