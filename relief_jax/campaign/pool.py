"""A pool of worker processes, each on the runs of one structure.

A worker is a fresh Python process (`campaign.worker`) on a bundle of runs that
may share a compiled program, so nothing is shared or forked. It tells what it
does in a file (`campaign.bundle`), which is read here from time to time. Where
a worker dies, the runs it had begun have failed, and another one goes on with
the rest of its bundle.
"""

import contextlib
import errno
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from relief_jax.campaign.bundle import FAILED, Bundle, Follower
from relief_jax.engine import machine
from relief_jax.errors import StorageError
from relief_jax.storage import records
from relief_jax.storage.job_spec import Job, structure, world

_PAUSE = 0.05  # seconds between two looks at the workers
# Seconds from which on a compiled program is worth a file.
_COMPILED = {
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
  'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
}


def by_structure(jobs: Iterable[Job]) -> list[list[Job]]:
  """Groups runs by structure, within that by world, otherwise in their order.

  Args:
    jobs: the runs.
  """
  worlds: dict[tuple[str, str], list[Job]] = {}
  for job in jobs:
    key = structure(job.config), world(job.config)
    worlds.setdefault(key, []).append(job)
  found: dict[str, list[Job]] = {}
  for (name, _), some in worlds.items():
    found.setdefault(name, []).extend(some)
  return list(found.values())


def choose(
  bundles: Sequence[Bundle],
  begun: Collection[Bundle],
  helped: Collection[Bundle],
  starting: Sequence[Bundle],
) -> Bundle | None:
  """Chooses what a free worker does: a new bundle, else help with the longest.

  Help waits for the compiled program, which it then finds in the cache.

  Args:
    bundles: all of them.
    begun: those that a worker was started for.
    helped: those that may be: a run was tested, or the worker has ended.
    starting: of the workers that have taken nothing yet, and soon will.

  Returns:
    None where no run is left for it.
  """

  def left(one: Bundle) -> int:
    return len(one.left()) - one.together * starting.count(one)

  if fresh := [one for one in bundles if one not in begun]:
    return fresh[0]
  longest = max(helped, key=left, default=None)
  return longest if longest and left(longest) > 0 else None


class Spent(NamedTuple):
  """Holds the seconds of all workers together.

  Attributes:
    starting: processes, until they can take a run.
    working: on runs.
    waiting: for the last run of another worker.
  """

  starting: float = 0.0
  working: float = 0.0
  waiting: float = 0.0


class _Worker:
  """Follows one worker process.

  Attributes:
    bundle: its own.
    begun: runs that it has taken and not ended.
    idle: it has taken nothing.
    seconds: until it was ready, None before.
  """

  def __init__(self, process: subprocess.Popen, bundle: Bundle, log: Follower):
    self.process, self.bundle, self._log = process, bundle, log
    self.begun: dict[int, Job] = {}
    self.idle, self._began = True, time.monotonic()
    self.seconds: float | None = None

  def news(self) -> list[tuple[Job, dict]]:
    """Gives what it has told of runs since the last call."""
    found = []
    for message in self._log.news():
      event, number = message['event'], message.pop('job')
      if event == 'ready':
        self.seconds = self.age()
      elif event == 'take':
        for number in message['jobs']:
          self.begun[number] = self.bundle.jobs[number]
          # The first one has waited for the process.
          waited = self.seconds if self.idle else 0.0
          told = {'event': 'take', 'fresh': self.idle, 'waited': waited}
          found.append((self.bundle.jobs[number], told))
        self.idle = False
      else:
        if event == 'end':
          self.begun.pop(number, None)
        found.append((self.bundle.jobs[number], message))
    return found

  def age(self) -> float:
    """Gives the seconds since it was started."""
    return time.monotonic() - self._began


