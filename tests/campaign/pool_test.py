"""Worker processes: which there are, what each takes, and what it tells."""

import os
import signal

import pytest

from relief_jax.campaign import bundle, pool, worker
from relief_jax.engine import machine
from relief_jax.storage import job_spec
from tests.support.campaigns import jobs


def test_a_worker_per_gpu(monkeypatch):
  assert machine.accelerators() == []  # the tests ask for the CPU
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(machine, '_plugins', lambda: True)
  monkeypatch.setattr(machine, '_ask', lambda *_: ('gpu', 2))
  assert machine.accelerators() == ['0', '1']
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
  assert pool.default_workers() == 2
  found = [pool.environment(3, 'cache', i) for i in range(3)]
  assert [env['CUDA_VISIBLE_DEVICES'] for env in found] == ['2', '5', '2']
  assert found[0]['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  two = pool.environment(2, 'cache', 1)
  assert 'XLA_PYTHON_CLIENT_PREALLOCATE' not in two


@pytest.mark.parametrize('shown', ['', '-1', '0'])
def test_what_jax_cannot_use_is_no_gpu(monkeypatch, shown):
  """A hidden card stays hidden from workers; one of a CPU's JAX is none."""
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', shown)
  monkeypatch.setattr(machine, '_plugins', lambda: shown != '0')
  monkeypatch.setattr(machine, '_ask', lambda *_: ('cpu', 1))
  assert machine.accelerators() == []
  assert pool.default_workers() == machine.cores()
  assert pool.environment(1, 'cache')['CUDA_VISIBLE_DEVICES'] == shown


def test_a_bundle_is_shared_and_each_run_taken_once(tmp_path):
  jobs = [job_spec.Job('a', s, f'a/{s}', {}) for s in range(5)]
  one = bundle.Bundle.write(tmp_path / 'b.json', jobs, 2)
  other = bundle.Bundle(tmp_path / 'b.json')
  assert one.jobs == other.jobs == jobs
  assert (one.take(), other.take(), one.take()) == ([0, 1], [2, 3], [4])
  assert other.take() == other.left() == []


def test_half_a_line_is_read_when_it_is_whole(tmp_path):
  log, follower = (
    bundle.Log(tmp_path / 'log'),
    bundle.Follower(tmp_path / 'log'),
  )
  assert not list(follower.news())
  log.tell('start', 3, round=0)
  with open(tmp_path / 'log', 'a') as file:
    file.write('{"event": "upd')
    file.flush()
    assert [m['event'] for m in follower.news()] == ['start']
    assert not list(follower.news())
    file.write('ate"}\n')
  assert list(follower.news()) == [{'event': 'update'}]


def test_a_free_worker_begins_a_new_structure_then_helps(tmp_path):
  def made(name, count):
    jobs = [job_spec.Job(name, s, f'{name}/{s}', {}) for s in range(count)]
    return bundle.Bundle.write(tmp_path / name, jobs, 1)

  few, many = made('few', 1), made('many', 3)
  both = [few, many]
  assert pool.choose(both, [], [], []) is few
  assert pool.choose(both, [few], [], [few]) is many
  # Help finds the compiled program.
  assert pool.choose(both, both, [few], both) is None
  assert pool.choose(both, both, both, both) is many
  many.take(), many.take()
  # The last one is for the worker that is on its way.
  assert pool.choose(both, both, both, both) is None
  few.take(), many.take()
  assert pool.choose(both, both, both, []) is None


def test_a_worker_performs_its_bundle(fake, tmp_path):
  """Failures are messages; a stop leaves the rest to others."""
  some = jobs(tmp_path, seed='0:3')
  some[1].config['fleet'] = 'nowhere.csv'
  made = bundle.Bundle.write(tmp_path / 'b.json', some, 1)
  log = tmp_path / 'log'
  worker.work(made, bundle.Log(log))
  told = list(bundle.Follower(log).news())
  ends = [(m['job'], m['status']) for m in told if m['event'] == 'end']
  assert ends == [(0, 'complete'), (1, 'failed'), (2, 'complete')]
  assert [m['jobs'] for m in told if m['event'] == 'take'] == [[0], [1], [2]]
  rounds = [m['round'] for m in told if m['event'] == 'update']
  assert rounds == [0, 5, 10] * 2


def test_a_worker_that_was_stopped_takes_nothing_more(
  fake, tmp_path, monkeypatch
):
  some = jobs(tmp_path, seed='0:2')
  made = bundle.Bundle.write(tmp_path / 'b.json', some, 1)
  advance = fake.Simulation.advance

  def stopped(self):
    os.kill(os.getpid(), signal.SIGTERM)
    return advance(self)

  monkeypatch.setattr(fake.Simulation, 'advance', stopped)
  worker.work(made, bundle.Log(tmp_path / 'log'))
  ends = [m for m in bundle.Follower(tmp_path / 'log').news() if 'status' in m]
  assert [end['status'] for end in ends] == ['interrupted']
  assert made.left() == [1]
