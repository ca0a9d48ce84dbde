"""The doors of `fuzz.py`, with inputs that are bred for new paths in our code.

python -m tests.fuzz.guided [--target=fleet_csv] [--minutes=2] [--corpus=DIR]

Atheris (libFuzzer) watches which branches of relief_jax and experiments an
input takes, and goes on from those that took new ones. Its bytes stand in for
the random numbers of a door: each draw reads the next few, so that what is
bred are the choices, and valid files stay nearly valid. Without `--target`
every door has its turn. A crash is printed with a file that makes it again:
`--target=TARGET --again=FILE`.

Needs `pip install atheris` (the extra `fuzz`); nothing else here does.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

_LENGTH, _SEEDS = 512, 16


class Draws(random.Random):
  """Random numbers out of given bytes; zeros after the last.

  Args:
    data: is read from its beginning.
  """

  def __new__(cls, data: bytes):
    """The seed plays no part."""
    del data
    return super().__new__(cls, 0)

  def __init__(self, data: bytes):
    """Nothing is read yet."""
    self._data, self._at = data, 0
    super().__init__(0)

  def getrandbits(self, count: int) -> int:
    """So many bits, of whole bytes."""
    size = -(-count // 8)
    found = self._data[self._at : self._at + size]
    self._at += size
    return int.from_bytes(found, 'little') & ((1 << count) - 1)

  def random(self) -> float:
    """In steps of 2**-16."""
    return self.getrandbits(16) / (1 << 16)


def _guide(name: str, minutes: float, seed: int, corpus: pathlib.Path) -> None:
  """Runs libFuzzer in this process, which it ends."""
  import atheris

  ours = atheris.instrument_imports(include=['relief_jax', 'experiments'])
  with contextlib.redirect_stderr(io.StringIO()), ours:  # a line per module
    from tests.fuzz import fuzz

  fuzz.prepare()
  tally = fuzz.RoundTotals()
  crashes = corpus / 'crashes'
  crashes.mkdir(exist_ok=True)
  end = time.monotonic() + 60 * minutes

  def one(data: bytes) -> None:
    if time.monotonic() > end:  # libFuzzer's own end leaves nothing to say
      kept = len(list(home.iterdir())) - _SEEDS
      print(f'{tally}; {kept} inputs took new paths', flush=True)
      os._exit(bool(tally.crashes))
    path = crashes / f'{name}_{len(tally.crashes)}'
    if tally.attempt(name, Draws(data), f'--again={path}'):
      path.write_bytes(data)

  home = corpus / name
  home.mkdir(exist_ok=True)
  rng = random.Random(seed)
  for number in range(_SEEDS):
    (home / f'seed_{number}').write_bytes(rng.randbytes(_LENGTH))
  # Time and memory have limits of ours; libFuzzer's would end the process.
  options = [f'-seed={seed + 1}', f'-max_len={4 * _LENGTH}', '-len_control=0']
  options += ['-timeout=0', '-rss_limit_mb=0', '-malloc_limit_mb=0']
  options += ['-verbosity=0']
  atheris.Setup([sys.argv[0], *options, str(home)], one)
  atheris.Fuzz()


def main() -> int:
  """Prints what was tried at each door; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m tests.fuzz.guided')
  parser.add_argument('--target', default='', help='a door; else each in turn')
  parser.add_argument('--minutes', type=float, default=1.0, help='for each')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--corpus', default='', help='a folder that is kept')
  parser.add_argument('--again', help='one file, with a traceback')
  given = parser.parse_args()
  if not given.again and not importlib.util.find_spec('atheris'):
    print(
      'error: Found no package atheris; expected it for guided fuzzing alone. '
      'Usual cure: pip install atheris, or python -m tests.fuzz without it.',
      file=sys.stderr,
    )
    return 2
  if given.target and not given.again:
    if not given.corpus:
      given.corpus = tempfile.mkdtemp(prefix='fuzz_')
    corpus = pathlib.Path(given.corpus)
    corpus.mkdir(parents=True, exist_ok=True)
    _guide(given.target, given.minutes, given.seed, corpus)
  # Not before: what is imported by now is not instrumented.
  from tests.fuzz import fuzz

  if given.again:
    fuzz.prepare()
    data = pathlib.Path(given.again).read_bytes()
    print('taken' if fuzz.let_in(given.target, Draws(data)) else 'refused')
    return 0
  flags = [f'--minutes={given.minutes}', f'--seed={given.seed}']
  flags += [f'--corpus={given.corpus}'] if given.corpus else []
  program = [sys.executable, '-m', 'tests.fuzz.guided', *flags]
  codes = [
    subprocess.run([*program, f'--target={name}']).returncode
    for name in fuzz.TARGETS
  ]
  return int(any(codes))


if __name__ == '__main__':
  sys.exit(main())
