"""A pool of worker processes, each fed with runs of one label at a time.

A worker is a fresh Python process (`experiments.worker`) that reads one JSON
job per line and answers with JSON lines, so nothing is shared or forked. It
keeps its compiled programs, hence the seeds of a label go to the same worker
while there is enough to do.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Job(NamedTuple):
  """One run.

  Attributes:
    label: what is compared; jobs of a label share their programs.
    seed: of the run.
    workdir: its run directory.
    config: the run's config as plain JSON values.
    data_dir: where real data is looked for.
  """

  label: str
  seed: int
  workdir: str
  config: dict
  data_dir: str | None = None


class Schedule:
  """Who does what next."""

  def __init__(self, jobs: Iterable[Job]):
    """Groups jobs by label, in their order."""
    self._left: dict[str, collections.deque[Job]] = {}
    for job in jobs:
      self._left.setdefault(job.label, collections.deque()).append(job)
    self._begun: set[str] = set()

  def take(self, last: str | None) -> Job | None:
    """The next job for a worker that did label `last`; None when all is out.

    The same label first, then one that nobody has begun, then help with the
    label that has most left.
    """
    left = {label: jobs for label, jobs in self._left.items() if jobs}
    if not left:
      return None
    fresh = [label for label in left if label not in self._begun]
    if last in left:
      label = str(last)
    elif fresh:
      label = fresh[0]
    else:
      label = max(left, key=lambda name: len(left[name]))
    self._begun.add(label)
    return left[label].popleft()


class Pool:
  """Runs jobs in worker processes; one thread here attends to each."""

  def __init__(self, jobs: Iterable[Job], workers: int, log_dir: pathlib.Path):
    """Prepares; `run` starts.

    Args:
      jobs: what to do.
      workers: number of processes.
      log_dir: an existing folder for what the workers print.
    """
    self._schedule = Schedule(jobs)
    self._workers = workers
    self._logs = log_dir
    self._lock = threading.Lock()
    self._processes: dict[int, subprocess.Popen] = {}
    self.stopped = False

  def run(self, on_event: Callable[[Job, dict], None]) -> None:
    """Returns when every job was tried, or after `stop`.

    Args:
      on_event: called, one call at a time, with what a worker tells of a job:
        'event' is 'start', 'update' or 'end'; an end has 'status' and, where
        it is 'failed', 'reason'.

    Raises:
      OSError: a worker process could not be started.
    """
    errors: list[Exception] = []
    # Workers share what they compile; it is gone afterwards, since another
    # machine could not use it.
    with tempfile.TemporaryDirectory() as cache:
      self._environment = environment(self._workers, cache)
      self._run(on_event, errors)
    if errors:
      raise errors[0]

  def _run(self, on_event, errors: list[Exception]) -> None:
    threads = [
      threading.Thread(target=self._guard, args=(i, on_event, errors))
      for i in range(self._workers)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      while thread.is_alive():  # joined in pieces, to hear signals
        thread.join(0.2)

  def stop(self) -> None:
    """Lets every worker finish its call and save; hands out nothing more."""
    self.stopped = True
    for process in list(self._processes.values()):
      if process.poll() is None:
        process.terminate()

  def _guard(self, number: int, on_event, errors: list) -> None:
    try:
      self._attend(number, on_event)
    except Exception as error:  # handed to the caller of `run`
      errors.append(error)
      self.stop()

  def _attend(self, number: int, on_event) -> None:
    """Feeds one worker, replacing it when it dies."""
    last = None
    while not self.stopped:
      with self._lock:
        job = self._schedule.take(last)
      if job is None:
        break
      last = job.label
      process = self._processes.get(number)
      if process is None or process.poll() is not None:
        process = self._processes[number] = self._start(number)
      end = self._perform(process, job, on_event)
      with self._lock:
        on_event(job, end)
    process = self._processes.get(number)
    if process:
      process.stdin.close()  # type: ignore[union-attr]
      process.wait()

  def _perform(self, process, job: Job, on_event) -> dict:
    """Hands a job over and follows it; returns its last message."""
    try:
      process.stdin.write(json.dumps(job._asdict()) + '\n')
      process.stdin.flush()
      if self.stopped:  # it began after the others had been told
        process.terminate()
      for line in process.stdout:
        message = json.loads(line)
        if message['event'] == 'end':
          return message
        with self._lock:
          on_event(job, message)
    except BrokenPipeError:
      pass
    code = process.wait()
    if self.stopped:
      return {'event': 'end', 'status': 'interrupted'}
    reason = f'the worker process ended with code {code}; see {self._logs}'
    return {'event': 'end', 'status': 'failed', 'reason': reason}

  def _start(self, number: int) -> subprocess.Popen:
    with open(self._logs / f'worker_{number}.log', 'a') as log:
      return subprocess.Popen(
        [sys.executable, '-m', 'experiments.worker'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=self._environment,
        start_new_session=True,  # a Ctrl-C reaches the workers through `stop`
      )


def has_accelerator() -> bool:
  """A GPU or TPU is there, and JAX may use it."""
  if os.environ.get('JAX_PLATFORMS', '').lower() == 'cpu':
    return False
  return any(
    any(pathlib.Path('/dev').glob(name))
    for name in ('nvidia[0-9]*', 'accel[0-9]*', 'kfd')
  )


def default_workers() -> int:
  """One process per core; one in all where an accelerator is shared."""
  if has_accelerator():
    return 1
  return (
    len(os.sched_getaffinity(0))
    if hasattr(os, 'sched_getaffinity')
    else os.cpu_count() or 1
  )


def environment(workers: int, cache: str) -> dict[str, str]:
  """The environment of a worker: its threads, its store of programs."""
  env = dict(os.environ)
  root = str(pathlib.Path(__file__).resolve().parent.parent)
  env['PYTHONPATH'] = os.pathsep.join(
    filter(None, [root, env.get('PYTHONPATH')])
  )
  env.setdefault('JAX_COMPILATION_CACHE_DIR', cache)
  if workers > 1:
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NPROC'):
      env[name] = '1'
    flags = env.get('XLA_FLAGS', '')
    env['XLA_FLAGS'] = f'{flags} --xla_cpu_multi_thread_eigen=false'.strip()
  return env
