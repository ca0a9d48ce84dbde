"""Runs many simulations in one program: their values as an array axis.

Runs of one structure differ in values only: seeds, hyperparameters, budgets,
data of the same shapes. `Together` advances them from evaluation to evaluation
in one compiled program. What is the same array in all of them (the data of one
world) is there once. On CPU a device runs its points one after the other,
since a vmap would turn every skipped encoder into a computed one, and the
devices share the points instead of the clients; elsewhere the points of a
device are one vmap.
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import world
from relief_jax.engine import ambient, memory, placement, processes
from relief_jax.errors import InputError, unknown
from relief_jax.runs import program
from relief_jax.runs.round_totals import Diverged
from relief_jax.runs.simulation import Simulation
from relief_jax.types import Array, PyTree


class Point(NamedTuple):
  """Describes one run of a sweep.

  Attributes:
    seed: of its initial parameters and of its rounds.
    hparams: keys of `config.hparams` and their values; others stay.
  """

  seed: int
  hparams: Mapping[str, float] = {}


class Sweep(NamedTuple):
  """Holds the results of a sweep.

  Attributes:
    points: one record each: seed, hparams, and the record of the last
      evaluation as `Simulation.advance` gives it, or `diverged`, the reason.
    seconds: of tracing, lowering, compiling and running.
    layout: of the points.
  """

  points: list[dict[str, Any]]
  seconds: dict[str, float]
  layout: str


class _Values(NamedTuple):
  """Holds pytrees of several points, leaf by leaf.

  Attributes:
    own: number of a leaf -> [points, ...], where they differ.
    common: number of a leaf -> the one array of all.
  """

  own: dict[int, Array]
  common: dict[int, Array]


def _stack(trees: Sequence[PyTree]) -> _Values:
  """Stacks one array per leaf; the same object everywhere stays one."""
  own, common = {}, {}
  for i, leaves in enumerate(zip(*map(jax.tree.leaves, trees), strict=True)):
    if all(leaf is leaves[0] for leaf in leaves):
      common[i] = leaves[0]
    else:
      own[i] = jnp.stack(leaves)
  return _Values(own, common)


def _row(stacked: PyTree, i: int) -> PyTree:
  return jax.tree.map(lambda v: v[i], stacked)


class Together:
  """Advances simulations of one structure together.

  Args:
    simulations: after the same round, each on one device.
    mesh: devices that share them; None for one.

  Attributes:
    seconds: of tracing, lowering, compiling and running.

  Raises:
    InputError: no simulations, unlike ones, or several processes.
  """

  @ambient.pinned()
  def __init__(
    self, simulations: Sequence[Simulation], mesh: Mesh | None = None
  ):
    _check(simulations)
    self._runs, self._mesh = list(simulations), mesh
    self._over = [run.done for run in self._runs]
    self.seconds: dict[str, float] = {'run': 0.0}
    # A mesh wants a multiple of its devices: the last point again.
    padding = -len(self._runs) % (mesh.size if mesh else 1)
    self._padded = self._runs + self._runs[-1:] * padding
    values = [run.arguments()[1:] for run in self._padded]
    tests = [run.test_arguments()[1:] for run in self._padded]
    self._place = NamedSharding(mesh, P()) if mesh else None
    self._values, self._tests = self._put((_stack(values), _stack(tests)))
    self._held = self._put([run.arguments()[0] for run in self._padded])
    if padding:  # each is donated once
      self._held = jax.tree.map(jnp.copy, self._held)
    self._structures = (
      jax.tree.structure(values[0]),
      jax.tree.structure(tests[0]),
    )
    self._compiled: tuple[Any, Any] | None = None

  @ambient.pinned()
  def prepare(self, memory_limit: int | None = None) -> memory.Estimate:
    """Compiles the program, and estimates the memory of all points.

    Args:
      memory_limit: bytes, None for the machine's.

    Raises:
      InputError: more than there is.
    """
    first, started = self._runs[0], time.perf_counter()
    rounds = program.runner(first.algorithm, first.call)
    evaluate = program.evaluator(first.task, first.algorithm, first.call.scope)

    def all_rounds(states, values, now):
      # The same for all: a vmapped number would make selects of conditions.
      def one(state, population, key, _first, _total, hparams):
        total = jnp.int32(first.rounds)
        return rounds(state, population, key, now, total, hparams)

      found, infos = self._each(one, states, values, self._structures[0])
      return [_row(found, i) for i in range(len(states))], infos

    def all_tests(states, values, now):
      def one(state, *rest):
        return evaluate(first.algorithm.params(state), now, *rest)

      return self._each(one, states, values, self._structures[1])

    states = self._held
    self._compiled = (
      self._build(all_rounds, states, self._values, self._now(), donate=True),
      self._build(all_tests, states, self._tests, self._now()),
    )
    taken = time.perf_counter() - started
    for i, run in enumerate(self._runs):
      run.run.count_compilation(int(i == 0), taken / len(self._runs))
    held = (states, self._values, self._tests)
    found = memory.estimate(
      0 if jax.default_backend() == 'cpu' else memory.on_device(held),
      max(map(program.reserved, self._compiled)),
      memory_limit,
    )
    memory.check(found, 'run fewer points in one program, or smaller ones')
    return found

  def _build(self, function, states, *rest, donate=False):
    options: dict[str, Any] = {'donate_argnums': 0} if donate else {}
    if self._place:
      options |= {'in_shardings': self._place, 'out_shardings': self._place}
    shapes = jax.tree.map(
      lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (states, *rest)
    )
    return program.build(jax.jit(function, **options), shapes, self.seconds)

  def _each(self, function, states, values: _Values, structure) -> PyTree:
    """Maps (a point's state, *its values) -> ... over points, [points, ...]."""

    def every(states, own, common):
      def one(row):
        state, own = row
        leaves = [v for _, v in sorted((own | common).items())]
        return function(state, *jax.tree.unflatten(structure, leaves))

      if jax.default_backend() == 'cpu':
        return jax.lax.map(one, (states, own))
      return jax.vmap(one)((states, own))

    if self._mesh:
      every = jax.shard_map(
        every,
        mesh=self._mesh,
        in_specs=(P(placement.AXIS), P(placement.AXIS), P()),
        out_specs=P(placement.AXIS),
        check_vma=False,
      )
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *states)
    return every(stacked, values.own, values.common)

  def _put(self, value: PyTree) -> PyTree:
    return jax.device_put(value, self._place) if self._place else value

  def _now(self) -> Array:
    return self._put(jnp.int32(self._round))

  @property
  def _round(self) -> int:
    return max(run.round for run in self._runs)

  @ambient.pinned()
  def advance_rounds(self, count: int) -> list[Diverged | None]:
    """Runs at least `count` rounds, in whole calls.

    Returns:
      The error that ended each point, or None.

    Raises:
      InputError: the first call finds that it does not fit into memory.
    """
    if not self._compiled:
      self.prepare()
    assert self._compiled is not None
    found: list[Diverged | None] = [None] * len(self._runs)
    until = min(self._round + count, self._runs[0].rounds)
    while self._round < until and not all(self._over):
      started = time.perf_counter()
      self._held, infos = self._compiled[0](
        self._held, self._values, self._now()
      )
      infos = jax.tree.map(np.asarray, infos)
      taken = time.perf_counter() - started
      self.seconds['run'] += taken
      for i, run in enumerate(self._runs):
        if self._over[i]:
          continue
        try:
          run.take(self._held[i], _row(infos, i), taken / len(self._runs))
        except Diverged as error:
          found[i], self._over[i] = error, True
    return found

  @ambient.pinned()
  def evaluate(self) -> list[dict[str, Any] | Diverged | None]:
    """Tests all models.

    Returns:
      The record of each point, what ended it, or None if it ended before.

    Raises:
      InputError: as `advance_rounds`.
    """
    if not self._compiled:
      self.prepare()
    assert self._compiled is not None
    started = time.perf_counter()
    counts = jax.tree.map(
      np.asarray, self._compiled[1](self._held, self._tests, self._now())
    )
    taken = (time.perf_counter() - started) / len(self._runs)
    found: list[dict[str, Any] | Diverged | None] = [None] * len(self._runs)
    for i, run in enumerate(self._runs):
      if self._over[i]:
        continue
      try:
        found[i] = run.score(_row(counts, i), taken)
        self._over[i] = run.done
      except Diverged as error:
        found[i], self._over[i] = error, True
    return found

  def advance(self) -> list[dict[str, Any] | Diverged | None]:
    """Advances all runs to their next evaluation, as `Simulation.advance`.

    Returns:
      As `evaluate`.

    Raises:
      InputError: as `advance_rounds`.
    """
    ended: Sequence[Diverged | None] = [None] * len(self._runs)
    if any(run.history for run in self._runs):
      for run in self._runs:
        run.run.begin()
      first = self._runs[0]
      every = first.config.eval_every
      until = min((self._round // every + 1) * every, first.rounds)
      ended = self.advance_rounds(until - self._round)
    scored = self.evaluate()
    return [a or b for a, b in zip(ended, scored, strict=True)]


def _check(simulations: Sequence[Simulation]) -> None:
  """Refuses simulations that cannot go on together."""
  if not simulations:
    raise InputError('no points', 'at least one', 'give seeds and values')
  if processes.count() > 1:
    raise InputError(
      'a sweep in one program over several processes',
      'one process',
      'give every process points of its own',
    )
  if len({alike(run) for run in simulations}) > 1:
    raise InputError(
      'points of several structures',
      'points that differ in values only',
      'run unlike points apart',
    )


def alike(run: Simulation) -> Hashable:
  """Gives a key that is equal for simulations that can go on together now."""
  kind = program.identity(
    run.setting, run.call, run.arguments(), run.test_arguments()
  )
  more = run.rounds, run.config.eval_every, run.round, bool(run.history)
  return kind, more


@ambient.pinned()
def run_points(
  config: ml_collections.ConfigDict,
  points: Sequence[Point],
  data_dir: str | None = None,
) -> Sweep:
  """Runs all points in one compiled program, in the world of the config.

  The data, the partition and the fleet are those of the config's own seed for
  all of them, so that points differ by training alone; a point of that seed
  is the `Simulation` of the same config. They are tested at the end.

  Args:
    config: of all; its seed makes the world.
    points: the runs.
    data_dir: folder of the data sets, None to search.

  Returns:
    A record per point, in their order.

  Raises:
    InputError: bad config or data, no points, an hparam that no config has, or
      several processes.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 2, 32
  >>> c.devices, c.model.filters = 1, (4, 8)
  >>> points = [Point(0, {'client_lr': lr}) for lr in (0.01, 0.1)]
  >>> [p['round'] for p in run_points(c, points).points]
  [2, 2]
  """
  config = config.copy_and_resolve_references()
  if config.layout in ('tune', 'debug'):
    raise InputError(
      f'a sweep with config.layout={config.layout}',
      "'auto' or a layout by name: points are spread here, not clients",
      'set --config.layout=auto',
    )
  for point in points:
    for key in point.hparams:
      if key not in config.hparams:
        raise unknown('hparam', key, config.hparams.keys())
  spread = placement.parse_layout(config.layout, config.devices)
  block = spread.block
  config.layout = {0: 'all', 1: 'one'}.get(block, f'block:{block}')
  config.devices = 1
  config.rounds_per_call = config.eval_every = config.rounds
  found = world.build(config, data_dir)
  runs = []
  for point in points:
    one = config.copy_and_resolve_references()
    one.seed = point.seed
    one.hparams.update(point.hparams)
    runs.append(Simulation(one, data_dir, found=lambda: found))
  together = Together(runs, spread.mesh)
  ended = together.advance_rounds(config.rounds)
  records = [a or b for a, b in zip(ended, together.evaluate(), strict=True)]
  return Sweep(
    [
      {
        'seed': point.seed,
        'hparams': dict(point.hparams),
        **(
          {'diverged': str(record)}
          if isinstance(record, Diverged)
          else record or {}
        ),
      }
      for point, record in zip(points, records, strict=True)
    ],
    together.seconds,
    f'{spread}, points shared by the devices',
  )
