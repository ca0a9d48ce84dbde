"""A whole run: many rounds in one compiled program, evaluation between calls.

`Simulation` is what the command line, the benchmarks and notebooks drive. It
holds no file: writing the run directory is the experiments' business.
"""

import os
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import (
  algorithms,
  evaluation,
  models,
  placement,
  program,
  tree,
  world,
)
from relief_jax.program import Program
from relief_jax.recipe import Setting
from relief_jax.types import PyTree

_PARAMS, _ROUNDS = range(2)


class Diverged(RuntimeError):
  """A loss or a parameter is no finite number any more.

  Attributes:
    round: the last round of the call in which it was seen.
    group: name of the first group with a non-finite parameter, or ''.
  """

  def __init__(self, number: int, group: str, client: int | None):
    where = (
      f'in group {group!r}' if group else f'in the loss of client {client}'
    )
    super().__init__(
      f'diverged by round {number}: a non-finite number {where}. Usual cure: '
      'lower --config.hparams.client_lr'
    )
    self.round, self.group = number, group


def set_devices(count: int) -> None:
  """Asks for virtual CPU devices; must come before JAX starts its backend.

  Args:
    count: 0 for one per core.

  Raises:
    RuntimeError: JAX has already started.
  """
  jax.config.update('jax_num_cpu_devices', count or os.cpu_count() or 1)


# Compiled initial states, one per static configuration.
_starts: dict[str, Callable[..., PyTree]] = {}


