"""Many runs of one world in one program: seeds and values as an array axis.

Every point is a whole run, from its initial parameters to its last test. The
world (data, partition, fleet) is that of the config's own seed for all of
them, so that points differ by training alone; a point of that seed is the
`Simulation` of the same config. On CPU a device runs its points one after the
other, since a vmap would turn every skipped encoder into a computed one, and
the devices share the points instead of the clients; elsewhere the points of a
device are one vmap.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import PartitionSpec as P

from relief_jax import (
  algorithms,
  evaluation,
  models,
  placement,
  processes,
  program,
  world,
)
from relief_jax.errors import InputError, unknown
from relief_jax.types import PyTree


class Point(NamedTuple):
  """One run of a sweep.

  Attributes:
    seed: of its initial parameters and of its rounds.
    hparams: keys of `config.hparams` and their values; others stay.
  """

  seed: int
  hparams: Mapping[str, float] = {}


class Sweep(NamedTuple):
  """What came out.

  Attributes:
    points: one record each: seed, hparams, the scores of the last model as
      `evaluation.report` names them, `loss` [R] and the simulated totals.
    seconds: of tracing, lowering, compiling and running.
    layout: of the points.
  """

  points: list[dict[str, Any]]
  seconds: dict[str, float]
  layout: str


def run_points(
  config: ml_collections.ConfigDict,
  points: Sequence[Point],
  data_dir: str | None = None,
) -> Sweep:
  """Runs all points in one compiled program.

  Args:
    config: of all; its seed makes the world.
    points: the runs.
    data_dir: folder of the data sets, None to search.

  Returns:
    A record per point, in their order.

  Raises:
    InputError: bad config or data, no points, an hparam that no config has, a
      method without a common model, or several processes.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 2, 32
  >>> c.devices, c.model.filters = 1, (4, 8)
  >>> points = [Point(0, {'client_lr': lr}) for lr in (0.01, 0.1)]
  >>> [len(p['loss']) for p in run_points(c, points).points]
  [2, 2]
  """
  config = config.copy_and_resolve_references()
  _check(config, points)
  spread = placement.parse_layout(config.layout, config.devices)
  inner = placement.Layout(spread.block)
  found = world.build(config, data_dir)
  task = models.MODELS[config.backbone](found.spec)
  setting = program.setting(config, found, inner)
  algorithm = algorithms.ALGORITHMS[config.method](task, setting)
  if algorithm.personal:
    raise InputError(
      f'a sweep of {config.method!r}',
      'a method with one model for all',
      'run its points one by one',
    )
  fleet = found.population.fleet
  algorithm.check(fleet, max(found.deadline, found.deadline_end))
  masks = evaluation.subsets(np.asarray(fleet.owned), found.rare)
  one = _whole_run(config, task, setting, masks)

  count = len(points)
  each = -(-count // spread.devices)
  values = {
    'seed': np.array([p.seed for p in points], np.int32),
    'hparams': {
      key: np.array([p.hparams.get(key, value) for p in points], np.float32)
      for key, value in setting.hparams.items()
    },
  }
  values = jax.tree.map(
    lambda v: np.pad(v, (0, each * spread.devices - count), mode='edge'),
    values,
  )

  def every(values, population, test):
    def run(value):
      return one(value, population, test)

    if jax.default_backend() == 'cpu':
      return jax.lax.map(run, values)
    return jax.vmap(run)(values)

  if spread.mesh:
    every = jax.shard_map(
      every,
      mesh=spread.mesh,
      in_specs=(P(placement.AXIS), P(), P()),
      out_specs=P(placement.AXIS),
      check_vma=False,
    )
  seconds: dict[str, float] = {}
  compiled = program.build(
    jax.jit(every), (values, found.population, found.test), seconds
  )
  started = time.perf_counter()
  args = placement.replicate((found.population, found.test), spread)
  if spread.mesh:
    values = jax.device_put(values, compiled.input_shardings[0][0])
  out = jax.tree.map(np.asarray, compiled(values, *args))
  seconds['run'] = time.perf_counter() - started
  return Sweep(
    [
      {
        'seed': point.seed,
        'hparams': dict(point.hparams),
        **evaluation.report(
          out['counts'][i],
          masks,
          np.asarray(fleet.owned),
          np.asarray(fleet.tier),
          found.rare,
          found.spec.modalities,
          found.tiers,
          algorithm.ensemble,
        ),
        'loss': out['loss'][i].tolist(),
        **{
          k: float(v[i].astype(np.float64).sum())
          for k, v in out['cost'].items()
        },
      }
      for i, point in enumerate(points)
    ],
    seconds,
    f'{spread}, points shared by the devices',
  )


def _check(config, points) -> None:
  """Refuses what no sweep can run."""
  if config.layout == 'tune':
    raise InputError(
      'a sweep with config.layout=tune',
      "'auto' or a layout by name: points are spread here, not clients",
      'set --config.layout=auto',
    )
  if not points:
    raise InputError('no points', 'at least one', 'give seeds and values')
  for point in points:
    for key in point.hparams:
      if key not in config.hparams:
        raise unknown('hparam', key, config.hparams.keys())
  if processes.count() > 1:
    raise InputError(
      'a sweep in one program over several processes',
      'one process',
      'give every process points of its own',
    )


def _whole_run(config, task, setting, masks):
  """(one point's values, population, test bank) -> what is kept of its run."""
  factory = algorithms.ALGORITHMS[config.method]
  evaluate = program.evaluator(task, setting, config.method, masks)

  def one(value: PyTree, population, test):
    algorithm = factory(task, setting._replace(hparams=value['hparams']))
    params_key, rounds_key = program.keys(value['seed'])

    def step(state, number):
      key = jax.random.fold_in(rounds_key, number)
      state, info = algorithm.step(key, state, population)
      working = info.trained.any(-1)
      loss = jnp.where(working, info.loss, 0.0).sum()
      return state, {
        'loss': loss / jnp.maximum(working.sum(), 1),
        'cost': {
          'sim_seconds': info.seconds.max(),
          'joules': info.joules.sum(),
          'up_bytes': info.upload.sum(),
          'down_bytes': info.download.sum(),
        },
      }

    state = algorithm.init(params_key, task.init(params_key))
    state, kept = jax.lax.scan(step, state, jnp.arange(config.rounds))
    counts = evaluate(algorithm.params(state), population.frozen, test)
    return {'counts': counts, **kept}

  return one
