"""Finds the fastest layout of a run by timing some. **Ours.**

No layout changes results beyond rounding, so the choice is about time alone,
and timing costs a compilation per candidate: more than many a whole run.
Hence three ways to ask (`config.layout`):

- a layout by name: that one.
- `auto`: never times. What an earlier run found on this machine, under these
  versions and for these shapes, else the rule of thumb: one client at a time
  on CPU, where skipping really skips, all at once on an accelerator.
- `tune`: the same, but where nothing is known yet it times and keeps the
  answer, so that of all runs of a shape (seeds, values, a repeated command)
  only the first one pays. For long runs, on a machine with nothing else to do.

What is kept is one small JSON file per machine, versions and shapes in the
user's cache; delete a file to time anew.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import algorithms
from relief_jax.datasets import cache
from relief_jax.engine import (
  ambient,
  compile_cache,
  machine,
  memory,
  placement,
  processes,
)
from relief_jax.engine.placement import Layout
from relief_jax.models.encoders import Spec
from relief_jax.runs import layout_rules, program
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Population, PyTree

_REPEATS = 3  # timed rounds of each candidate, after one that is not
_STEPS = 5  # local steps of a timed round, at most
_CLIENTS = 32  # clients per device of a timed round on CPU, at most

_log = logging.getLogger(__name__)


class Job(NamedTuple):
  """Describes the round whose layout is sought.

  Attributes:
    method: in `ALGORITHMS`.
    backbone: in `MODELS`.
    spec: of the model.
    task: the model.
    setting: of the round; its layout is the rule of thumb on all devices
      that may be used.
    hparams: traced hyperparameters.
    population: of the run; its rows lie as that layout says.
    memory_limit: bytes that the run may take, None for the machine's.
  """

  method: str
  backbone: str
  spec: Spec
  task: Task
  setting: Setting
  hparams: HParams
  population: Population
  memory_limit: int | None = None


class Choice(NamedTuple):
  """Holds a layout and the reason for it.

  Attributes:
    name: as `placement.parse_layout` reads it.
    source: `config` (named there), `rule` (of thumb), `only` (no other is
      worth a try), `timed` in this run, or `cache` (timed in an earlier one).
    seconds: of a timed round (fewer clients and steps than the run's) in each
      candidate; None where it does not fit into memory.
    tuning_seconds: what timing took in this run.
    file: where the answer is kept, None where nothing was sought.
  """

  name: str
  source: str
  seconds: Mapping[str, float | None] = {}
  tuning_seconds: float = 0.0
  file: str | None = None

  def __str__(self):
    if self.source == 'rule':
      return (
        f'layout {self.name}: rule of thumb (before long runs '
        '--config.layout=tune times others)'
      )
    if self.source == 'config':
      return f'layout {self.name}: as the config says'
    if self.source == 'only':
      return f'layout {self.name}: nothing else is worth a try here'
    times = ', '.join(
      f'{name} {value:.3g} s' if value else f'{name} does not fit'
      for name, value in self.seconds.items()
    )
    when = f'timed in {self.tuning_seconds:.0f} s, kept as'
    if self.source == 'cache':
      when = 'timed before, from'
    return f'layout {self.name}: {times} ({when} {self.file})'


def settle(asked: str, job: Job) -> Choice:
  """Chooses the layout of a run; the same in all of its processes.

  Process 0 decides by what it has kept or by its own clock.

  Args:
    asked: `auto` or `tune`, the same in all processes.
    job: the round.
  """
  names = layout_rules.candidates(
    job.setting.cohort, job.setting.layout.devices, jax.default_backend()
  )
  identity = key(job)
  path = _path(identity)
  kept = _read(path, identity, names) if processes.is_main() else None
  kept = processes.share(kept)
  if kept:
    return Choice(kept['layout'], 'cache', kept['seconds'], file=str(path))
  if asked == 'auto' or len(names) == 1:
    return Choice(names[0], 'rule' if len(names) > 1 else 'only')
  started = time.perf_counter()
  part = sample(job)
  seconds = {name: measure(name, part) for name in names}
  seconds = processes.share(seconds)
  choice = Choice(
    layout_rules.fastest(seconds),
    'timed',
    seconds,
    time.perf_counter() - started,
    str(path) if path else None,
  )
  if path and processes.is_main():
    record = {'key': identity, 'layout': choice.name, 'seconds': seconds}
    text = json.dumps(record, indent=2) + '\n'
    cache.keep(path, lambda file: file.write(text.encode()))
  return choice


class Sample(NamedTuple):
  """Holds a round in small, on the host.

  Attributes:
    job: of which it is a round; setting and population are those of some
      clients and few steps.
    state: before the round.
    rows: [K, W] int32 of these clients; the population's are not set.
  """

  job: Job
  state: PyTree
  rows: np.ndarray


def sample(job: Job) -> Sample:
  """Builds a round of few steps of the real model on real clients.

  On CPU on some of them, spaced evenly over the fleet, since a client takes
  its own time there; on an accelerator on as many as a round has, since how
  many fill it is the question.

  Args:
    job: the round; all of its processes come here.
  """
  setting, population = job.setting, job.population
  number, count = population.fleet.id.shape[0], setting.cohort
  if jax.default_backend() == 'cpu':
    count = min(count, _CLIENTS * setting.layout.devices)
  pick = np.arange(count) * number // count
  width = population.rows.shape[1]
  if setting.epochs:  # the rows are as many steps
    width = min(width, _STEPS * setting.batch)
  everywhere = None
  if setting.layout.mesh:
    everywhere = NamedSharding(setting.layout.mesh, P())
  rows = jax.jit(lambda r: r[pick, :width], out_shardings=everywhere)(
    population.rows
  )
  fleet = jax.tree.map(lambda v: np.asarray(v)[pick], population.fleet)
  if setting.epochs:
    fleet = fleet.replace(samples=np.minimum(fleet.samples, width))
  small = setting._replace(
    cohort=count,
    buckets=(),  # of the whole population
    steps=min(setting.steps, _STEPS),
    epochs=min(setting.epochs, 1),
    clients=count,
  )
  algorithm = algorithms.build(job.method, job.task, small)
  start = jax.jit(lambda k: algorithm.init(k, job.task.init(k)))
  nobody: Any = None
  return Sample(
    job._replace(
      setting=small,
      population=dataclasses.replace(
        population,
        fleet=fleet,
        rows=nobody,
        online=jax.tree.map(np.asarray, population.online),
      ),
    ),
    jax.tree.map(np.asarray, start(ambient.key(0))),
    np.asarray(placement.local(rows)),
  )


def measure(
  name: str,
  part: Sample,
  clock: Callable[[], float] = time.perf_counter,
) -> float | None:
  """Times one round in a layout, in seconds, the least of a few.

  Args:
    name: of the layout.
    part: the round.
    clock: gives seconds.

  Returns:
    Seconds, or None where it does not fit into some process's memory.
  """
  job = part.job
  own = job.setting.layout.devices // processes.count()
  layout = placement.parse_layout(name, own)
  static = job.setting._replace(layout=layout)
  population, rows = job.population, part.rows
  population = dataclasses.replace(
    placement.replicate(population, layout),
    rows=placement.shard_rows(lambda i, j: rows[i:j], rows.shape, layout),
  )
  args: PyTree = (
    *placement.replicate((ambient.key(0), part.state), layout),
    population,
    placement.replicate(job.hparams, layout),
  )
  if layout.mesh is None:
    args = jax.device_put(args)

  algorithm = algorithms.build(job.method, job.task, static)
  compiled = _fitting(jax.jit(algorithm.step), args, job.memory_limit)
  # All or none: a process that runs alone would wait for the others.
  if not all(processes.gather(compiled is not None)):
    return None

  def run() -> float:
    started = clock()
    jax.block_until_ready(compiled(*args))
    return clock() - started

  run()
  return min(run() for _ in range(_REPEATS))


def _fitting(jitted, args, limit: int | None):
  """Compiles, or gives None where it does not fit into the process's memory."""
  try:
    compiled = jitted.lower(*args).compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return None
  arrays = 0
  if jax.default_backend() != 'cpu':
    arrays = memory.on_device(args)
  found = memory.estimate(arrays, program.reserved(compiled), limit)
  return compiled if found.fits else None


def key(job: Job) -> dict[str, Any]:
  """Describes the validity of an answer: machine, versions, shapes.

  Plain values.
  """
  setting = job.setting._replace(layout=Layout(), buckets=())
  return {
    'machine': {
      'kind': compile_cache.kind(),
      'cores': machine.cores(),
      'devices': job.setting.layout.devices,
      'processes': processes.count(),
      'flags': os.environ.get('XLA_FLAGS', ''),
    },
    'versions': {
      name: importlib.metadata.version(name) for name in ('jax', 'jaxlib')
    }
    | {'relief_jax': _version()},
    'method': job.method,
    'backbone': job.backbone,
    'model': repr(job.spec),
    'round': repr(setting),
    'online': str(jax.tree.structure(job.population.online)),
    'windows': job.population.rows.shape[1] if setting.epochs else None,
  }


def _version() -> str | None:
  try:
    return importlib.metadata.version('relief_jax')
  except importlib.metadata.PackageNotFoundError:  # run from its sources
    return None


def _path(identity: dict[str, Any]) -> Path | None:
  """Finds the file of an answer; None for a user without home."""
  home = cache.user_cache()
  text = json.dumps(identity, sort_keys=True)
  name = hashlib.sha256(text.encode()).hexdigest()[:32]
  return home and home / 'layouts' / f'{name}.json'


def _read(
  path: Path | None, identity: dict[str, Any], names: tuple[str, ...]
) -> dict[str, Any] | None:
  """Reads the kept answer; None where there is none that can be used."""
  if path is None:
    return None
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    seconds = {k: v and float(v) for k, v in found['seconds'].items()}
    if found['key'] != identity or found['layout'] not in names:
      raise ValueError('of another run')
  except FileNotFoundError:
    return None
  except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    _log.warning(
      'ignored %s, which holds no layout that can be used (%s: %s)',
      path,
      type(error).__name__,
      error,
    )
    return None
  return {'layout': found['layout'], 'seconds': seconds}
