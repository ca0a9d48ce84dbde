"""Two processes of two devices each are one process of four."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from experiments import records, runner
from experiments.checkpoints import Checkpoints
from relief_jax import processes
from relief_jax.errors import InputError
from tests import processes_job

ROOT = pathlib.Path(__file__).parent.parent


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """The folder of the pair's runs, and what each process saw."""
  folder = tmp_path_factory.mktemp('pair')
  try:
    port = free_port()
  except OSError as error:
    pytest.skip(f'no loopback network for two processes: {error}')
  # The same compiler as in this process, so that bits can be compared.
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'XDG_CACHE_HOME': str(folder / 'cache'),
  }
  jobs = [
    subprocess.Popen(
      [sys.executable, '-m', 'tests.processes_job', str(folder)]
      + [str(v) for v in (port, 2, number, 2)],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in (0, 1)
  ]
  try:
    said = [job.communicate(timeout=300) for job in jobs]
  finally:
    for job in jobs:
      job.kill()
  for job, (_, err) in zip(jobs, said, strict=True):
    assert job.returncode == 0, err
  return folder, [json.loads(out.splitlines()[-1]) for out, _ in said]


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
  rows = [
    records.flatten(row)
    for path in (folder / 'whole', tmp_path / 'one')
    for row in records.read_metrics(path / 'metrics.jsonl')
  ]
  half = len(rows) // 2
  assert [row['round'] for row in rows[:half]] == [0, 2, 4, 6]
  for left, right in zip(rows[:half], rows[half:], strict=True):
    assert left.keys() == right.keys()
    for key in left.keys() - {'wall_seconds'}:
      if left[key] is None:
        assert right[key] is None
      else:
        np.testing.assert_allclose(left[key], right[key], rtol=1e-5, atol=1e-6)
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