class Pool:
  """Runs jobs in worker processes.

  Attributes:
    jobs: what there is to do.
    workers: processes that share the machine.
    stopped: `stop` was called.
    spent: what the workers' time went to, after `run`.
  """

  def __init__(
    self,
    jobs: Iterable[Job],
    workers: int,
    log_dir: pathlib.Path,
    together: int = 1,
  ):
    """Prepares a pool; `run` starts it.

    Args:
      jobs: what to do.
      workers: number of processes that share the machine.
      log_dir: an existing folder for what the workers print.
      together: jobs that a worker may run in one program.
    """
    self.jobs = list(jobs)
    # Fewer jobs need fewer processes, but each keeps its share of the machine:
    # what is left of a campaign must come out as it would have before.
    self.workers, self._together = workers, together
    self._logs = log_dir
    self._running: dict[int, _Worker] = {}
    self.stopped, self.spent = False, Spent()

  def run(self, on_event: Callable[[Job, dict], None]) -> None:
    """Runs all jobs; returns when every one was tried, or after `stop`.

    Args:
      on_event: called with what a worker tells of a job: 'event' is 'take',
        'start', 'compile', 'update' or 'end'; an end has 'status' and, where
        it is `FAILED`, 'reason'.

    Raises:
      OSError: a worker process could not be started.
      StorageError: its log cannot be written.
    """
    began = time.monotonic()
    # Workers share what they compile; it is gone afterwards, since another
    # machine could not use it.
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
      stack.callback(self._end)
      self._run(pathlib.Path(name), on_event)
    every = self.workers * (time.monotonic() - began)
    self.spent = self.spent._replace(
      waiting=every - self.spent.starting - self.spent.working
    )

  def _run(self, folder: pathlib.Path, on_event) -> None:
    bundles = [
      Bundle.write(folder / f'bundle_{i}.json', jobs, self._together)
      for i, jobs in enumerate(by_structure(self.jobs))
    ]
    programs = folder / 'programs'
    programs.mkdir()
    begun: set[Bundle] = set()
    helped: set[Bundle] = set()
    started = itertools.count()
    while True:
      for number in range(self.workers):
        if number in self._running or self.stopped:
          continue
        running = self._running.values()
        starting = [one.bundle for one in running if one.idle]
        if not (found := choose(bundles, begun, helped, starting)):
          break
        log = folder / f'{next(started)}.jsonl'
        begun.add(found)
        process = self._start(number, found, log, programs)
        self._running[number] = _Worker(process, found, Follower(log))
        if self.stopped:  # it began after the others had been told
          process.terminate()
      if not self._running:
        return
      for number, worker in list(self._running.items()):
        code = worker.process.poll()  # before the last look at its log
        for job, message in worker.news():
          if message['event'] == 'update':
            helped.add(worker.bundle)
          on_event(job, message)
        if code is not None:
          del self._running[number]
          helped.add(worker.bundle)  # with what it may have left
          self._settle(worker, code, on_event)
      time.sleep(_PAUSE)

  def _settle(self, worker: _Worker, code: int, on_event) -> None:
    """Takes up the end of a worker, and what it leaves undone."""
    worker.process.stdin.close()  # type: ignore[union-attr]
    starting = worker.age() if worker.seconds is None else worker.seconds
    self.spent = self.spent._replace(
      starting=self.spent.starting + starting,
      working=self.spent.working + worker.age() - starting,
    )
    lost = list(worker.begun.values())
    if code and worker.idle and not self.stopped:
      # The next one would end like it.
      lost = [
        worker.bundle.jobs[i]
        for i in worker.bundle.take(len(worker.bundle.jobs))
      ]
    end = {'event': 'end', 'status': records.INTERRUPTED}
    if not self.stopped:
      reason = f'the worker process ended with code {code}; see {self._logs}'
      end = {'event': 'end', 'status': FAILED, 'reason': reason}
    for job in lost:
      on_event(job, end)

  def stop(self) -> None:
    """Lets every worker finish its call and save; hands out nothing more."""
    self.stopped = True
    for worker in list(self._running.values()):
      if worker.process.poll() is None:
        worker.process.terminate()

  def _end(self) -> None:
    """Stops what still runs, after an error, and waits for it."""
    if self._running:
      self.stop()
    for worker in self._running.values():
      worker.process.wait()
      worker.process.stdin.close()  # type: ignore[union-attr]

  def _start(
    self,
    number: int,
    bundle: Bundle,
    told: pathlib.Path,
    programs: pathlib.Path,
  ) -> subprocess.Popen:
    path = self._logs / f'worker_{number}.log'
    with contextlib.ExitStack() as stack:
      try:
        log = stack.enter_context(open(path, 'a', encoding='utf-8'))
      except OSError as error:
        raise StorageError(path, error.errno or errno.EIO) from error
      return subprocess.Popen(
        # -P: the folder one stands in may have a relief_jax/ of its own.
        [
          *(sys.executable, '-P', '-m', 'relief_jax.campaign.worker'),
          *(str(bundle.path), str(told)),
        ],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=environment(self.workers, str(programs), number),
        start_new_session=True,  # a Ctrl-C reaches the workers through `stop`
      )


def default_workers() -> int:
  """Counts the workers: one per GPU, one for all TPUs, else one per core."""
  return len(machine.accelerators()) or machine.cores()


def environment(workers: int, cache: str, number: int = 0) -> dict[str, str]:
  """Builds the environment of a worker: threads, GPU, compiled programs.

  Args:
    workers: that share the machine.
    cache: folder of compiled programs.
    number: of this worker.
  """
  env = dict(os.environ)
  root = str(pathlib.Path(__file__).resolve().parents[2])
  # Workers find the modules that this process finds, these files first.
  places = [root, *(os.path.abspath(place) for place in sys.path)]
  env['PYTHONPATH'] = os.pathsep.join(dict.fromkeys(places))
  if env.setdefault('JAX_COMPILATION_CACHE_DIR', cache) == cache:
    env |= _COMPILED
  if (found := machine.accelerators()) and found != ['tpu']:
    mine = found[number % len(found)]
    env |= dict.fromkeys(machine.VISIBLE, mine)
    if workers > len(found):  # JAX would take three quarters at once
      env.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  if workers > 1:
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NPROC'):
      env[name] = '1'
    flags = env.get('XLA_FLAGS', '')
    env['XLA_FLAGS'] = f'{flags} --xla_cpu_multi_thread_eigen=false'.strip()
  return env
