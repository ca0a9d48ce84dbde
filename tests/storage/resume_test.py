"""A run that was stopped and resumed equals one that never was."""

import json
import os
import signal

import numpy as np
import pytest

from relief_jax import config as config_lib
from relief_jax.errors import InputError
from relief_jax.storage import directory, records, runner
from relief_jax.storage.checkpoints import Checkpoints
from tests.support import fake_simulate

KEYS = {
  'metrics': 'round sim_seconds joules up_bytes down_bytes f1 accuracy '
  'f1_global f1_own f1_rare_only f1_without_rare f1_by_subset f1_by_tier '
  'divergence trained_share loss wall_seconds',
  'summary': 'schema status method dataset backbone clients rounds seed '
  'rounds_to_target sim_seconds_per_round sim_seconds_total '
  'sim_seconds_to_target joules_total joules_to_target up_bytes_total '
  'down_bytes_total wall_seconds rounds_per_second clients_per_second '
  'compiles peak_memory_bytes layout versions device_kind git_revision',
}


def config(**keys):
  found = config_lib.default()
  found.rounds, found.eval_every, found.checkpoint_every = 30, 5, 10
  found.dataset = 'synthetic'
  found.update(keys)
  return found


def signal_at(monkeypatch, number, round_):
  """Sends this process a signal while the call from `round_` is running."""
  advance = fake_simulate.Simulation.advance

  def wrapped(self):
    if self.round == round_ and self.history:
      os.kill(os.getpid(), number)
    return advance(self)

  monkeypatch.setattr(fake_simulate.Simulation, 'advance', wrapped)


def test_run_directory(fake, tmp_path):
  status = runner.run(config(), tmp_path / 'a')
  assert status == 'complete'
  found = set(os.listdir(tmp_path / 'a'))
  assert found == {
    'config.json',
    'identity.json',
    'metrics.jsonl',
    'devices.jsonl',
    'columns.json',
    'confusion.json',
    'summary.json',
    'checkpoints',
    'tb',
  }
  lines = (tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row['round'] for row in rows] == [0, 5, 10, 15, 20, 25, 30]
  assert set(KEYS['metrics'].split()) <= rows[-1].keys()
  assert rows[-1]['divergence']['acc'] is None  # NaN is not JSON
  summary = records.read_json(tmp_path / 'a' / 'summary.json')
  assert set(KEYS['summary'].split()) <= summary.keys()
  assert summary['schema'] == records.SCHEMA
  kept = {p for p in os.listdir(tmp_path / 'a' / 'checkpoints') if p.isdigit()}
  assert kept == {'20', '30'}
  assert any('tfevents' in p for p in os.listdir(tmp_path / 'a' / 'tb'))


@pytest.mark.invariant(2)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('at', [0, 10, 20])
def test_stopped_and_resumed_equals_uninterrupted(
  fake, tmp_path, monkeypatch, number, at
):
  runner.run(config(), tmp_path / 'a')
  with monkeypatch.context() as patch:
    signal_at(patch, number, at)
    assert runner.run(config(), tmp_path / 'b') == 'interrupted'
  summary = records.read_json(tmp_path / 'b' / 'summary.json')
  assert summary['status'] == 'interrupted'
  assert summary['round'] == at + 5
  fake.CALLS.clear()
  assert runner.run(config(), tmp_path / 'b', resume=True) == 'complete'
  assert fake.CALLS[0] == at + 5  # nothing is done twice
  a, b = (tmp_path / x / 'metrics.jsonl' for x in 'ab')
  assert a.read_bytes() == b.read_bytes()
  a, b = (records.read_json(tmp_path / x / 'summary.json') for x in 'ab')
  assert a == b


def test_killed_between_a_line_and_its_checkpoint(fake, tmp_path, monkeypatch):
  runner.run(config(), tmp_path / 'a')

  class Killed(BaseException):
    pass

  advance = fake.Simulation.advance

  def wrapped(self):
    if self.round == 15:
      raise Killed
    return advance(self)

  with monkeypatch.context() as patch:
    patch.setattr(fake.Simulation, 'advance', wrapped)
    with pytest.raises(Killed):
      runner.run(config(), tmp_path / 'b')
  with open(tmp_path / 'b' / 'metrics.jsonl', 'ab') as file:
    file.write(b'{"round": 20, "f')
  runner.run(config(), tmp_path / 'b', resume=True)
  for name in ('metrics.jsonl', 'devices.jsonl'):
    a, b = (tmp_path / x / name for x in 'ab')
    assert a.read_bytes() == b.read_bytes()


def test_a_used_directory_is_refused_without_resume(fake, tmp_path):
  runner.run(config(), tmp_path)
  with pytest.raises(InputError, match='--resume'):
    runner.run(config(), tmp_path)
  fake.CALLS.clear()
  assert runner.run(config(), tmp_path, resume=True) == 'complete'
  assert not fake.CALLS


def test_another_config_is_refused_on_resume(fake, tmp_path):
  runner.run(config(), tmp_path)
  other = config()
  other.hparams.client_lr = 0.1
  with pytest.raises(InputError, match='config.hparams.client_lr=0.1'):
    runner.run(other, tmp_path, resume=True)


def test_resume_of_nothing_begins(fake, tmp_path):
  assert runner.run(config(), tmp_path / 'new', resume=True) == 'complete'


def test_two_processes_cannot_share_a_directory(fake, tmp_path, monkeypatch):
  advance = fake.Simulation.advance

  def nested(self):
    with pytest.raises(InputError, match='in use'):
      runner.run(config(rounds=5), tmp_path, resume=True)
    return advance(self)

  monkeypatch.setattr(fake.Simulation, 'advance', nested)
  assert runner.run(config(rounds=5), tmp_path) == 'complete'


def test_a_diverged_run_says_where(fake, tmp_path):
  bad = config()
  bad.hparams.client_lr = 1e3
  assert runner.run(bad, tmp_path) == 'diverged'
  summary = records.read_json(tmp_path / 'summary.json')
  assert summary['status'] == 'diverged'
  assert (summary['diverged_round'], summary['diverged_group']) == (5, 'head')
  assert runner.run(bad, tmp_path, resume=True) == 'diverged'


def test_bad_input_makes_no_directory(fake, tmp_path):
  with pytest.raises(InputError):
    runner.run(config(clients=0), tmp_path / 'a')
  assert not (tmp_path / 'a').exists()


def test_checkpoints_of_other_shapes_are_refused(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(InputError, match='no checkpoint'):
      checkpoints.restore({'a': np.zeros(3)})
    checkpoints.save(5, {'a': np.arange(3.0)})
    found = checkpoints.restore({'a': np.zeros(3)})
    np.testing.assert_array_equal(found['a'], np.arange(3.0))
    with pytest.raises(InputError, match='with b: None'):
      checkpoints.restore({'a': np.zeros(3), 'b': np.zeros(2)})
    with pytest.raises(InputError, match=r'float64\[3\]'):
      checkpoints.restore({'a': np.zeros(4)})


def test_a_run_of_an_older_version_is_not_resumed(tmp_path):
  text = json.dumps({'method': 'relief', 'cosines': 0})
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(InputError, match='the version that wrote it'):
    directory.stored_config(tmp_path, resume=True)
