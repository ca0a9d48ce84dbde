"""Runs on disks of every size that is too small, and goes on with more room.

python -m tests.faults.disks [--step=4]

Each disk is a tmpfs of so many kB more than the one before it. A run of the
stand-in of `fake_simulate` fills it up: exit code 74 and one line, nothing
else. With more room the same command with `--resume` must end with the records
of a run that always had room. The last disk is the first that is large enough.

Mounting needs root or a user namespace of one's own; nothing is mounted
outside of it.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

from relief_jax.cli import command
from relief_jax.runs import simulation
from relief_jax.storage import exit_codes, runner
from tests.faults import kills
from tests.support import fake_simulate

_LIMIT = 4096  # kB; no run of the stand-in needs as much
_ROOM = 'size=64m'


@functools.cache
def private() -> tuple[str, ...]:
  """The command before a command that may mount; () where none may."""
  for options in ('-m', '-rm'):
    found = 'unshare', options
    mounting = 'mount -t tmpfs -o size=64k tmpfs /tmp'
    with contextlib.suppress(OSError):
      done = subprocess.run(
        [*found, 'sh', '-c', mounting], capture_output=True, timeout=20
      )
      if not done.returncode:
        return found
  return ()


def _child(folder: pathlib.Path, out: pathlib.Path) -> tuple[int, list[str]]:
  """Exit code and lines of a run, or of the rest of it, in a child."""

  def work():
    simulation.Simulation = fake_simulate.Simulation
    config = kills.fake_config()
    command.call(
      lambda: exit_codes.CODES[runner.run(config, folder, None, True)]
    )

  out.write_text('')
  code = os.waitstatus_to_exitcode(kills.forked(work, out))
  return code, out.read_text().splitlines()


def _records(folder: pathlib.Path) -> list[list[str]]:
  names = 'metrics.jsonl', 'devices.jsonl'
  return [kills.timeless(folder / name) for name in names]


def fill(home: pathlib.Path, step: int) -> list[str]:
  """Tries disks that are larger and larger.

  Args:
    home: an empty folder on a disk with room.
    step: kB from one to the next.

  Returns:
    What was full on each, in the order of their sizes.

  Raises:
    AssertionError: another exit code or result, or more than one line.
  """
  disk, out, found = home / 'disk', home / 'out.txt', []
  disk.mkdir()
  code, said = _child(home / 'whole', out)
  assert (code, said) == (0, []), said
  for size in range(step, _LIMIT, step):
    mount = 'mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', disk
    subprocess.run(mount, check=True)
    try:
      code, said = _child(disk / 'run', out)
      if code:
        assert code == exit_codes.STORAGE and len(said) == 1, (size, code, said)
        assert 'No space left' in said[0] and 'make room' in said[0], said
        found.append(said[0].split(': ')[1].rpartition('/run/')[2])
        subprocess.run(['mount', '-o', f'remount,{_ROOM}', disk], check=True)
        assert _child(disk / 'run', out)[0] == 0, (size, out.read_text())
      assert _records(disk / 'run') == _records(home / 'whole'), size
    finally:
      subprocess.run(['umount', disk], check=True)
    if not code:
      return found
  raise AssertionError(f'a run needs more than {_LIMIT} kB')


def main() -> None:
  """Prints what was full, or fails."""
  parser = argparse.ArgumentParser(prog='python -m tests.faults.disks')
  parser.add_argument('--step', type=int, default=4, help='kB')
  parser.add_argument('--inside', action='store_true', help='may mount')
  given = parser.parse_args()
  if not given.inside:
    if not private():
      sys.exit('error: neither root nor a user namespace may mount here')
    again = [sys.executable, '-m', 'tests.faults.disks', f'--step={given.step}']
    os.execvp('unshare', [*private(), *again, '--inside'])
  with tempfile.TemporaryDirectory() as folder:
    found = fill(pathlib.Path(folder), given.step)
  print(
    f'{len(found)} full disks, each with one line and code '
    f'{exit_codes.STORAGE}; all went on to the same end. Full were: '
    f'{", ".join(dict.fromkeys(found))}'
  )


if __name__ == '__main__':
  main()
