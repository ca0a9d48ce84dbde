"""Two processes of two devices each are one process of four."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from relief_jax.engine import processes
from relief_jax.errors import InputError
from relief_jax.keys import flatten
from relief_jax.storage import exit_codes, records, runner
from relief_jax.storage.checkpoints import Checkpoints
from tests.engine import processes_job
from tests.support.paths import ROOT

# The same compiler everywhere, so that bits can be compared.
ENVIRONMENT = {
  **os.environ,
  'JAX_PLATFORMS': 'cpu',
  'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
}


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def start(folder, arguments) -> list[subprocess.Popen]:
  """Two Python processes.

  Args:
    folder: for caches.
    arguments: (port, number) -> of Python, for each.
  """
  try:
    port = free_port()
  except OSError as error:
    pytest.skip(f'no loopback network for two processes: {error}')
  return [
    subprocess.Popen(
      [sys.executable, *arguments(port, number)],
      cwd=ROOT,
      env={**ENVIRONMENT, 'XDG_CACHE_HOME': str(folder / 'cache')},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in (0, 1)
  ]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """The folder of the pair's runs, and what each process saw."""
  folder = tmp_path_factory.mktemp('pair')
  job = '-m', 'tests.engine.processes_job', str(folder)
  jobs = start(folder, lambda port, n: [*job, str(port), '2', str(n), '2'])
  try:
    said = [job.communicate(timeout=300) for job in jobs]
  finally:
    for job in jobs:
      job.kill()
  for job, (_, err) in zip(jobs, said, strict=True):
    assert job.returncode == 0, err
  return folder, [json.loads(out.splitlines()[-1]) for out, _ in said]


def alike(one, other) -> list[int]:
  """The rounds of two runs, whose records must be the same."""
  found = [
    [flatten(row) for row in records.read_metrics(f / 'metrics.jsonl')]
    for f in (one, other)
  ]
  for left, right in zip(*found, strict=True):
    assert left.keys() == right.keys()
    for key in left.keys() - {'wall_seconds'}:
      if left[key] is None:
        assert right[key] is None
      else:
        np.testing.assert_allclose(left[key], right[key], rtol=1e-5, atol=1e-6)
  return [row['round'] for row in found[0]]


@pytest.mark.slow
def test_every_process_holds_its_own_rows(pair):
  _, seen = pair
  for one in seen:
    assert (one['devices'], one['local']) == (4, 2)
    assert one['table'] == 8  # seven clients and a row of padding
    assert one['rows'] == 4
    assert one['layout'] == 'one on 4 device(s) of 2 processes'


@pytest.mark.slow
def test_the_first_process_settles_the_layout_of_all(pair):
  folder, (first, second) = pair
  seconds = {'one': 2.0, 'block:8': 1.0}
  layout = 'block:8 on 4 device(s) of 2 processes'
  assert first['tuned'] == ['block:8', 'timed', seconds, layout]
  assert second['tuned'] == first['tuned']
  assert first['kept'] == second['kept'] == ['block:8', 'cache', seconds]
  assert len(list(folder.glob('cache*/relief_jax/layouts/*'))) == 1


@pytest.mark.slow
def test_a_refusal_reaches_all(pair):
  _, (first, second) = pair
  assert first['another'] == second['another']
  assert 'InputError: Found process 1 with another config' in first['another']
  assert 'seed: 1 instead of seed: 0' in first['another']
  assert first['broken'].startswith('InputError: Found config.clients is 0')
  assert second['broken'].startswith('PeerError: process 0 of 2 failed.')
  assert 'config.clients is 0' in second['broken']
  assert (
    first['again'].startswith('InputError') and '--resume' in second['again']
  )


@pytest.mark.invariant(2, 3)
@pytest.mark.slow
def test_stopped_and_resumed_equals_one_process(pair, tmp_path):
  folder, seen = pair
  for one in seen:
    found = one['first'], one['second'], one['third']
    assert found == ('interrupted', 'complete', 'complete')
  config = processes_job.config(devices=4)
  assert runner.run(config, tmp_path / 'one') == 'complete'
  assert alike(folder / 'whole', tmp_path / 'one') == [0, 2, 4, 6]
  states = []
  for path in (folder / 'whole', tmp_path / 'one'):
    with Checkpoints(path / 'checkpoints') as checkpoints:
      states.append(checkpoints.read())
  assert states[0].keys() == states[1].keys()
  for key in states[0]:
    np.testing.assert_allclose(
      states[0][key], states[1][key], rtol=1e-5, atol=1e-6
    )
  summary = records.read_json(folder / 'whole' / 'summary.json')
  assert summary['processes'] == 2 and summary['compiles'] >= 0


# -- The command line, and signals to one of two -----------------------------

# Seconds in which the others end: where the connection breaks, and where it
# stays and nothing comes (docs/reliability.md).
BROKEN, SILENT = 20, 60
ROUNDS = 30


