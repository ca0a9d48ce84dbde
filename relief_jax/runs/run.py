"""Holds the host's side of a run: the state after every call of a program."""

import time
from typing import Any

import jax
import ml_collections
import numpy as np

from relief_jax.rounds import similarity
from relief_jax.rounds.records import RoundInfo
from relief_jax.runs import (
  device_log,
  evaluation,
  picks,
  privacy,
  run_summary,
  scores,
)
from relief_jax.runs.round_totals import Diverged, RoundTotals
from relief_jax.task import Task
from relief_jax.world import World


class Run:
  """Holds rounds done, records, totals and times; plain host data.

  Args:
    config: of the run.
    task: the model.
    world: that it runs in.

  Attributes:
    config: of the run.
    scope: of its evaluations.
    rounds: of the whole run.
    round: rounds done.
    history: one record per evaluation so far.
    devices: log of single devices since the evaluation before the last
      (`device_log.DeviceLog.window`).
    cosines: similarity of updates in rounds since then (`similarity.lines`).
    confusion: of the last evaluation: `round`, `classes` and `counts` [C][C];
      {} of targets that are no classes.
    wall: seconds of `setup`, `compile`, `run` and `evaluate`.
    compiles: programs compiled.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, task: Task, world: World
  ):
    fleet = world.population.fleet
    owned = np.asarray(fleet.owned)
    self.config, self._task, self._world = config, task, world
    self.rounds, self.round = config.rounds, 0
    self.history: list[dict[str, Any]] = []
    self.devices: dict[str, Any] = {}
    self.cosines: list[dict[str, Any]] = []
    self.confusion: dict[str, Any] = {}
    self.wall = dict.fromkeys(('setup', 'compile', 'run', 'evaluate'), 0.0)
    self.compiles = 0
    self.scope = evaluation.scope(
      owned, world.rare, len(world.persons), world.fill
    )
    self._facts = scores.Facts(
      owned=owned,
      tier=np.asarray(fleet.tier),
      rare=world.rare,
      modalities=world.spec.modalities,
      tiers=world.tiers,
      persons=world.persons,
      validation=np.asarray(world.validation, bool),
      classes=world.classes,
      targets=world.spec.targets,
    )
    self._rows = 0
    self._totals = RoundTotals()
    self._log = device_log.DeviceLog(fleet)
    self._privacy = privacy.make(config, fleet)
    self._picks = picks.make(config, fleet)

  @property
  def done(self) -> bool:
    """Tells whether all rounds are over and evaluated."""
    return bool(self.history) and self.round >= self.rounds

  @property
  def warnings(self) -> list[str]:
    """What noise in updates does to this fleet, for a reader."""
    return privacy.warnings(self.config, self._world)

  def next_after(self, every: int) -> int:
    """Gives the next round that is a multiple, or the last one.

    Args:
      every: rounds from one to the next.
    """
    return min((self.round // every + 1) * every, self.rounds)

  def begin(self) -> None:
    """Starts the window of the next evaluation."""
    self._totals.begin()
    self._log.begin()
    self.cosines = []

  def take(self, infos: RoundInfo, seconds: float) -> tuple[int, int] | None:
    """Takes over the infos of a call.

    Args:
      infos: [rounds_per_call, K, ...] numpy arrays.
      seconds: that it took.

    Returns:
      The round and the client of the first loss that is not finite, or None.
    """
    count = self.next_after(self.config.rounds_per_call) - self.round
    infos = jax.tree.map(lambda v: v[:count], infos)
    self.wall['run'] += seconds
    self._rows = infos.client.shape[-1]
    broken = self._totals.add(infos)
    if broken is None:
      self._log.add(infos, self.round)
      if self._privacy:
        self._privacy.add(infos)
      if self._picks:
        self._picks.add(infos)
      if self.config.update_similarity:
        self.cosines += similarity.lines(
          self._task, infos, self.round, self.config.update_similarity
        )
    before = self.round
    self.round += count
    return broken and (before + broken[0] + 1, broken[1])

  def count_compilation(self, number: int, seconds: float) -> None:
    """Adds compilations and their time to the summary."""
    self.compiles += number
    self.wall['compile'] += seconds

  def score(self, counts: evaluation.Counts, seconds: float) -> dict[str, Any]:
    """Makes the record of an evaluation, also appended to `history`.

    Args:
      counts: numpy arrays.
      seconds: that they took.

    Raises:
      Diverged: a parameter is not finite.
    """
    started = time.perf_counter()
    broken = np.asarray(counts.nonfinite)
    if broken.any():
      raise Diverged(self.round, self._task.blocks.name[broken.argmax()], None)
    found = scores.report(counts, self.scope, self._facts)
    self.devices = {
      'round': self.round,
      **self._log.window(self._task.blocks.name),
      **{name: self._log.pick(v) for name, v in found.devices.items()},
    }
    if found.confusion is not None:
      self.confusion = {
        'round': self.round,
        'classes': list(self._world.classes),
        'counts': found.confusion.tolist(),
      }
    self.wall['evaluate'] += seconds + time.perf_counter() - started
    record = {
      'round': self.round,
      **self._totals.totals,
      **found.record,
      **self._totals.window(self._task.blocks.name),
      **self._spent(),
      **(self._picks.record() if self._picks else {}),
      'wall_seconds': sum(self.wall.values()),
    }
    self.history.append(record)
    return record

  def _spent(self) -> dict[str, float]:
    return self._privacy.record() if self._privacy else {}

  def snapshot(self) -> dict[str, Any]:
    """Gives the part of it that a later process needs to go on."""
    return {
      'round': np.int64(self.round),
      'totals': {k: np.float64(v) for k, v in self._totals.totals.items()},
      **({'privacy': self._privacy.snapshot()} if self._privacy else {}),
      **({'picks': self._picks.counts} if self._picks else {}),
    }

  def restore(self, snapshot: dict[str, Any], history: list) -> None:
    """Restores a snapshot.

    Args:
      snapshot: from `snapshot`.
      history: the records up to that round.
    """
    self.round = int(snapshot['round'])
    # In our own order: a pytree sorts its keys, and records are text.
    for key in self._totals.totals:
      self._totals.totals[key] = float(snapshot['totals'][key])
    if self._privacy:
      self._privacy.restore(snapshot['privacy'])
    if self._picks:
      self._picks.restore(snapshot['picks'], self.round)
    self.history = list(history)

  def summary(self, cohort: int) -> dict[str, Any]:
    """Gives its part of summary.json.

    Args:
      cohort: K.
    """
    # Where the server acts on arrivals a round is of fewer.
    each = min(cohort, self._rows or cohort)
    return {
      **run_summary.outcome(
        self.config, self.history, self.round, self._totals.totals
      ),
      **run_summary.speed(self.wall, self.round, each),
      'compiles': self.compiles,
      **self._spent(),
    }

  def fleet(self) -> dict[str, Any]:
    """Gives the devices' part of summary.json."""
    return self._log.describe(self._world.spec.modalities, self._world.tiers)
