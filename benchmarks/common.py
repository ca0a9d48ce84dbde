"""Timing as the benchmarks do it: compile apart, first call dropped."""

import datetime
import json
import platform
import statistics
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
