"""Timing as the benchmarks do it: compile apart, first call dropped."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax


def times(call: Callable[[], Any], repeats: int) -> dict[str, float]:
  """Seconds of a call: the first is dropped, then minimum and median.

  Args:
    call: returns arrays; they are waited for.
    repeats: timed calls, at least 1.
  """
  jax.block_until_ready(call())
  found = []
  for _ in range(repeats):
    started = time.perf_counter()
    jax.block_until_ready(call())
    found.append(time.perf_counter() - started)
  return {'min_seconds': min(found), 'median_seconds': statistics.median(found)}


def emit(case: dict[str, Any]) -> None:
  """Prints one JSON line: the case, then the machine and the date."""
  machine = {
    'device_kind': jax.devices()[0].device_kind,
    'devices': jax.local_device_count(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'date': datetime.date.today().isoformat(),
  }
  print(json.dumps({**case, **machine}), flush=True)


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


def start(
  name: str, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen:
  """As `child`, without waiting."""
  flags = [f'--{key}={value}' for key, value in options.items()]
  return subprocess.Popen(
    [sys.executable, '-m', f'benchmarks.{name}', *flags],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, **(environment or {})},
  )


def collect(
  name: str, case: dict[str, Any], process: subprocess.Popen
) -> list[dict[str, Any]]:
  """Waits for a process of `start`; its lines, or one on its failure."""
  out, _ = process.communicate()
  if process.returncode:
    return [{'benchmark': name, **case, 'failed': True}]
  # Libraries print to the same stream (Gloo tells of its connections).
  return [json.loads(line) for line in out.splitlines() if line.startswith('{')]
