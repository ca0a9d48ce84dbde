"""Remembers how long programs took to compile, in the user's cache. **Ours.**

Only for people who wait: nothing depends on it.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import jax

from relief_jax.datasets import cache
from relief_jax.engine import compile_cache, processes
from relief_jax.runs.simulation import Simulation

FOLDER = 'compiling'  # in the user's cache


def key(simulation: Simulation, count: int = 1) -> str:
  """Names the programs of a run on this kind of machine.

  Args:
    simulation: the run, or the first of several.
    count: runs in one program.
  """
  args = simulation.arguments(), simulation.test_arguments()
  shapes = [(v.shape, str(v.dtype)) for v in jax.tree.leaves(args)]
  about = (
    compile_cache.kind(),
    count,
    simulation.call,
    simulation.setting,
    shapes,
  )
  return hashlib.sha256(repr(about).encode()).hexdigest()[:32]


def _path(name: str) -> Path | None:
  home = cache.user_cache()
  return home and home / FOLDER / f'{name}.json'


def before(name: str) -> float | None:
  """Gives the seconds that it took the last time, None where not known.

  Args:
    name: from `key`.
  """
  path = _path(name)
  with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
    if path:
      return float(json.loads(path.read_text(encoding='utf-8'))['seconds'])
  return None


def keep(name: str, seconds: float) -> None:
  """Remembers how long it took, where the cache can be written.

  Args:
    name: from `key`.
    seconds: that it took.
  """
  path = _path(name)
  if path and processes.is_main():
    text = json.dumps({'seconds': round(seconds, 3)}) + '\n'
    cache.keep(path, lambda file: file.write(text.encode()))
