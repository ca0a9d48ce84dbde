"""Seconds of local steps against their FLOPs, and the speed that fits them.

The simulator knows one number of a device's compute, its sustained FLOP/s
(`costs.py`). `fit` finds it by least squares on relative errors. `phases` says
how good one number is: non-negative least squares with a rate for the forward
pass, the weight gradients and the gradients between layers, and a constant per
step. **Ours.**
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy.optimize

from relief_jax import costs, models, tree, world
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate
from relief_jax.devices import Device
from relief_jax.engine import ambient
from relief_jax.task import Task, Work
from relief_jax.types import Population, PyTree

PHASES = ('forward', 'weight_gradient', 'layer_gradient')


class Point(NamedTuple):
  """Holds one measurement.

  Attributes:
    name: what runs and trains.
    flops: of a step in each phase, [3] FLOPs: batch times FLOPs per sample.
    seconds: of a step.
  """

  name: str
  flops: tuple[float, float, float]
  seconds: float


class Fit(NamedTuple):
  """Holds the fit of one rate, and its residuals.

  Attributes:
    speed: FLOP/s.
    residual: [points] fitted minus measured seconds over measured ones.
    error: root of the mean squared residual.
  """

  speed: float
  residual: tuple[float, ...]
  error: float


class Phases(NamedTuple):
  """Holds the fit of a rate for every phase.

  Attributes:
    constant: seconds of every step, whatever it does.
    speed: {phase: FLOP/s}, None where its share in the time came out as 0.
    error: as `Fit.error`.
  """

  constant: float
  speed: dict[str, float | None]
  error: float


# {name of a case: its steps} -> {name: seconds of a step}.
Timer = Callable[[dict[str, Callable[[], Any]]], dict[str, float]]


def fit(points: Sequence[Point]) -> Fit:
  """Fits the speed at which `flops / speed` is relatively closest to seconds.

  >>> points = [Point('a', (2e9, 0, 0), 1.0), Point('b', (2e9, 2e9, 0), 2.0)]
  >>> f'{fit(points).speed:.3g}'
  '2e+09'

  Args:
    points: at least one.
  """
  load = np.array([sum(p.flops) / p.seconds for p in points])
  slope = load.sum() / (load @ load)
  residual = load * slope - 1
  return Fit(float(1 / slope), tuple(residual.tolist()), _rms(residual))


def phases(points: Sequence[Point]) -> Phases:
  """Fits a rate per phase and a constant, none of them negative.

  Args:
    points: more than four, or it says little.
  """
  seconds = np.array([p.seconds for p in points])
  load = np.array([(1.0, *p.flops) for p in points]) / seconds[:, None]
  size = np.maximum(load.max(0), 1e-30)  # columns of one magnitude
  found, _ = scipy.optimize.nnls(load / size, np.ones(len(points)))
  # What rounding leaves of a zero is no rate.
  found = np.where(found > 1e-9 * found.max(), found, 0.0)
  cost = found / size
  speed = {
    name: float(1 / c) if c > 0 else None
    for name, c in zip(PHASES, cost[1:], strict=True)
  }
  return Phases(float(cost[0]), speed, _rms(load @ cost - 1))


def _rms(values) -> float:
  return float(np.sqrt(np.mean(np.square(values))))


def step_flops(work: Work, run, train) -> tuple[float, float, float]:
  """Computes `costs.step_flops` of one sample, phase by phase.

  Args:
    work: of the model.
    run: [M] bool, branches in the forward pass.
    train: [G] bool, groups trained.
  """
  work = costs.of_run(work, jnp.asarray(run))
  passes = (np.asarray(work.path) & train).any(-1)
  return (
    float(work.shared) + float(np.asarray(work.fwd, np.float64) @ run),
    float(np.asarray(work.wgrad, np.float64) @ train),
    float(np.asarray(work.agrad, np.float64) @ passes),
  )


def cases(task: Task) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Lists the cases to time, {name: (run [M], train [G])}.

  With every sensor: the forward pass, every group trained alone, all groups.
  Then the same for a device that has one sensor: its forward pass, all it owns.
  """
  modality = np.asarray(task.blocks.modality)
  num, every = len(modality), np.ones(len(task.modalities), bool)
  found = {'forward': (every, np.zeros(num, bool))}
  for g, name in enumerate(task.blocks.name):
    found[name] = (every, np.arange(num) == g)
  found['all'] = (every, np.ones(num, bool))
  for m, name in enumerate(task.modalities):
    only = np.arange(len(every)) == m
    found[f'{name} only, forward'] = (only, np.zeros(num, bool))
    found[f'{name} only, all'] = (only, (modality < 0) | (modality == m))
  return found


