"""Kills a run again and again, and tells what every kill cost.

python -m tests.faults.kills --kills=200 [--real] [--seed=0]

A run is begun, killed by SIGKILL and begun again with `resume` until it
completes, in a child process each time. Where it is killed is drawn: after a
random time, before the n-th touch of its folder (a file opened, renamed,
removed, a folder made, ...: `sys.addaudithook` tells), or in the middle of a
line of `metrics.jsonl`. Every finished run must equal one that was never
killed, byte for byte, and no kill may cost more than the work since the last
checkpoint that was reported written.

The simulation is the stand-in of `fake_simulate`, or with `--real` a small
real one.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from relief_jax.engine import compile_cache
from relief_jax.runs import simulation
from relief_jax.storage import records, runner
from relief_jax.storage.checkpoints import Checkpoints
from tests.support import fake_simulate, tiny

_TOUCH = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir')
_TOUCH += ('os.truncate', 'shutil.rmtree', 'os.listdir', 'os.scandir')


class Kill(NamedTuple):
  """Where a run is killed.

  Attributes:
    kind: 'time' (by the parent), 'touch' or 'line'; '' for not at all.
    at: seconds, or the number of the touch or line.
  """

  kind: str
  at: float


class Report(NamedTuple):
  """What was found.

  Attributes:
    runs: that were brought to their end.
    kills: that hit a running process, by kind.
    lost: rounds that were done anew after each kill.
    most: rounds that a kill may cost: between two checkpoints.
  """

  runs: int
  kills: dict[str, int]
  lost: list[int]
  most: int

  def __str__(self):
    lost = sorted(self.lost)
    middle = lost[len(lost) // 2] if lost else 0
    return (
      f'{sum(self.kills.values())} kills {self.kills} in {self.runs} runs: '
      f'all equal to an uninterrupted one; rounds done anew per kill: median '
      f'{middle}, at most {lost[-1] if lost else 0} of {self.most} allowed'
    )


def fake_config():
  """Thirty rounds, a checkpoint every ten."""
  return tiny.config(
    rounds=30, rounds_per_call=5, eval_every=5, checkpoint_every=10
  )


def real_config():
  """RELIEF with what has a memory: cohorts, momentum, error feedback."""
  return tiny.config(
    rounds=12,
    rounds_per_call=1,
    eval_every=1,
    checkpoint_every=3,
    clients_per_round=4,
    keep_client_state=True,
    **{'uplink_codec.name': 'top_k', 'model.hidden': 5},
  )


def _die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def _arm(kill: Kill, folder: pathlib.Path) -> None:
  """Prepares the end of this process, unless it is told from outside."""
  left = int(kill.at)
  if kill.kind == 'touch':

    def hook(event, arguments):
      nonlocal left
      if event in _TOUCH and arguments and str(folder) in str(arguments[0]):
        left -= 1
        if left < 0:
          _die()

    sys.addaudithook(hook)
  elif kill.kind == 'line':
    write = records.append_line

    def half(path, record):
      nonlocal left
      left -= 1
      if left >= 0:
        return write(path, record)
      line = json.dumps(records.clean(record))
      with open(path, 'a') as file:
        file.write(line[: len(line) // 2])
      _die()

    records.append_line = half


def _tell(log: pathlib.Path) -> None:
  """Writes down what is begun, done and saved, outside of the run's folder."""
  handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

  def say(word, number):
    os.write(handle, f'{word} {number}\n'.encode())

  kind = simulation.Simulation
  advance, restore, save = kind.advance, kind.restore, Checkpoints.save

  def told_advance(self):
    record = advance(self)
    say('done', self.round)
    return record

  def told_restore(self, *arguments):
    restore(self, *arguments)
    say('begin', self.round)

  def told_save(self, number, snapshot):
    save(self, number, snapshot)
    say('saved', number)

  kind.advance, kind.restore = told_advance, told_restore
  Checkpoints.save = told_save


