"""Full disks, damaged files, kills: nothing that was finished is lost."""

import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from relief_jax.errors import InputError, StorageError
from relief_jax.storage import records, runner
from relief_jax.storage.checkpoints import Checkpoints
from tests.faults import kills
from tests.support import fake_simulate
from tests.support.paths import ROOT


def resume(folder):
  notes = fake_simulate.Notes()
  found = runner.run(kills.fake_config(), folder, None, True, notes)
  assert found == 'complete'
  return '\n'.join(notes.lines)


@pytest.fixture
def whole(fake, tmp_path):
  """A run that nothing happened to."""
  runner.run(kills.fake_config(), tmp_path / 'whole')
  return tmp_path / 'whole'


def same(folder, whole):
  for name in ('metrics.jsonl', 'devices.jsonl'):
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
  one, other = kills.checkpoint(folder), kills.checkpoint(whole)
  assert one.keys() == other.keys()
  for key in one:
    np.testing.assert_array_equal(one[key], other[key])


# -- Disks -----------------------------------------------------------------


def full_at(monkeypatch, number):
  """The disk is full at the n-th time that something waits for it."""
  left, fsync = [number], os.fsync

  def failing(handle):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(handle)

  monkeypatch.setattr(os, 'fsync', failing)


@pytest.mark.parametrize(
  'number',
  [
    0,
    4,
    11,
    *[
      pytest.param(n, marks=pytest.mark.slow)
      for n in range(23)
      if n not in (0, 4, 11)
    ],
  ],
)
def test_a_full_disk_loses_nothing(whole, tmp_path, monkeypatch, number):
  """Wherever it fills up; with room again the run goes on."""
  folder = tmp_path / 'run'
  with monkeypatch.context() as patch:
    full_at(patch, number)
    with pytest.raises(StorageError, match='No space left') as error:
      runner.run(kills.fake_config(), folder)
  assert 'make room' in str(error.value) and str(folder) in str(error.value)
  before = records.read_metrics(folder / 'metrics.jsonl')
  assert before == records.read_metrics(whole / 'metrics.jsonl')[: len(before)]
  resume(folder)
  same(folder, whole)
  assert not list(folder.glob('*.tmp'))


def test_a_full_disk_at_a_checkpoint(whole, tmp_path, monkeypatch):
  """As tensorstore says it; the checkpoint before stands."""
  folder, save = tmp_path / 'run', Checkpoints.save

  def failing(self, number, snapshot):
    if number == 20:
      self._manager.save = full
    save(self, number, snapshot)

  def full(*_, **__):
    raise ValueError(
      'RESOURCE_EXHAUSTED: Failed to write 9 bytes to file 3: No space left on '
      "device [os_error_code='28']"
    )

  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, 'save', failing)
    with pytest.raises(StorageError, match='checkpoints/20: No space left'):
      runner.run(kills.fake_config(), folder)
  fake_simulate.CALLS.clear()
  resume(folder)
  assert fake_simulate.CALLS[0] == 10
  same(folder, whole)


