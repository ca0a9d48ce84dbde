"""What a run takes is told before it runs, and refused when it is too much."""

import jax
import pytest

from relief_jax.engine import compile_cache, memory
from relief_jax.errors import InputError
from relief_jax.simulate import Simulation
from relief_jax.storage import progress, runner
from tests.support import tiny

GB = 10**9


def test_a_run_that_does_not_fit_is_refused():
  # 6 models of their own for 1 byte: before anything is made.
  with pytest.raises(InputError, match='error feedback of its own'):
    Simulation(tiny.config(method='local_only'), memory_limit=1)
  simulation = Simulation(tiny.config(), memory_limit=1000 * GB)
  found = simulation.prepare()
  assert found.limit == 1000 * GB and found.program > 0
  assert 0.5 < found.total / memory.peak() < 2
  # Between what the process holds and what the program needs beside it.
  simulation._memory_limit = memory.resident() - 1
  with pytest.raises(InputError, match='(?s)at most the .*clients_per_round'):
    simulation.prepare()


def test_estimate_counts_devices_and_reads():
  found = memory.estimate(0, 1000, most=0)
  assert found.program == 1000 * jax.local_device_count()
  memory.check(found, 'no cure')  # an unknown limit refuses nothing
  text = str(memory.Estimate(2 * GB, GB // 2, 8 * GB))
  assert text == (
    'about 2.5 GB of 8 GB of memory (2 GB held, 500 MB for a call)'
  )
  assert memory.limit() > GB


def test_the_estimate_is_in_the_log_and_the_record(tmp_path, capsys):
  config = tiny.config(rounds=2)
  runner.run(config, tmp_path, reporter=progress.Lines())
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].startswith('layout one: ')
  # Unless another test has compiled its programs.
  estimate = lines[2 + lines[2].startswith('compiling')]
  assert estimate.startswith('about ') and 'held' in estimate
  summary = runner.records.read_json(tmp_path / 'summary.json')
  assert summary['memory_estimate'].keys() == {'held', 'program', 'limit'}
  assert summary['compile_seconds'].keys() == {'trace', 'lower', 'compile'}


def test_a_compile_cache_is_of_one_kind_of_machine(tmp_path):
  before = {
    key: getattr(jax.config, key)
    for key in (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
      'jax_persistent_cache_min_entry_size_bytes',
    )
  }
  try:
    path = compile_cache.enable(tmp_path / 'cache')
    assert path.is_dir() and path.parent == tmp_path / 'cache'
    assert jax.__version__ in path.name and 'cpu' in path.name
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='compile_cache'):
      compile_cache.enable(tmp_path / 'file')
  finally:
    for key, value in before.items():
      jax.config.update(key, value)
