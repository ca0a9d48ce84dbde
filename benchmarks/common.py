"""Timing as the benchmarks do it: compile apart, first call dropped."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from benchmarks import turns
from relief_jax.engine import memory, placement
from relief_jax.simulate import Simulation


class Product(NamedTuple):
  """Holds a matrix product on every device at once: the measured peak.

  Attributes:
    call: computes it.
    flops: of one call, all devices together.
  """

  call: Callable[[], Any]
  flops: float


def matrix_product(size: int, layout: placement.Layout) -> Product:
  """Builds float32 products of matrices [size, size], eight in a row a device.

  Args:
    size: of the matrices.
    layout: whose devices take part.
  """

  def chain(a):
    for _ in range(_IN_A_ROW):
      a = a @ a / size
    return a

  if layout.mesh:
    chain = jax.shard_map(
      chain,
      mesh=layout.mesh,
      in_specs=P(),
      out_specs=P(placement.AXIS),
      check_vma=False,
    )
  a = placement.replicate(jnp.ones((size, size)), layout)
  compiled = jax.jit(chain).lower(a).compile()
  flops = 2.0 * size**3 * _IN_A_ROW * layout.devices
  return Product(lambda: compiled(a), flops)


_IN_A_ROW = 8


def times(call: Callable[[], Any], repeats: int) -> dict[str, float]:
  """Times a call: the first is dropped, then minimum and median, seconds.

  Args:
    call: returns arrays; they are waited for.
    repeats: timed calls, at least 1.
  """
  found = turns.timed(lambda: jax.block_until_ready(call()), repeats)
  return {'min_seconds': min(found), 'median_seconds': statistics.median(found)}


def round_times(simulation: Simulation, repeats: int) -> dict[str, float]:
  """Times a simulation's rounds, one per call, after its first test.

  Args:
    simulation: with `rounds_per_call` 1 and rounds enough.
    repeats: timed rounds.
  """
  simulation.advance()

  def one_round():
    simulation.advance_rounds(1)
    return simulation.params

  return times(one_round, repeats)


def emit(case: dict[str, Any]) -> None:
  """Prints one JSON line: peak memory, the case, the machine and the date."""
  machine = {
    'device_kind': jax.devices()[0].device_kind,
    'devices': jax.local_device_count(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'date': datetime.date.today().isoformat(),
  }
  peak = {'peak_memory_mbytes': memory.peak() / 1e6}
  print(json.dumps({**peak, **case, **machine}), flush=True)


def child(
  name: str, environment: dict[str, str] | None = None, **options: Any
) -> list[dict[str, Any]]:
  """Runs a benchmark in a process of its own.

  Args:
    name: of the script.
    environment: added to this process's.
    **options: flags of the script.

  Returns:
    What it printed, or one line that says that it failed.
  """
  return collect(name, options, start(name, environment, **options))


def command(name: str, **options: Any) -> list[str]:
  """Builds the command of a benchmark with these flags."""
  flags = [f'--{key}={value}' for key, value in options.items()]
  return [sys.executable, '-m', f'benchmarks.{name}', *flags]


def start(
  name: str, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen:
  """Starts a benchmark like `child`, without waiting."""
  return subprocess.Popen(
    command(name, **options),
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, **(environment or {})},
  )


def collect(
  name: str, case: dict[str, Any], process: subprocess.Popen
) -> list[dict[str, Any]]:
  """Collects the lines of a process of `start`, or one on its failure."""
  out, _ = process.communicate()
  if process.returncode:
    return [{'benchmark': name, **case, 'failed': True}]
  # Libraries print to the same stream (Gloo tells of its connections).
  return [json.loads(line) for line in out.splitlines() if line.startswith('{')]