def forked(
  function: Callable[[], int | None],
  out: pathlib.Path,
  kill: Kill | None = None,
) -> int:
  """Calls in a child; returns how that ended (`os.wait`).

  Forked before any thread is there: nothing here may start JAX's backend or
  tensorstore.

  Args:
    function: returns or exits with the exit code, None for 0.
    out: what the child says is added there.
    kill: when it is to be killed, where that is a time.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', RuntimeWarning)
    child = os.fork()
  if not child:
    code: int | str | None = 1
    try:
      with open(out, 'a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
      code = function()
    except SystemExit as end:
      code = end.code
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stderr.flush()
      os._exit(int(code or 0))
  if kill and kill.kind == 'time':
    time.sleep(kill.at)
    os.kill(child, signal.SIGKILL)
  return os.waitpid(child, 0)[1]


class Harness:
  """Runs of one config, each a child of this process.

  Args:
    folder: for everything.
    real: the real simulation, not the stand-in.
  """

  def __init__(self, folder: pathlib.Path, real: bool):
    self._folder, self._real = folder, real
    self._out = folder / 'out.txt'
    self._config = real_config() if real else fake_config()
    self._number = 0
    self._whole = folder / 'whole'
    begun = time.monotonic()
    if real:  # fills the cache of compiled programs
      self._child(folder / 'first', Kill('', 0))
      begun = time.monotonic()
    assert self._child(self._whole, Kill('', 0)) == 0
    self.seconds = time.monotonic() - begun

  def _child(self, folder: pathlib.Path, kill: Kill) -> int:
    """Begins or resumes a run that is to be killed there."""

    def work():
      if self._real:
        compile_cache.enable(self._folder / 'programs')
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
      else:
        simulation.Simulation = fake_simulate.Simulation
      _tell(folder.with_suffix('.log'))
      _arm(kill, folder)
      assert runner.run(self._config, folder, resume=True) == 'complete'

    return forked(work, self._out, kill)

  def run(self, draw) -> tuple[list[str], list[int]]:
    """Kills one run until it is complete, and compares it.

    Args:
      draw: () -> the next `Kill`.

    Returns:
      The kind of every kill that hit, and the rounds that each cost.

    Raises:
      AssertionError: something finished was lost, or another result.
    """
    self._number += 1
    folder = self._folder / f'run_{self._number}'
    log = folder.with_suffix('.log')
    kinds: list[str] = []
    while True:
      kill = draw()
      ended = self._child(folder, kill)
      assert ended in (0, signal.SIGKILL), self._output()
      if not ended:
        break
      kinds.append(kill.kind)
      with open(log, 'a') as file:
        file.write('killed 0\n')
    ended = forked(lambda: self._compare(folder), self._out)
    assert not ended, self._output()
    return kinds, lost_work(log.read_text().splitlines())

  def _output(self) -> str:
    return self._out.read_text()[-3000:]

  def _compare(self, folder: pathlib.Path) -> None:
    for name in ('metrics.jsonl', 'devices.jsonl'):
      found, want = (timeless(f / name) for f in (folder, self._whole))
      assert found == want, (folder, name)
    found, want = (checkpoint(f) for f in (folder, self._whole))
    assert found.keys() == want.keys() and len(found) > 2
    for key in want:
      np.testing.assert_array_equal(found[key], want[key])
    summary = records.read_json(folder / 'summary.json')
    assert summary['status'] == records.COMPLETE
    left = {p.name for p in folder.iterdir()}
    assert left == {p.name for p in self._whole.iterdir()}, left


def lost_work(lines: list[str]) -> list[int]:
  """Rounds that every kill cost, from the log of a run.

  >>> lost_work(['done 5', 'saved 5', 'done 9', 'killed 0', 'begin 5'])
  [4]

  Raises:
    AssertionError: a round that was saved had to be done again.
  """
  found, done, saved, waiting = [], 0, 0, 0
  for line in lines:
    word, number = line.split()
    if word == 'done' or word == 'begin':
      for _ in range(waiting):  # those that saved nothing in between
        start = int(number) if word == 'begin' else 0
        assert start >= saved, lines
        found.append(done - start)
        done = start
      waiting = 0
      done = int(number)
    elif word == 'saved':
      saved = int(number)
    else:
      waiting += 1
  return found


def timeless(path: pathlib.Path) -> list[str]:
  """The lines of a record without the wall clock."""
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  return [json.dumps({**row, 'wall_seconds': 0}) for row in rows]


def checkpoint(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The newest one."""
  with Checkpoints(folder / 'checkpoints') as found:
    return found.read()


def kill_often(kills: int, real: bool, seed: int = 0) -> Report:
  """Goes on until so many kills have hit.

  Args:
    kills: that are wanted.
    real: the real simulation, not the stand-in.
    seed: of the places.
  """
  rng = random.Random(seed)
  with tempfile.TemporaryDirectory() as folder:
    harness = Harness(pathlib.Path(folder), real)

    def draw() -> Kill:
      kind = rng.choice(('time', 'touch', 'touch', 'line'))
      if kind == 'time':
        return Kill(kind, rng.uniform(0, 1.1 * harness.seconds))
      return Kill(kind, rng.randrange(60 if kind == 'touch' else 16))

    kinds: list[str] = []
    lost: list[int] = []
    runs = 0
    while len(kinds) < kills:
      hit, cost = harness.run(draw)
      kinds, lost, runs = kinds + hit, lost + cost, runs + 1
    counts = dict(sorted(collections.Counter(kinds).items()))
    config = real_config() if real else fake_config()
    assert max(lost) <= config.checkpoint_every, lost
    return Report(runs, counts, lost, config.checkpoint_every)


def main() -> None:
  """Prints the report, or fails."""
  parser = argparse.ArgumentParser(prog='python -m tests.faults.kills')
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--real', action='store_true', help='not the stand-in')
  parser.add_argument('--seed', type=int, default=0)
  given = parser.parse_args()
  print(kill_often(given.kills, given.real, given.seed))


if __name__ == '__main__':
  main()
