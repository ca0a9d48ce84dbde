"""SplitFed's bill as a loop over devices and split points."""

import math
from typing import NamedTuple

import numpy as np

from relief_jax.budgets import cuts
from tests.twins.twin import Twin


class Step(NamedTuple):
  """What a step of one device costs at one point."""

  held: set
  flops: float
  ahead: float
  server: float
  behind: float
  up: float
  whole: bool


class SplitTwin(Twin):
  """Splits where a step of a device alone is over soonest; waits for all."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    points = cuts.required(task, 'splitfed')
    self.own = {
      n: self.choose(
        [self.step(points, s, n) for s in range(len(points.layers))]
      )
      for n in range(self.clients)
      if self.fleet.samples[n]
    }
    split = [one for one in self.own.values() if not one.whole]
    self.together = 0.0
    if split:
      self.together = (
        max(one.ahead for one in split)
        + sum(one.server for one in split)
        + max(one.behind for one in split)
      )

  def choose(self, steps) -> Step:
    """Chooses among the points of one device."""
    return min(steps, key=lambda one: one.ahead + one.server + one.behind)

  def step(self, points, s, n) -> Step:
    names, work = self.task.blocks.name, points.work[s]
    whole = s == len(points.layers) - 1
    held = {g for g, on in zip(names, points.held[s], strict=True) if on}
    mine = held & self.reach(n)
    batch = self.setting.batch
    senses = [m for m in range(len(self.spec.modalities)) if self.senses(n, m)]
    forward = float(work.shared) + sum(float(work.fwd[m]) for m in senses)
    back = sum(
      float(v) for g, v in zip(names, work.wgrad, strict=True) if g in mine
    )
    for flops, path in zip(work.agrad, np.asarray(work.path), strict=True):
      if any(on and g in mine for on, g in zip(path, names, strict=True)):
        back += float(flops)
    crossing = batch * sum(points.sent[s][m] for m in senses)
    up = crossing + (0 if whole else 4 * batch)
    down = crossing if mine and not whole else 0.0
    fleet, server = self.fleet, self.setting.options.server_gflops * 1e9
    rest = self.flops(n, self.reach(n)) - forward - back
    return Step(
      held=held,
      flops=forward + back,
      ahead=batch * forward / fleet.speed[n] + 8 * up / fleet.uplink[n],
      server=0.0 if whole else batch * rest / server,
      behind=batch * back / fleet.speed[n] + 8 * down / fleet.downlink[n],
      up=up,
      whole=whole,
    )

  def uploaded(self, n, trained) -> float:
    if not trained:
      return 0.0
    own = self.own[int(n)]
    return super().uploaded(n, trained & own.held) + self.setting.steps * own.up

  def spent(self, n, trained) -> float:
    """With what a device could have computed while it waits."""
    if not trained:
      return 0.0
    own = self.own[int(n)]
    waiting = 0.0 if own.whole else self.together - own.ahead - own.behind
    assert waiting > -1e-6 * math.fabs(self.together)
    return own.flops + waiting * self.fleet.speed[n] / self.setting.batch
