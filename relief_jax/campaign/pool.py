"""A pool of worker processes, each fed with runs of one structure at a time.

A worker is a fresh Python process (`campaign.worker`) that reads a list of
jobs per line, as JSON, and answers with JSON lines, so nothing is shared or
forked. It keeps its compiled programs while the structure stays, hence runs
that differ in values only go to the same worker while there is enough to do.
"""

import collections
import contextlib
import errno
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from relief_jax.engine import machine
from relief_jax.errors import StorageError
from relief_jax.storage.job_spec import Job, structure, world

READY = {'event': 'ready'}  # a worker's first line


class Schedule:
  """Decides which worker does which jobs next."""

  def __init__(self, jobs: Iterable[Job]):
    """Groups jobs by structure and world, otherwise in their order."""
    worlds: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
      key = structure(job.config), world(job.config)
      worlds.setdefault(key, []).append(job)
    self._left: dict[str, collections.deque[Job]] = {}
    for (name, _), some in worlds.items():
      self._left.setdefault(name, collections.deque()).extend(some)
    self._begun: set[str] = set()

  def take(self, last: str | None, most: int = 1) -> tuple[str, list[Job]]:
    """Takes the next jobs, all of one structure.

    The structure that the worker knows first, then one that nobody has begun,
    then help with the one that has most left.

    Args:
      last: structure of the worker's last job.
      most: jobs at a time.

    Returns:
      The structure and its jobs; none when all is out.
    """
    left = {name: jobs for name, jobs in self._left.items() if jobs}
    if not left:
      return '', []
    fresh = [name for name in left if name not in self._begun]
    if last in left:
      name = str(last)
    elif fresh:
      name = fresh[0]
    else:
      name = max(left, key=lambda name: len(left[name]))
    self._begun.add(name)
    found = left[name]
    return name, [found.popleft() for _ in range(min(most, len(found)))]


class Spent(NamedTuple):
  """Holds the seconds of all workers together.

  Attributes:
    starting: processes, until they can take a job.
    working: on jobs.
    waiting: for the last job of another worker.
  """

  starting: float = 0.0
  working: float = 0.0
  waiting: float = 0.0


class Pool:
  """Runs jobs in worker processes; one thread here attends to each.

  Attributes:
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
    jobs = list(jobs)
    self._schedule = Schedule(jobs)
    self._workers, self._together = workers, together
    # Fewer jobs need fewer processes, but each keeps its share of the machine:
    # what is left of a campaign must come out as it would have before.
    self._started = max(1, min(workers, -(-len(jobs) // together)))
    self._logs = log_dir
    self._lock = threading.Lock()
    self._processes: dict[int, subprocess.Popen] = {}
    self._events: queue.SimpleQueue[tuple[Job, dict] | None] = (
      queue.SimpleQueue()
    )
    self.stopped, self.spent = False, Spent()

  def run(self, on_event: Callable[[Job, dict], None]) -> None:
    """Runs all jobs; returns when every one was tried, or after `stop`.

    Args:
      on_event: called, one call at a time, with what a worker tells of a job:
        'event' is 'start', 'update' or 'end'; an end has 'status' and, where
        it is 'failed', 'reason'.

    Raises:
      OSError: a worker process could not be started.
      StorageError: its log cannot be written.
    """
    errors: list[Exception] = []
    began = time.monotonic()
    # Workers share what they compile; it is gone afterwards, since another
    # machine could not use it.
    with tempfile.TemporaryDirectory() as cache:
      self._environments = [
        environment(self._workers, cache, number)
        for number in range(self._started)
      ]
      self._run(on_event, errors)
    every = self._workers * (time.monotonic() - began)
    self.spent = self.spent._replace(
      waiting=every - self.spent.starting - self.spent.working
    )
    if errors:
      raise errors[0]

  def _run(self, on_event, errors: list[Exception]) -> None:
    for number in range(self._started):
      threading.Thread(target=self._guard, args=(number, errors)).start()
    left = self._started
    while left:
      try:
        found = self._events.get(timeout=0.2)  # in pieces, to hear signals
        if found is None:
          left -= 1
        else:
          on_event(*found)
      except queue.Empty:
        pass
      except Exception as error:  # of `on_event`; workers finish their call
        errors.append(error)
        self.stop()

  def stop(self) -> None:
    """Lets every worker finish its call and save; hands out nothing more."""
    self.stopped = True
    for process in list(self._processes.values()):
      if process.poll() is None:
        process.terminate()

  def _guard(self, number: int, errors: list) -> None:
    try:
      self._attend(number)
    except Exception as error:  # handed to the caller of `run`
      errors.append(error)
      self.stop()
    finally:
      self._events.put(None)

  def _attend(self, number: int) -> None:
    """Feeds one worker, replacing it when it dies."""
    last = None
    while not self.stopped:
      with self._lock:
        last, jobs = self._schedule.take(last, self._together)
      if not jobs:
        break
      process = self._processes.get(number)
      if process is None or process.poll() is not None:
        process = self._processes[number] = self._start(number)
      self._perform(process, jobs)
    process = self._processes.get(number)
    if process:
      process.stdin.close()  # type: ignore[union-attr]
      process.wait()

  def _spend(self, **seconds: float) -> None:
    """Adds to the seconds spent."""
    with self._lock:
      found = {k: getattr(self.spent, k) + v for k, v in seconds.items()}
      self.spent = self.spent._replace(**found)

  def _perform(self, process, jobs: list[Job]) -> None:
    """Hands jobs over and follows them until each has ended."""
    left = dict(enumerate(jobs))
    began = time.monotonic()

    def tell(number, message):
      # Heard by the main thread: what it writes keeps no worker waiting.
      self._events.put((jobs[number], message))
      if message['event'] == 'end':
        del left[number]

    try:
      process.stdin.write(json.dumps([job._asdict() for job in jobs]) + '\n')
      process.stdin.flush()
      if self.stopped:  # it began after the others had been told
        process.terminate()
      while left and (line := process.stdout.readline()):
        message = json.loads(line)
        if message == READY:
          self._spend(starting=time.monotonic() - began)
          began = time.monotonic()
        else:
          tell(message.pop('job'), message)
    except BrokenPipeError:
      pass
    self._spend(working=time.monotonic() - began)
    if not left:
      return
    code = process.wait()
    reason = f'the worker process ended with code {code}; see {self._logs}'
    end = {'event': 'end', 'status': 'failed', 'reason': reason}
    if self.stopped:
      end = {'event': 'end', 'status': 'interrupted'}
    for number in list(left):
      tell(number, end)

  def _start(self, number: int) -> subprocess.Popen:
    path = self._logs / f'worker_{number}.log'
    with contextlib.ExitStack() as stack:
      try:
        log = stack.enter_context(open(path, 'a', encoding='utf-8'))
      except OSError as error:
        raise StorageError(path, error.errno or errno.EIO) from error
      return subprocess.Popen(
        # -P: the folder one stands in may have a relief_jax/ of its own.
        [sys.executable, '-P', '-m', 'relief_jax.campaign.worker'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=self._environments[number],
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
  env.setdefault('JAX_COMPILATION_CACHE_DIR', cache)
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