def command_line(folder) -> list[str]:
  return [
    '-m',
    'experiments.main',
    '--config=experiments/configs/relief.py:smoke',
    f'--config.rounds={ROUNDS}',
    '--config.checkpoint_every=2',
    f'--compile_cache={folder / "programs"}',
  ]


def two(folder, *more) -> list[subprocess.Popen]:
  """The command of one run in two processes of a device each."""
  return start(
    folder,
    lambda port, number: [
      *command_line(folder),
      '--config.devices=1',
      f'--workdir={folder / "run"}',
      f'--coordinator=127.0.0.1:{port}',
      '--num_processes=2',
      f'--process_id={number}',
      *more,
    ],
  )


def end(jobs, seconds) -> list[str]:
  """What each wrote to stderr; all must end in so many seconds."""
  try:
    return [job.communicate(timeout=seconds)[1] for job in jobs]
  finally:
    for job in jobs:
      job.kill()


def begun(folder, jobs) -> None:
  """Waits until a run is well under way."""
  metrics, last = folder / 'run' / 'metrics.jsonl', time.monotonic() + 300
  while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 4:
    assert time.monotonic() < last, 'not begun in 300 s'
    assert all(job.poll() is None for job in jobs), end(jobs, 60)
    time.sleep(0.02)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """One process of two devices."""
  folder = tmp_path_factory.mktemp('undisturbed')
  job = subprocess.run(
    [sys.executable, *command_line(folder), '--config.devices=2']
    + [f'--workdir={folder / "run"}'],
    cwd=ROOT,
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert job.returncode == 0, job.stderr
  return folder / 'run'


def resumed(folder, whole) -> None:
  """Both go on, to the records of a run that nothing happened to."""
  jobs = two(folder, '--resume')
  said = end(jobs, 300)
  assert [job.returncode for job in jobs] == [0, 0], said
  assert alike(folder / 'run', whole) == list(range(ROUNDS + 1))


@pytest.mark.invariant(2, 3)
@pytest.mark.slow
@pytest.mark.parametrize('number', (0, 1))
def test_sigterm_to_one_stops_both(undisturbed, tmp_path, number):
  """After the same round, and saved."""
  jobs = two(tmp_path)
  begun(tmp_path, jobs)
  jobs[number].send_signal(signal.SIGTERM)
  said = end(jobs, 100)
  codes = [job.returncode for job in jobs]
  assert codes == [exit_codes.INTERRUPTED, exit_codes.INTERRUPTED], said
  summary = records.read_json(tmp_path / 'run' / 'summary.json')
  assert summary['status'] == records.INTERRUPTED
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    assert checkpoints.newest == summary['round'] < ROUNDS
  resumed(tmp_path, undisturbed)


@pytest.mark.invariant(2, 3)
@pytest.mark.slow
@pytest.mark.parametrize(
  ('number', 'sign', 'seconds'),
  [
    (0, signal.SIGKILL, BROKEN),
    (1, signal.SIGKILL, BROKEN),
    (0, signal.SIGSTOP, SILENT),
    (1, signal.SIGSTOP, SILENT),
  ],
)
def test_one_is_lost_and_the_other_says_so(
  undisturbed, tmp_path, number, sign, seconds
):
  """In the time that is stated, and why; then both go on."""
  jobs = two(tmp_path)
  begun(tmp_path, jobs)
  jobs[number].send_signal(sign)
  (said,) = end([jobs[1 - number]], seconds)
  jobs[number].kill()
  jobs[number].communicate()
  if jobs[1 - number].returncode == -signal.SIGABRT:
    # JAX itself, where it noticed while we were in no collective.
    assert 'another task died' in said
  else:
    assert jobs[1 - number].returncode == exit_codes.FAILED, said
    lines = [line for line in said.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and said.endswith(lines[0] + '\n'), said
    assert f'process {1 - number} without the others' in lines[0]
    assert 'start all of them again with --resume' in lines[0]
    assert 'Traceback' not in said
  if sign == signal.SIGKILL:
    resumed(tmp_path, undisturbed)


@pytest.mark.parametrize(
  'given, words',
  [
    (('localhost:1', 2, None), 'all three'),
    ((None, 2, 0), 'all three'),
    (('localhost:1', 2, 2), 'from 0 to 1'),
    (('localhost', 2, 0), 'HOST:PORT'),
    (('auto', 2, 0), 'HOST:PORT'),
  ],
)
def test_incomplete_flags_are_refused(given, words):
  with pytest.raises(InputError, match=words):
    processes.start(*given)


def test_one_process_needs_nothing():
  processes.start(None, None, None)
  assert processes.count() == 1 and processes.is_main()
  assert processes.gather({'a': 1}) == [{'a': 1}] and processes.share(2) == 2
  with pytest.raises(ValueError, match='mine'), processes.together():
    raise ValueError('mine')