class Simulation:
  """One run, advanced from evaluation to evaluation.

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.

  Attributes:
    config: the resolved config.
    history: one record per evaluation so far.
    round: rounds done.

  Raises:
    InputError: bad config, data or fleet; nothing has been compiled yet.

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

  def __init__(
    self, config: ml_collections.ConfigDict, data_dir: str | None = None
  ):
    started = time.perf_counter()
    config = config.copy_and_resolve_references()
    self._layout = placement.parse_layout(config.layout, config.devices)
    self._world = world.build(config, data_dir)
    with config.unlocked():
      config.dataset = self._world.dataset
      config.fill = self._world.fill
    self.config = config
    self.rounds = config.rounds
    self.round = 0
    self.history: list[dict[str, Any]] = []
    self._task = models.MODELS[config.backbone](self._world.spec)
    self._setting = self._make_setting()
    self._algorithm = algorithms.ALGORITHMS[config.method](
      self._task, self._setting
    )
    self._masks = evaluation.subsets(
      np.asarray(self._world.population.fleet.owned), self._world.rare
    )
    self._totals = dict.fromkeys(
      ('sim_seconds', 'joules', 'up_bytes', 'down_bytes'), 0.0
    )
    self._window = _empty_window()
    self._wall = {
      'setup': time.perf_counter() - started,
      'compile': 0.0,
      'run': 0.0,
      'evaluate': 0.0,
    }
    self._compiles = 0
    self._program: Program | None = None
    key = jax.random.key(config.seed)
    self._key = jax.random.fold_in(key, _ROUNDS)
    params_key = jax.random.fold_in(key, _PARAMS)
    identity = repr(
      (config.method, config.backbone, self._world.spec)
      + (self._setting._replace(hparams={}),)
    )
    if identity not in _starts:
      algorithm, task = self._algorithm, self._task
      _starts[identity] = jax.jit(lambda k: algorithm.init(k, task.init(k)))
    self._state = self._place(_starts[identity](params_key))
    self._population = self._place(self._world.population)

  @property
  def done(self) -> bool:
    """All rounds are over and evaluated."""
    return bool(self.history) and self.round >= self.rounds

  @property
  def params(self) -> PyTree:
    """The model, P; [N, *P] for a personal method."""
    return self._algorithm.params(self._state)

  @property
  def description(self) -> dict[str, Any]:
    """Short facts for logs, before anything has run."""
    w, fleet = self._world, self._world.population.fleet
    owned = np.asarray(fleet.owned)
    speed = np.asarray(fleet.speed)
    tier = np.asarray(fleet.tier)
    test = len(w.test.y)
    return {
      'dataset': w.dataset,
      'subjects': w.subjects,
      'windows': {'train': len(w.population.bank.y), 'test': test},
      'clients': int(owned.shape[0]),
      'clients_per_round': self._setting.cohort,
      'samples_per_client': [
        int(np.min(fleet.samples)),
        int(np.max(fleet.samples)),
      ],
      'cohorts': {
        m: int(owned[:, i].sum()) for i, m in enumerate(w.spec.modalities)
      },
      'tiers': {t: int((tier == i).sum()) for i, t in enumerate(w.tiers)},
      'speed_ratio': float(speed.max() / speed.min()),
      'deadline': [w.deadline, w.deadline_end],
      'parameters': int(np.asarray(self._task.work.size).sum()),
      'groups': list(self._task.group_names),
      'layout': str(self._layout),
      'memory_bytes': {
        'data': _bytes(w.population) + _bytes(w.test),
        'state': _bytes(self._state),
      },
    }

  def advance(self) -> dict[str, Any]:
    """Runs to the next evaluation (the first call evaluates round 0).

    Returns:
      The record of that evaluation, also appended to `history`.

    Raises:
      Diverged: a loss or a parameter is not finite.
    """
    if self.history:
      until = min(self.round + self.config.eval_every, self.rounds)
      self._window = _empty_window()
      self.advance_rounds(until - self.round)
    record = self._evaluate()
    self.history.append(record)
    return record

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
      'totals': {k: np.float64(v) for k, v in self._totals.items()},
    }

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
    self._totals = {k: float(snapshot['totals'][k]) for k in self._totals}
    self.history = list(history)

  def summary(self) -> dict[str, Any]:
    """What summary.json says of the simulation itself."""
    c = self.config
    names = [
      'f1',
      'f1_all',
      'f1_rare_owners',
      'f1_rare_only',
      'f1_without_rare',
      'accuracy',
    ]
    last = self.history[-1] if self.history else {}
    reached = [r for r in self.history if r['f1'] >= c.target_f1]
    hit = reached[0] if reached else {}
    wall = self._wall['run']
    done = max(self.round, 1)
    return {
      'method': c.method,
      'dataset': c.dataset,
      'backbone': c.backbone,
      'clients': c.clients,
      'rounds': c.rounds,
      'rounds_done': self.round,
      'seed': c.seed,
      'last': {k: last.get(k) for k in names},
      'best': {
        k: max((r[k] for r in self.history), default=None) for k in names
      },
      'target_f1': c.target_f1,
      'rounds_to_target': hit.get('round'),
      'sim_seconds_per_round': self._totals['sim_seconds'] / done,
      'sim_seconds_total': self._totals['sim_seconds'],
      'sim_seconds_to_target': hit.get('sim_seconds'),
      'joules_total': self._totals['joules'],
      'joules_to_target': hit.get('joules'),
      'up_bytes_total': self._totals['up_bytes'],
      'down_bytes_total': self._totals['down_bytes'],
      'wall_seconds': dict(self._wall),
      'rounds_per_second': self.round / wall if wall else None,
      'clients_per_second': (
        self.round * self._setting.cohort / wall if wall else None
      ),
      'compiles': self._compiles,
      'compile_seconds': dict(self._program.seconds) if self._program else {},
      'program_bytes': self._program.memory if self._program else None,
      'peak_memory_bytes': peak_memory(),
      'layout': str(self._layout),
      'device_kind': jax.devices()[0].device_kind,
      'world': self.description,
    }

  def _make_setting(self) -> Setting:
    c, w = self.config, self._world
    options = {**c.relief.to_dict(), 'clients': c.clients}
    values = {k: float(v) for k, v in c.hparams.items()}
    values |= {
      'dropout': c.modality_dropout,
      'deadline': w.deadline,
      'deadline_end': w.deadline_end,
      'rounds': c.rounds,
    }
    return Setting(
      hparams={k: jnp.float32(v) for k, v in values.items()},
      layout=self._layout,
      cohort=c.clients_per_round or c.clients,
      steps=c.local_steps,
      epochs=c.local_epochs,
      batch=c.batch,
      weight=c.weight,
      fill=w.fill,
      dropout=c.modality_dropout > 0,
      schedule=w.deadline != w.deadline_end,
      server_optimizer=c.server_optimizer,
      keep_client_state=c.keep_client_state,
      idle_power=c.idle_power,
      options=options,
    )

  def _place(self, value: PyTree) -> PyTree:
    """Puts a pytree on the mesh, replicated."""
    if self._layout.mesh is None:
      return value
    return jax.device_put(value, NamedSharding(self._layout.mesh, P()))

  def _compile(self) -> Program:
    """Traces and compiles once; a run of the same shapes reuses it."""
    if self._program is None:
      started = time.perf_counter()
      self._program, fresh = program.get(
        self._task,
        self._setting,
        program.Call(
          method=self.config.method,
          spec=self._world.spec,
          rounds=self.config.rounds_per_call,
          even=self.rounds % self.config.rounds_per_call == 0,
          masks=self._masks,
        ),
        (
          self._state,
          self._population,
          self._key,
          jnp.int32(0),
          jnp.int32(self.rounds),
          self._setting.hparams,
        ),
      )
      self._compiles += fresh
      self._wall['compile'] = time.perf_counter() - started
    return self._program

  def _call(self) -> None:
    """One call of the compiled program: up to `rounds_per_call` rounds."""
    compiled = self._compile()
    started = time.perf_counter()
    count = min(self.config.rounds_per_call, self.rounds - self.round)
    self._state, infos = compiled.rounds(
      self._state,
      self._population,
      self._place(self._key),
      self._place(jnp.int32(self.round)),
      self._place(jnp.int32(self.rounds)),
      self._place(self._setting.hparams),
    )
    infos = jax.tree.map(lambda v: np.asarray(v)[:count], infos)
    self._wall['run'] += time.perf_counter() - started
    self.round += count
    bad = ~np.isfinite(infos.loss)
    if bad.any():
      raise Diverged(
        self.round, self._broken_group(), int(infos.client[bad][0])
      )
    wide = infos._replace(
      **{
        k: getattr(infos, k).astype(np.float64)
        for k in ('seconds', 'joules', 'upload', 'download')
      }
    )
    self._totals['sim_seconds'] += float(wide.seconds.max(1).sum())
    self._totals['joules'] += float(wide.joules.sum())
    self._totals['up_bytes'] += float(wide.upload.sum())
    self._totals['down_bytes'] += float(wide.download.sum())
    working = infos.trained.any(-1)
    loss = np.where(working, infos.loss, 0).sum() / max(working.sum(), 1)
    self._window['rounds'] += count
    self._window['loss'] += float(loss) * count
    self._window['trained'] += infos.trained.mean(1).sum(0)
    self._window['divergence'] = infos.divergence[-1]

  def _broken_group(self) -> str:
    """Name of the first group with a non-finite parameter, or ''."""
    params = self.params
    broken = jax.tree.map(lambda v: float(~jnp.isfinite(v).all()), params)
    num = len(self._task.group_names)
    found = np.asarray(tree.group_sum(self._task.groups, broken, num))
    return self._task.group_names[found.argmax()] if found.any() else ''

  def _evaluate(self) -> dict[str, Any]:
    compiled = self._compile()
    started = time.perf_counter()
    group = self._broken_group()
    if group:
      raise Diverged(self.round, group, None)
    counts = compiled.evaluate(
      self.params, self._population.frozen, self._world.test
    )
    w, fleet = self._world, self._world.population.fleet
    scores = evaluation.report(
      np.asarray(counts),
      self._masks,
      np.asarray(fleet.owned),
      np.asarray(fleet.tier),
      w.rare,
      w.spec.modalities,
      w.tiers,
    )
    self._wall['evaluate'] += time.perf_counter() - started
    seen = self._window
    names = self._task.group_names
    count = seen['rounds']
    return {
      'round': self.round,
      **self._totals,
      **scores,
      'divergence': _by_name(names, seen['divergence']),
      'trained_share': _by_name(
        names, seen['trained'] / count if count else None
      ),
      'loss': seen['loss'] / count if count else None,
      'wall_seconds': sum(self._wall.values()),
    }


def _empty_window() -> dict[str, Any]:
  """Sums over the rounds since the last evaluation."""
  return {'rounds': 0, 'loss': 0.0, 'trained': 0.0, 'divergence': None}


def _by_name(names, values) -> dict[str, float | None]:
  """Names -> floats; what is not a finite number becomes None (JSON)."""
  if values is None:
    return dict.fromkeys(names)
  return {
    n: float(v) if np.isfinite(v) else None
    for n, v in zip(names, values, strict=True)
  }


def _bytes(value: PyTree) -> int:
  return sum(int(np.prod(v.shape)) * 4 for v in jax.tree.leaves(value))


def peak_memory() -> int:
  """Peak bytes: of the first accelerator, or of this process on CPU."""
  stats = jax.devices()[0].memory_stats()
  if stats and 'peak_bytes_in_use' in stats:
    return int(stats['peak_bytes_in_use'])
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(
  config: ml_collections.ConfigDict,
  data_dir: str | None = None,
  on_eval: Callable[[dict[str, Any]], None] | None = None,
) -> Simulation:
  """Runs to the end.

  Args:
    config: from `relief_jax.config.default()` or a config file.
    data_dir: folder of the data sets, None to search.
    on_eval: called with the record of every evaluation.

  Returns:
    The finished simulation; see its `history` and `summary()`.
  """
  simulation = Simulation(config, data_dir)
  while not simulation.done:
    record = simulation.advance()
    if on_eval:
      on_eval(record)
  return simulation
