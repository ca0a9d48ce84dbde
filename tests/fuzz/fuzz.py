"""Hostile input at every door: what is refused is refused in our own words.

python -m tests.fuzz --minutes=5 [--only=npz,fleet_csv] [--seed=0]

Valid inputs are mutated and made up (`doors.py`): bytes flipped, cut, doubled
and spliced with tokens that break parsers. Each door either takes the input or
raises `InputError` (or `StorageError`). Anything else, a try of more than 20 s,
or one that needs more than 4 GB is a crash, printed with the number that makes
it again: `--only=TARGET --again=NUMBER`.
"""

import argparse
import collections
import os
import pathlib
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings

import absl.logging

from relief_jax.datasets import cache
from relief_jax.errors import InputError, StorageError
from tests.support import doors
from tests.support.doors import TARGETS

ACCEPTED = InputError, StorageError
_SECONDS, _BYTES, _TURN = 20, 4 << 30, 2


def attempt(name: str, number: int) -> bool:
  """One input at one door, by its number; see `let_in`."""
  return let_in(name, random.Random(f'{name} {number}'))


def let_in(name: str, rng: random.Random) -> bool:
  """One input at one door.

  Args:
    name: in `TARGETS`.
    rng: draws the input.

  Returns:
    Whether it was taken; refused is the other way.

  Raises:
    Exception: whatever is none of our own errors: a crash.
  """
  with tempfile.TemporaryDirectory() as folder:
    home = pathlib.Path(folder) / 'try'
    home.mkdir()
    try:
      TARGETS[name](rng, home)
    except ACCEPTED:
      return False
  return True


def prepare() -> None:
  """Limits of time and memory; quiet; nobody else's copies."""
  cache.user_cache = lambda: None
  warnings.simplefilter('ignore')
  absl.logging.set_verbosity(absl.logging.FATAL)
  doors.stored_run()
  soft = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  soft = soft * resource.getpagesize() + _BYTES
  resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
  signal.signal(signal.SIGALRM, _too_slow)


class RoundTotals:
  """What was tried, and what came of it.

  Attributes:
    taken: inputs by door.
    refused: likewise.
    crashes: {kind: how to make it again}.
  """

  def __init__(self):
    """Nothing was tried yet."""
    self.taken: collections.Counter = collections.Counter()
    self.refused: collections.Counter = collections.Counter()
    self.crashes: dict[str, str] = {}

  def attempt(self, name: str, rng: random.Random, again: str) -> bool:
    """Tries one input; prints a crash of a new kind, and returns whether.

    Args:
      name: of the door.
      rng: draws the input.
      again: the flag that makes it again.
    """
    signal.alarm(_SECONDS)
    try:
      (self.taken if let_in(name, rng) else self.refused)[name] += 1
    except Exception as error:
      crash = f'{name} {type(error).__name__} at {_place(error)}'
      if crash not in self.crashes:
        self.crashes[crash] = f'{again}: {str(error)[:150]!r}'
        print(f'crash: {crash} {self.crashes[crash]}', flush=True)
        return True
    finally:
      signal.alarm(0)
    return False

  def __str__(self):
    lines = [
      f'{n:<16}{self.taken[n]:>8} taken {self.refused[n]:>8} refused'
      for n in TARGETS
      if self.taken[n] or self.refused[n]
    ]
    total = self.taken.total() + self.refused.total()
    lines.append(f'{total} inputs, {len(self.crashes)} kinds of crash')
    return '\n'.join(lines)


def _too_slow(*_):
  raise TimeoutError(f'more than {_SECONDS} s')


def _place(error: Exception) -> str:
  """File and line of ours in which it was raised."""
  trace = traceback.extract_tb(error.__traceback__)
  ours = [
    f
    for f in trace
    if '/relief_jax/' in f.filename or '/experiments/' in f.filename
  ]
  place = ours[-1] if ours else trace[-1]
  return f'{os.path.basename(place.filename)}:{place.lineno}'


def main() -> int:
  """Prints what was tried; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m tests.fuzz')
  parser.add_argument('--minutes', type=float, default=1.0)
  parser.add_argument('--only', default='', help='targets, joined by commas')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--again', type=int, help='one number, with a traceback')
  given = parser.parse_args()
  names = given.only.split(',') if given.only else list(TARGETS)
  prepare()
  if given.again is not None:
    print('taken' if attempt(names[0], given.again) else 'refused')
    return 0
  tally, numbers = RoundTotals(), dict.fromkeys(names, given.seed * 10**9)
  end = time.monotonic() + 60 * given.minutes
  while time.monotonic() < end:
    for name in names:
      turn = min(end, time.monotonic() + _TURN)  # dear and cheap ones alike
      while time.monotonic() < turn:
        number = numbers[name]
        numbers[name] += 1
        rng = random.Random(f'{name} {number}')
        tally.attempt(name, rng, f'--again={number}')
  print(tally)
  return bool(tally.crashes)
