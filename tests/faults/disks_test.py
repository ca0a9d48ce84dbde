"""Real disks that fill up, and go on once there is room."""

import os
import subprocess
import sys

import pytest

from relief_jax.storage import exit_codes, records
from tests.cli.run_test import timeless
from tests.faults import disks, faults_test
from tests.support.paths import ROOT

CONFIG = (
  '--config=experiments/configs/relief.py:smoke',
  '--config.rounds=12',
  '--config.checkpoint_every=2',
  '--config.devices=1',
)
# DISK KB OUT COMMAND...: fills it, enlarges it, goes on and takes a copy.
FILL_AND_GO_ON = """
disk=$1 out=$3
mount -t tmpfs -o size=$2k tmpfs "$disk" || exit 1
shift 3
"$@" >"$out/full.out" 2>"$out/full.err"
echo $? >"$out/full.code"
cp "$disk/run/metrics.jsonl" "$out/full.jsonl"
mount -o remount,size=64m "$disk" || exit 1
"$@" --resume >"$out/rest.out" 2>"$out/rest.err"
echo $? >"$out/rest.code"
cp -r "$disk/run" "$out/run"
"""


@pytest.fixture
def private():
  """The command before a command that may mount."""
  found = disks.private()
  if not found:
    pytest.skip('neither root nor a user namespace may mount a tmpfs here')
  return found


def simulator(workdir, cache):
  """The command line of a small run."""
  start = sys.executable, '-m', 'experiments.main', *CONFIG
  return *start, f'--workdir={workdir}', f'--compile_cache={cache}'


@pytest.mark.slow
def test_a_disk_that_fills_up_under_a_run(private, tmp_path):
  """Sized by what a run leaves: too small while a checkpoint is exchanged."""
  whole, cache, disk = (tmp_path / n for n in ('whole', 'cache', 'disk'))
  disk.mkdir()
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  options = dict(cwd=ROOT, env=environment, capture_output=True, text=True)
  done = subprocess.run(simulator(whole, cache), timeout=300, **options)
  assert done.returncode == 0, done.stderr
  pages = sum(
    -(-path.stat().st_size // 4096)
    for path in whole.rglob('*')
    if path.is_file()
  )
  folder = disk / 'run'
  script = [*private, 'sh', '-c', FILL_AND_GO_ON, 'sh']
  script += [str(disk), str(4 * pages), str(tmp_path)]
  done = subprocess.run(
    [*script, *simulator(folder, cache)], timeout=400, **options
  )
  assert done.returncode == 0, done.stderr

  said = (tmp_path / 'full.err').read_text()
  assert int((tmp_path / 'full.code').read_text()) == exit_codes.STORAGE, said
  # The only other line is a warning about the world.
  lines = [line for line in said.splitlines() if 'smallest cohort' not in line]
  assert len(lines) == 1 and 'Traceback' not in said, said
  assert lines[0].startswith(f'error: Found {folder}/checkpoints/')
  assert 'No space left on device' in lines[0]
  assert 'make room, then the same command goes on' in lines[0]
  begun = timeless(tmp_path / 'full.jsonl')
  assert 2 < len(begun) < 13

  said = (tmp_path / 'rest.err').read_text()
  assert int((tmp_path / 'rest.code').read_text()) == 0, said
  found = timeless(tmp_path / 'run' / 'metrics.jsonl')
  assert found == timeless(whole / 'metrics.jsonl')
  assert found[: len(begun)] == begun
  devices = [f / 'devices.jsonl' for f in (tmp_path / 'run', whole)]
  assert devices[0].read_bytes() == devices[1].read_bytes()
  summary = records.read_json(tmp_path / 'run' / 'summary.json')
  assert summary['status'] == records.COMPLETE


@pytest.mark.slow
def test_disks_of_every_size(private):
  """The whole of `python -m tests.faults.disks`, in larger steps."""
  del private
  said = faults_test.harness('tests.faults.disks', '--step=8')
  for name in ('metrics.jsonl', 'tb', 'checkpoints/10', 'checkpoints/30'):
    assert name in said
