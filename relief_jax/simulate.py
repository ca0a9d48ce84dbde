"""A whole run: many rounds in one compiled program, evaluation between calls.

`Simulation` is what the command line, the benchmarks and notebooks drive. It
holds no file: writing the run directory is the experiments' business.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax import algorithms, models, tree, world
from relief_jax.config import registries, validation
from relief_jax.engine import (
  ambient,
  machine,
  memory,
  placement,
  processes,
)
from relief_jax.engine.debug import ClientError
from relief_jax.rounds import similarity
from relief_jax.runs import (
  device_log,
  evaluation,
  program,
  run_summary,
  scores,
  tuner,
)
from relief_jax.runs.program import Program
from relief_jax.runs.result import Result
from relief_jax.runs.round_totals import Diverged, Tally
from relief_jax.settings import Setting
from relief_jax.types import PyTree, RoundInfo, Task

__all__ = [
  'Diverged',
  'Result',
  'Simulation',
  'clear',
  'run',
  'set_devices',
]


def set_devices(count: int) -> None:
  """Asks for virtual CPU devices; must come before JAX starts its backend.

  Args:
    count: 0 for one per core that this process may use.

  Raises:
    RuntimeError: JAX has already started.
  """
  jax.config.update('jax_num_cpu_devices', count or machine.cores())


_log = logging.getLogger(__name__)

# Compiled initial states, one per static configuration.
_starts: dict[Hashable, Callable[..., PyTree]] = {}


def clear() -> None:
  """Forgets all compiled programs (long sweeps over unlike shapes)."""
  _starts.clear()
  program.clear()
  jax.clear_caches()


class Simulation:
  """One run, advanced from evaluation to evaluation.

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    memory_limit: bytes that the run may take, None for the machine's.
    found: gives the config's world where that may be there already; None, or
      no world from it, builds one.

  Attributes:
    config: the resolved config.
    history: one record per evaluation so far.
    devices: what single devices did since the evaluation before the last
      (`device_log.Logbook.window`).
    cosines: how alike updates were in rounds since the evaluation before the
      last (`similarity.lines`), where the config asks for it.
    round: rounds done.
    choice: the layout and why it was taken; `config.layout` names it.

  Raises:
    InputError: bad config, data or fleet, a state that does not fit into
      memory; nothing has been compiled yet.
    PeerError: any of it in another process of the run.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 5, 32
  >>> simulation = Simulation(c)
  >>> simulation.advance()['round']
  0
  >>> simulation.advance()['round']
  5
  >>> simulation.done
  True
  """

  @ambient.pinned()
  def __init__(
    self,
    config: ml_collections.ConfigDict,
    data_dir: str | None = None,
    memory_limit: int | None = None,
    found: Callable[[], world.World | None] | None = None,
  ):
    started = time.perf_counter()
    config = config.copy_and_resolve_references()
    with processes.together():
      validation.validate(config)  # a world that was found is no check
      registries.settle(config)
      asked = 'auto' if config.layout in placement.OPEN else config.layout
      self._layout = placement.parse_layout(asked, config.devices)
      self._world = (found and found()) or world.build(
        config, data_dir, self._layout
      )
    with config.unlocked():
      config.dataset = self._world.dataset
      config.fill = self._world.fill
    processes.agree('config', repr(config))
    self.config = config
    self._memory_limit = memory_limit
    self._task = models.make(config.backbone, self._world.spec)
    self.choice = self._settle_layout()
    self.rounds = config.rounds
    self.round = 0
    self.history: list[dict[str, Any]] = []
    self._setting = program.setting(config, self._world, self._layout)
    self._algorithm = algorithms.build(config.method, self._task, self._setting)
    with processes.together():
      self._algorithm.check(
        self._world.population.fleet,
        max(self._world.deadline, self._world.deadline_end),
      )
    fleet = self._world.population.fleet
    self._scope = evaluation.scope(
      np.asarray(fleet.owned),
      self._world.rare,
      len(self._world.persons),
      self._world.fill,
    )
    self._facts = scores.Facts(
      owned=np.asarray(fleet.owned),
      tier=np.asarray(fleet.tier),
      rare=self._world.rare,
      modalities=self._world.spec.modalities,
      tiers=self._world.tiers,
      persons=self._world.persons,
      validation=np.asarray(self._world.validation, bool),
    )
    for text in self.warnings:
      _log.warning('%s', text)
    self._tally = Tally()
    self._logbook = device_log.Logbook(self._world.population.fleet)
    self.devices: dict[str, Any] = {}
    self._wall = {
      'setup': 0.0,
      'compile': 0.0,
      'run': 0.0,
      'evaluate': 0.0,
    }
    self._compiles = 0
    self._program: Program | None = None
    self._memory: memory.Estimate | None = None
    params_key, rounds_key = program.keys(config.seed)
    self._key = self._place(rounds_key)
    self._hparams = self._place(program.hparams(config, self._world))
    self._population = self._place_population()
    self._state = self._start(params_key)
    self.cosines: list[dict[str, Any]] = []
    if config.cosines:
      with processes.together():
        args = self._key, self._state, self._population, self._hparams
        shapes = jax.eval_shape(self._algorithm.step, *args)
        similarity.check(shapes[1], config.method)
    self._wall['setup'] = time.perf_counter() - started

  @property
  def done(self) -> bool:
    """All rounds are over and evaluated."""
    return bool(self.history) and self.round >= self.rounds

  def next_after(self, every: int) -> int:
    """The next round that is a multiple, or the last one.

    Args:
      every: rounds from one to the next.
    """
    return min((self.round // every + 1) * every, self.rounds)

  @ambient.pinned()
  def plans(self) -> bool:
    """Whether a round depends on how many there are: it cannot grow longer.

    Found out by tracing the round, so it holds for methods of your own.
    """
    args = self._key, self._state, self._population

    def step(rounds, *args):
      hparams = {**self._hparams, 'rounds': rounds}
      return self._algorithm.step(*args, hparams)

    traced = jax.make_jaxpr(step)(jnp.float32(self.rounds), *args).jaxpr
    read = {id(v) for equation in traced.eqns for v in equation.invars}
    return id(traced.invars[0]) in read

  @property
  def params(self) -> PyTree:
    """The model, P; [N, *P] for a personal method."""
    return self.params_of(self._state)

  def params_of(self, state: PyTree) -> PyTree:
    """The model in a state."""
    return self._algorithm.params(state)

  @property
  def description(self) -> dict[str, Any]:
    """Short facts for logs, before anything has run."""
    w = self._world
    return {
      **run_summary.describe(w, self._task, self._setting.cohort),
      'layout': self._layout_text(),
      'memory_bytes': {
        'data': memory.size((w.population, w.tests)),
        'state': memory.size(self._state),
      },
    }

  @property
  def warnings(self) -> list[str]:
    """What a reader of the results should know; no error."""
    whole = not (self._algorithm.personal or self.config.modality_dropout)
    return run_summary.warnings(self._world, whole)

  @ambient.pinned()
  def prepare(self) -> memory.Estimate:
    """Compiles, and tells the memory that the run will take.

    Raises:
      InputError: more than there is.
      PeerError: in another process of the run.
    """
    compiled = self._compile()
    arrays = 0
    if jax.default_backend() != 'cpu':
      arrays = memory.on_device((self._state, self._population))
      arrays += memory.on_device(self._world.tests)
    found = memory.estimate(arrays, compiled.memory, self._memory_limit)
    with processes.together():
      memory.check(
        found,
        'take fewer clients a round (--config.clients_per_round), smaller '
        'blocks of them (--config.layout=block:8, one), fewer '
        '--config.devices, or a machine with more memory',
      )
    self._memory = found
    return found

  @ambient.pinned()
  def advance(self) -> dict[str, Any]:
    """Runs to the next evaluation (the first call evaluates round 0).

    Returns:
      The record of that evaluation, also appended to `history`.

    Raises:
      Diverged: a loss or a parameter is not finite.
      InputError: the first call finds that the run does not fit into memory.
    """
    if self._memory is None:
      self.prepare()
    if self.history:
      until = self.next_after(self.config.eval_every)
      self.begin()
      self.advance_rounds(until - self.round)
    return self._evaluate()

  @ambient.pinned()
  def advance_rounds(self, count: int) -> None:
    """Runs at least `count` rounds, in whole calls, without an evaluation.

    Raises:
      Diverged: a loss is not finite.
    """
    until = min(self.round + count, self.rounds)
    while self.round < until:
      self._call()

  def snapshot(self) -> dict[str, Any]:
    """All that is needed to go on; a pytree of numpy arrays."""
    return {
      'state': jax.tree.map(np.asarray, jax.device_get(self._state)),
      'round': np.int64(self.round),
      'totals': {k: np.float64(v) for k, v in self._tally.totals.items()},
    }

  @ambient.pinned()
  def restore(self, snapshot: dict[str, Any], history: list) -> None:
    """Goes back to a snapshot of a run with the same config.

    Args:
      snapshot: from `snapshot`.
      history: the records up to that round.
    """
    structure = jax.tree.structure(self._state)
    leaves = [jnp.asarray(v) for v in jax.tree.leaves(snapshot['state'])]
    self._state = self._place(jax.tree.unflatten(structure, leaves))
    self.round = int(snapshot['round'])
    # In our own order: a pytree sorts its keys, and records are text.
    for key in self._tally.totals:
      self._tally.totals[key] = float(snapshot['totals'][key])
    self.history = list(history)

  def summary(self) -> dict[str, Any]:
    """What summary.json says of the simulation itself."""
    return {
      'dataset': self.description['dataset'],
      **run_summary.outcome(
        self.config, self.history, self.round, self._tally.totals
      ),
      **run_summary.speed(self._wall, self.round, self._setting.cohort),
      'compiles': self._compiles,
      'compile_seconds': dict(self._program.seconds) if self._program else {},
      'program_bytes': self._program.memory if self._program else None,
      'memory_estimate': self._memory._asdict() if self._memory else None,
      'peak_memory_bytes': memory.peak(),
      'layout': self._layout_text(),
      'layout_choice': self.choice._asdict(),
      'processes': processes.count(),
      'device_kind': jax.devices()[0].device_kind,
      'world': self.description,
      'warnings': self.warnings,
      'fleet': self._logbook.describe(
        self._world.spec.modalities, self._world.tiers
      ),
      **run_summary.recovered(self.config, self.history),
    }

  def _layout_text(self) -> str:
    count = len(self._setting.buckets)
    return str(self._layout) + (f' in {count} buckets' if count else '')

  def _settle_layout(self) -> tuner.Choice:
    """Finds the layout where the config leaves it open, and takes it."""
    config, found = self.config, self._world
    if config.layout not in placement.OPEN:
      return tuner.Choice(config.layout, 'config')
    choice = tuner.settle(
      config.layout,
      tuner.Job(
        method=config.method,
        backbone=config.backbone,
        spec=found.spec,
        task=self._task,
        setting=program.setting(config, found, self._layout),
        hparams=program.hparams(config, found),
        population=found.population,
        memory_limit=self._memory_limit,
      ),
    )
    config.layout = choice.name
    layout = placement.parse_layout(choice.name, config.devices)
    if layout.mesh != self._layout.mesh:  # in one process only
      population = found.population
      rows = np.asarray(population.rows)[: len(population.fleet.id)]
      moved = placement.spread_rows(
        lambda first, last: rows[first:last], rows.shape, layout
      )
      population = dataclasses.replace(population, rows=moved)
      self._world = found._replace(population=population)
    self._layout = layout
    return choice

  def _place(self, value: PyTree) -> PyTree:
    """Puts a pytree on the mesh, replicated."""
    return placement.replicate(value, self._layout)

  def _place_population(self) -> PyTree:
    """The clients' rows are in place already; all else is replicated."""
    population = self._world.population
    nothing: Any = None
    rest = self._place(dataclasses.replace(population, rows=nothing))
    return dataclasses.replace(rest, rows=population.rows)

  def _start(self, key: jax.Array) -> PyTree:
    """The state before the first round.

    Raises:
      InputError: it does not fit into memory.
      PeerError: nor does another process's.
    """
    identity = (
      self.config.method,
      self.config.backbone,
      self._world.spec,
      self._setting,
    )
    if identity not in _starts:
      algorithm, task = self._algorithm, self._task
      _starts[identity] = jax.jit(lambda k: algorithm.init(k, task.init(k)))
    need = memory.size(jax.eval_shape(_starts[identity], key))
    with processes.together():
      memory.check(
        memory.estimate(need, 0, self._memory_limit),
        'lower --config.clients where every client keeps a model, momentum or '
        'a memory of its own (--config.keep_client_state, '
        '--config.uplink_codec.memory), make the model smaller, or take a '
        'larger machine',
      )
    return self._place(_starts[identity](key))

  @property
  def task(self) -> Task:
    """The model."""
    return self._task

  @property
  def setting(self) -> Setting:
    """Of the round."""
    return self._setting

  def test_arguments(self) -> tuple:
    """Gives those of `Program.evaluate` after the parameters, now."""
    population = self._population
    return (
      jnp.int32(self.round),
      *placement.local((population.fleet, population.frozen, self._hparams)),
      self._world.tests,
    )

  @property
  def call(self) -> program.Call:
    """What else is static about the program."""
    each = self.config.rounds_per_call
    return program.Call(
      method=self.config.method,
      spec=self._world.spec,
      rounds=self.config.rounds_per_call,
      even=(self.rounds % each, self.round % each) == (0, 0),
      scope=self._scope,
    )

  @ambient.pinned()
  def arguments(self) -> tuple:
    """Of `Program.rounds`, now."""
    return (
      self._state,
      self._population,
      self._key,
      self._place(jnp.int32(self.round)),
      self._place(jnp.int32(self.rounds)),
      self._hparams,
    )

  def _compile(self) -> Program:
    """Traces and compiles once; a run of the same shapes reuses it."""
    if self._program is None:
      started = time.perf_counter()
      self._program, fresh = program.get(
        self._task,
        self._setting,
        self.call,
        self.arguments(),
        self.test_arguments(),
      )
      self.count_compilation(fresh, time.perf_counter() - started)
    return self._program

  def count_compilation(self, number: int, seconds: float) -> None:
    """Adds compilations and their time to the summary."""
    self._compiles += number
    self._wall['compile'] += seconds

  def begin(self) -> None:
    """Starts the window that the next evaluation tells about."""
    self._tally.begin()
    self._logbook.begin()
    self.cosines = []

  def _call(self) -> None:
    """One call of the compiled program: up to `rounds_per_call` rounds."""
    compiled = self._compile()
    started = time.perf_counter()
    try:
      state, infos = compiled.rounds(*self.arguments())
    except ClientError as error:
      raise error.named(self._world.tiers) from error.__cause__
    infos = jax.tree.map(np.asarray, infos)
    self.take(state, infos, time.perf_counter() - started)

  @ambient.pinned()
  def take(self, state: PyTree, infos: RoundInfo, seconds: float) -> None:
    """Takes over what a call of the program gave.

    Args:
      state: after it.
      infos: [rounds_per_call, K, ...] numpy arrays.
      seconds: that it took.

    Raises:
      Diverged: a loss is not finite.
    """
    self._state = state
    count = self.next_after(self.config.rounds_per_call) - self.round
    infos = jax.tree.map(lambda v: v[:count], infos)
    self._wall['run'] += seconds
    broken = self._tally.add(infos)
    if broken is None:
      self._logbook.add(infos, self.round)
      if self.config.cosines:
        self.cosines += similarity.lines(
          self._task, infos, self.round, self.config.cosines
        )
    before = self.round
    self.round += count
    if broken is not None:
      number, client = broken
      raise Diverged(before + number + 1, self._broken_group(), client)

  def _broken_group(self) -> str:
    """Name of the first group with a non-finite parameter, or ''."""
    params = placement.local(self.params)
    broken = jax.tree.map(lambda v: float(~jnp.isfinite(v).all()), params)
    num = self._task.num_blocks
    found = np.asarray(tree.group_sum(self._task.groups, broken, num))
    return self._task.blocks.name[found.argmax()] if found.any() else ''

  def _evaluate(self) -> dict[str, Any]:
    compiled = self._compile()
    started = time.perf_counter()
    # On one device: all hold the same model.
    counts = compiled.evaluate(
      placement.local(self.params), *self.test_arguments()
    )
    counts = jax.tree.map(np.asarray, counts)
    return self.score(counts, time.perf_counter() - started)

  @ambient.pinned()
  def score(self, counts: evaluation.Counts, seconds: float) -> dict[str, Any]:
    """The record of an evaluation, also appended to `history`.

    Args:
      counts: from `Program.evaluate`, numpy arrays.
      seconds: that it took.

    Raises:
      Diverged: a parameter is not finite.
    """
    started = time.perf_counter()
    group = self._broken_group()
    if group:
      raise Diverged(self.round, group, None)
    found = scores.report(counts, self._scope, self._facts)
    self.devices = {
      'round': self.round,
      **self._logbook.window(self._task.blocks.name),
      'f1': self._logbook.pick(found.f1),
    }
    if found.f1_own is not None:
      self.devices['f1_own'] = self._logbook.pick(found.f1_own)
    self._wall['evaluate'] += seconds + time.perf_counter() - started
    record = {
      'round': self.round,
      **self._tally.totals,
      **found.record,
      **self._tally.window(self._task.blocks.name),
      'wall_seconds': sum(self._wall.values()),
    }
    self.history.append(record)
    return record


def run(
  config: ml_collections.ConfigDict,
  data_dir: str | None = None,
  on_eval: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
  """Runs to the end.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.dataset, c.clients, c.rounds, c.data.width = 'synthetic', 8, 5, 32
  >>> run(c).to_pandas()['f1'].size  # rounds 0 and 5
  2

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    on_eval: called with the record of every evaluation.

  Returns:
    What came out.

  Raises:
    InputError: bad config, data or fleet.
    Diverged: a loss or a parameter is not finite.
  """
  simulation = Simulation(config, data_dir)
  while not simulation.done:
    record = simulation.advance()
    if on_eval:
      on_eval(record)
  return Result(
    config=simulation.config,
    history=simulation.history,
    summary=simulation.summary(),
    params=jax.device_get(placement.local(simulation.params)),
  )