def test_a_folder_that_is_read_only(fake, tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(os, 'mkdir', refuse)
  with pytest.raises(StorageError, match='Read-only file system'):
    runner.run(kills.fake_config(), tmp_path / 'run')


# -- Damage ----------------------------------------------------------------


def files(folder):
  """Of the newest checkpoint."""
  return sorted(
    p for p in (folder / 'checkpoints' / '30').rglob('*') if p.is_file()
  )


def truncated(path):
  os.truncate(path, path.stat().st_size // 2)


def emptied(path):
  os.truncate(path, 0)


def flipped(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def gone(path):
  path.unlink()


WAYS = (truncated, emptied, flipped, gone)


def unfinished(whole, folder):
  """A run that was killed right after its last checkpoint."""
  shutil.copytree(whole, folder)
  (folder / 'summary.json').unlink()
  return folder


def largest(folder):
  return max(files(folder), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize('way', WAYS)
def test_a_damaged_checkpoint_is_put_aside(whole, tmp_path, way):
  """The one before it counts, it is said, and the result is the same."""
  folder = unfinished(whole, tmp_path / 'run')
  way(largest(folder))
  fake_simulate.CALLS.clear()
  said = resume(folder)
  assert 'checkpoint of round 30 is damaged' in said
  assert 'going on from round 20' in said
  assert fake_simulate.CALLS[0] == 20
  same(folder, whole)
  assert (folder / 'damaged_30').is_dir()
  # Nothing to say the next time.
  (folder / 'summary.json').unlink()
  assert 'damaged' not in resume(folder)


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_no_damage_anywhere_changes_a_result(whole, tmp_path, way):
  """Every file of a checkpoint: found out, or it did not matter."""
  put_aside = 0
  for number in range(len(files(whole))):
    folder = unfinished(whole, tmp_path / f'run{number}')
    way(files(folder)[number])
    resume(folder)
    same(folder, whole)
    put_aside += (folder / 'damaged_30').is_dir()
  assert put_aside >= 3


def test_no_whole_checkpoint_is_an_error_and_stays(whole, tmp_path):
  folder = unfinished(whole, tmp_path / 'run')
  for step in ('20', '30'):
    for path in (folder / 'checkpoints' / step).rglob('*'):
      if path.is_file():
        flipped(path)
  before = (folder / 'metrics.jsonl').read_bytes()
  with pytest.raises(InputError, match='damaged checkpoints'):
    resume(folder)
  assert (folder / 'metrics.jsonl').read_bytes() == before
  assert {'20', '30'} <= set(os.listdir(folder / 'checkpoints'))


def test_a_checksum_finds_what_the_format_does_not(tmp_path, monkeypatch):
  """Numbers that were changed with all of the format's own sums right."""
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {'a': np.arange(3.0)})
    real = checkpoints._manager.restore

    def altered(step, args):
      found = real(step, args=args)
      return {**found, 'a': found['a'] + (step == 2)}

    checkpoints.save(2, {'a': np.arange(3.0)})
    monkeypatch.setattr(checkpoints._manager, 'restore', altered)
    np.testing.assert_array_equal(checkpoints.read()['a'], np.arange(3.0))
    assert 'its checksum is another' in checkpoints.notes[0]


def test_half_a_line_is_cut_off_and_said(whole, tmp_path):
  folder = unfinished(whole, tmp_path / 'run')
  for name in ('metrics.jsonl', 'devices.jsonl'):
    with open(folder / name, 'ab') as file:
      file.write(b'{"round": 35, "f')
  said = resume(folder)
  assert said.count('ended in half a line: 16 bytes cut off') == 2
  same(folder, whole)


def test_records_that_end_before_the_checkpoint(whole, tmp_path):
  folder = unfinished(whole, tmp_path / 'run')
  lines = (folder / 'metrics.jsonl').read_bytes().splitlines(True)
  (folder / 'metrics.jsonl').write_bytes(b''.join(lines[:-1]))
  with pytest.raises(InputError, match='without round 30'):
    resume(folder)


def test_killed_before_there_was_a_config(fake, whole, tmp_path):
  """Whatever a kill in the very beginning leaves is a new run."""
  folder = tmp_path / 'run'
  folder.mkdir()
  (folder / 'config.json.77.tmp').write_text('{"meth')
  resume(folder)
  same(folder, whole)
  assert not list(folder.glob('*.tmp'))


# -- Kills -----------------------------------------------------------------


def harness(*args):
  """What `python -m` says."""
  job = subprocess.run(
    [sys.executable, '-m', *args],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert job.returncode == 0, job.stdout + job.stderr
  return job.stdout


@pytest.mark.slow
def test_killed_anywhere():
  said = harness('tests.faults.kills', '--kills=60', '--seed=1')
  assert 'all equal to an uninterrupted one' in said
