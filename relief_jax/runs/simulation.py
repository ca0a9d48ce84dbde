"""Simulates one run: compiled programs, arrays in their places, records."""

import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax import algorithms, models, world
from relief_jax.config import registries, validation
from relief_jax.engine import ambient, memory, placement, processes
from relief_jax.engine.debug import ClientError
from relief_jax.rounds.records import RoundInfo
from relief_jax.runs import evaluation, program, run_summary, start
from relief_jax.runs import model as model_lib
from relief_jax.runs.program import Program
from relief_jax.runs.round_totals import Diverged
from relief_jax.runs.run import Run
from relief_jax.types import PyTree

_log = logging.getLogger(__name__)


class Simulation:
  """Simulates one run, advanced from evaluation to evaluation.

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    memory_limit: bytes that the run may take, None for the machine's.
    found: gives the config's world if it is there already; else one is built.

  Attributes:
    config: resolved; `layout` names the one that was taken.
    task: the model.
    setting: of the round.
    algorithm: of the method.
    run: its records, also about single devices.
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
    bounded = self._world.population.fleet.memory is not None
    self.task = models.make(config.backbone, self._world.spec, bounded)
    self.choice, self._layout, self._world = start.settle_layout(
      config, self._world, self.task, self._layout, memory_limit
    )
    self.run = Run(config, self.task, self._world)
    self.setting = program.setting(config, self._world, self._layout)
    self.algorithm = algorithms.build(config.method, self.task, self.setting)
    with processes.together():
      self.algorithm.check(
        self._world.population.fleet,
        max(self._world.deadline, self._world.deadline_end),
      )
    for text in self.warnings:
      _log.warning('%s', text)
    self._program: Program | None = None
    self._memory: memory.Estimate | None = None
    params_key, rounds_key = program.keys(config.seed)
    self._key = self._place(rounds_key)
    self._hparams = self._place(program.hparams(config, self._world))
    self._population = start.place_population(
      self._world.population, self._layout
    )
    identity = program.built_by(self.call), self._world.spec, self.setting
    self._state = self._place(
      start.initial_state(
        identity, self.algorithm, self.task, params_key, memory_limit
      )
    )
    with processes.together():
      start.check_finite(self.task, placement.local(self.params))
    args = self._key, self._state, self._population, self._hparams
    start.check_round(config, self.algorithm, args)
    self.run.wall['setup'] = time.perf_counter() - started

  @property
  def rounds(self) -> int:
    """Rounds of the whole run."""
    return self.run.rounds

  @property
  def round(self) -> int:
    """Rounds done."""
    return self.run.round

  @property
  def done(self) -> bool:
    """Tells whether all rounds are over and evaluated."""
    return self.run.done

  @property
  def history(self) -> list[dict[str, Any]]:
    """One record per evaluation so far."""
    return self.run.history

  @ambient.pinned()
  def plans(self) -> bool:
    """Tells whether a round depends on the number of rounds.

    Such a run cannot grow longer. Found out by tracing the round, so it holds
    for methods of your own.
    """
    return program.reads_rounds(
      self.algorithm,
      (self._key, self._state, self._population),
      self._hparams,
      self.rounds,
    )

  @property
  def params(self) -> PyTree:
    """The model, P; [N, *P] for a personal method."""
    return self.algorithm.params(self._state)

  @property
  def frozen(self) -> PyTree:
    """The base, on this process's devices, with what the server merged in."""
    return start.base(self.algorithm, self._state, self._population)

  def model(self) -> model_lib.Model:
    """Gives the model as it is now, to predict with or to keep."""
    return model_lib.of_run(
      self.config,
      self._world,
      self.algorithm,
      self.round,
      (placement.local(self.params), self.frozen),
    )

  @property
  def description(self) -> dict[str, Any]:
    """Short facts for logs, before anything has run."""
    w = self._world
    return {
      **run_summary.describe(w, self.task, self.setting),
      'layout': self._layout_text(),
      'memory_bytes': {
        'data': memory.size((w.population, w.tests)),
        'state': memory.size(self._state),
      },
    }

  @property
  def warnings(self) -> list[str]:
    """Warnings for a reader of the results; no error."""
    whole = not (self.algorithm.personal or self.config.modality_dropout)
    found = run_summary.warnings(self._world, whole)
    return [*self.task.notes, *found, *self.run.warnings]

  @property
  @ambient.pinned()
  def compiled(self) -> bool:
    """Tells whether `prepare` has nothing to compile."""
    args = self.arguments(), self.test_arguments()
    return bool(self._program) or program.known(self.setting, self.call, *args)

  @ambient.pinned()
  def prepare(self) -> memory.Estimate:
    """Compiles the programs, and estimates the memory of the run.

    Raises:
      InputError: more than there is.
      PeerError: in another process of the run.
    """
    compiled = self._compile()
    arrays = 0
    if jax.default_backend() != 'cpu':
      arrays = memory.on_device((self._state, self._population))
      arrays += memory.on_device(self._world.tests)
    self._memory = start.estimate_memory(
      arrays, compiled.memory, self._memory_limit
    )
    return self._memory

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
      until = self.run.next_after(self.config.eval_every)
      self.run.begin()
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
    """Gives all that is needed to go on; a pytree of numpy arrays."""
    return {
      'state': jax.tree.map(np.asarray, jax.device_get(self._state)),
      **self.run.snapshot(),
    }

  @ambient.pinned()
  def restore(self, snapshot: dict[str, Any], history: list) -> None:
    """Restores a snapshot of a run with the same config.

    Args:
      snapshot: from `snapshot`.
      history: the records up to that round.
    """
    structure = jax.tree.structure(self._state)
    leaves = [jnp.asarray(v) for v in jax.tree.leaves(snapshot['state'])]
    self._state = self._place(jax.tree.unflatten(structure, leaves))
    self.run.restore(snapshot, history)

  def summary(self) -> dict[str, Any]:
    """Gives the simulation's own part of summary.json."""
    return {
      'dataset': self.description['dataset'],
      **self.run.summary(self.setting.cohort),
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
      'fleet': self.run.fleet(),
      **run_summary.recovered(self.config, self.history),
    }

  def _layout_text(self) -> str:
    count = len(self.setting.buckets)
    return str(self._layout) + (f' in {count} buckets' if count else '')

  def _place(self, value: PyTree) -> PyTree:
    """Puts a pytree on the mesh, replicated."""
    return placement.replicate(value, self._layout)

  def test_arguments(self) -> tuple:
    """Gives the current arguments of `Program.evaluate` after parameters."""
    population = self._population
    return (
      jnp.int32(self.round),
      placement.local(population.fleet),
      self.frozen,
      placement.local(self._hparams),
      self._world.tests,
    )

  @property
  def call(self) -> program.Call:
    """The static part of the program beside the setting."""
    each = self.config.rounds_per_call
    return program.Call(
      method=self.config.method,
      backbone=self.config.backbone,
      spec=self._world.spec,
      rounds=self.config.rounds_per_call,
      even=(self.rounds % each, self.round % each) == (0, 0),
      scope=self.run.scope,
    )

  @ambient.pinned()
  def arguments(self) -> tuple:
    """Gives the current arguments of `Program.rounds`."""
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
        self.task,
        self.algorithm,
        self.setting,
        self.call,
        self.arguments(),
        self.test_arguments(),
      )
      self.run.count_compilation(fresh, time.perf_counter() - started)
    return self._program

  def _call(self) -> None:
    """Calls the compiled program once: up to `rounds_per_call` rounds."""
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
    """Takes over the results of a call of the program.

    Args:
      state: after it.
      infos: [rounds_per_call, K, ...] numpy arrays.
      seconds: that it took.

    Raises:
      Diverged: a loss is not finite.
    """
    self._state = state
    broken = self.run.take(infos, seconds)
    if broken is not None:
      round_index, client = broken
      group = start.broken_group(self.task, placement.local(self.params))
      raise Diverged(round_index, group, client)

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
    """Makes the record of an evaluation, also appended to `history`.

    Args:
      counts: from `Program.evaluate`, numpy arrays.
      seconds: that it took.

    Raises:
      Diverged: a parameter is not finite.
    """
    return self.run.score(counts, seconds)