def in_turns(
  calls: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
  """Times several calls, one after the other in every turn; wall-clock seconds.

  What slows a machine for a while then slows down all of them.

  Args:
    calls: each returns arrays; they are waited for.
    repeats: timed turns; a first one, which compiles, is not counted.
  """
  found: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(repeats + 1):
    for name, call in calls.items():
      started = time.perf_counter()
      jax.block_until_ready(call())
      found[name].append(time.perf_counter() - started)
  return {name: seconds[1:] for name, seconds in found.items()}


def clock(steps: int, repeats: int) -> Timer:
  """Builds a timer of a step: its seconds, the median of some turns.

  Args:
    steps: in a call of what is timed.
    repeats: of `in_turns`.
  """

  def timer(calls):
    times = in_turns(calls, repeats)
    return {name: statistics.median(t) / steps for name, t in times.items()}

  return timer


def measure(
  config: ml_collections.ConfigDict,
  steps: int,
  timer: Timer,
  only: Sequence[str] = (),
) -> list[Point]:
  """Times the config's model on this machine, every case compiled apart.

  Args:
    config: of the model and the batch. Windows are synthetic, of `data.width`
      samples with `synthetic.modalities` sensors of `synthetic.channels`.
    steps: in one call.
    timer: `clock`, or a fake.
    only: names of `cases`; () for all.

  Returns:
    A point for each case.

  Raises:
    InputError: a config that makes no model.
  """
  task, population = _model(config)
  params = task.init(ambient.key(0))
  calls: dict[str, Callable[[], Any]] = {}
  flops: dict[str, tuple[float, float, float]] = {}
  for name, (run, train) in cases(task).items():
    if only and name not in only:
      continue
    step = _steps(task, population, config.batch, steps, run, train)
    calls[name] = functools.partial(step, params)
    forward, weights, layers = (
      config.batch * f for f in step_flops(task.work, run, train)
    )
    flops[name] = forward, weights, layers
  seconds = timer(calls)
  return [Point(name, flops[name], seconds[name]) for name in calls]


def _model(config: ml_collections.ConfigDict) -> tuple[Task, Population]:
  """Builds the config's model on a handful of synthetic windows."""
  made = config.copy_and_resolve_references()
  made.dataset, made.method, made.fleet = 'synthetic', 'fedavg', 'uniform'
  made.clients, made.clients_per_round, made.reuse = 2, 0, 0
  made.partition = 'contiguous'
  made.synthetic.subjects, made.synthetic.windows_per_class = 4, 4
  made.data.split, made.data.test_subjects = 'subjects', (4,)
  made.data.stride, made.model.base = made.data.width, 'random'
  built = world.build(made, None)
  return models.make(made.backbone, built.spec), built.population


def _steps(task: Task, population: Population, batch, steps, run, train):
  """Builds params -> (params, losses): `steps` steps that train `train` only.

  Masks are constants here and what does not train is cut from the gradient,
  so that it costs nothing: as on a device, not as in the simulator.
  """
  bank, frozen = population.bank, population.frozen
  mask = tree.broadcast_groups(task.groups, train)
  rows = jax.random.randint(ambient.key(1), (steps, batch), 0, len(bank.y))
  weight = jnp.ones(batch)
  gate = Gate(jnp.asarray(run), None, jnp.asarray(train))

  def loss(params, row):
    still = jax.tree.map(jax.lax.stop_gradient, params)
    params = _choose(mask, params, still)
    scores = training.logits(
      task, params, frozen, Batch(bank, row, weight), gate
    )
    return training.criterion(task)(scores, bank.y[row], weight)

  def one(params: PyTree, row):
    if not train.any():
      return params, loss(params, row)
    value, grads = jax.value_and_grad(loss)(params, row)
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
    return _choose(mask, moved, params), value

  return jax.jit(lambda params: jax.lax.scan(one, params, rows))


def _choose(mask: PyTree, yes: PyTree, no: PyTree) -> PyTree:
  """Takes leaves of `yes` under the true ones of a prefix tree, or of `no`."""

  def pick(chosen, ours, theirs):
    return ours if bool(chosen) else theirs

  return jax.tree.map(pick, mask, yes, no)


def table(points: Sequence[Point], one: Fit, each: Phases) -> str:
  """Formats every point and both fits, for a terminal."""
  wide = max(len(p.name) for p in points)
  lines = [f'{"trained":{wide}}  MFLOP/step  ms/step  GFLOP/s  fit']
  for p, residual in zip(points, one.residual, strict=True):
    flops = sum(p.flops)
    lines.append(
      f'{p.name:{wide}}  {flops / 1e6:10.2f}  {1e3 * p.seconds:7.3f}  '
      f'{flops / p.seconds / 1e9:7.2f}  {residual:+4.0%}'
    )
  rates = ', '.join(
    f'{name} ' + ('free' if speed is None else f'{speed / 1e9:.3g} GFLOP/s')
    for name, speed in each.speed.items()
  )
  lines += [
    f'speed: {one.speed / 1e9:.3g} GFLOP/s, off by {one.error:.0%} (root mean '
    'square)',
    f'by phase: {rates}, {1e3 * each.constant:.3g} ms a step, off by '
    f'{each.error:.0%}',
  ]
  return '\n'.join(lines)


def profile(
  name: str,
  like: tuple[str, Device],
  points: Sequence[Point],
  one: Fit,
  each: Phases,
) -> dict[str, Any]:
  """Builds the content of the file that `devices.figures.read` takes.

  Args:
    name: of the device.
    like: name and figures of the profile whose power and links are copied.
    points: measured.
    one: their fit, whose speed counts.
    each: their fit by phase, a note.
  """
  source, base = like
  return {
    'name': name,
    'note': f'Speed measured; power and links of {source}: correct them.',
    'speed_flops': one.speed,
    'active_w': base.active,
    'sending_w': base.sending,
    'receiving_w': base.receiving,
    'idle_w': base.idle,
    'uplink_bps': base.uplink,
    'downlink_bps': base.downlink,
    'fit': {
      'error': one.error,
      'by_phase': each._asdict(),
      'points': [
        {**p._asdict(), 'residual': residual}
        for p, residual in zip(points, one.residual, strict=True)
      ],
    },
  }
