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
  """Splits where a step of a device alone is over soonest; waits for all.

  A device's part is sent once a round if `weights`; with `probes` it has no
  backward pass but so many forward ones, and numbers that cross.
  """

  weights = True
  probes = 0

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.points = cuts.required(task, 'splitfed')
    self.size = dict.fromkeys(range(self.clients), setting.batch)
    self.price()

  def price(self) -> None:
    """Prices a round's steps, and how long all of them take together."""
    count = range(len(self.points.layers))
    self.own = {
      n: self.choose(n, [self.step(self.points, s, n) for s in count])
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

  def choose(self, n, steps) -> Step:
    """Chooses among the points of device n."""
    del n
    return min(steps, key=lambda one: one.ahead + one.server + one.behind)

  def step(self, points, s, n) -> Step:
    names, work = self.task.blocks.name, points.work[s]
    whole = s == len(points.layers) - 1
    held = {g for g, on in zip(names, points.held[s], strict=True) if on}
    mine = held & self.reach(n)
    batch = self.size[n]
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
    told = 4 * self.probes
    down = crossing + 2 * told if mine and not whole else 0.0
    computed = self.probes * forward if self.probes and not whole else back
    fleet, server = self.fleet, self.setting.options.server_gflops * 1e9
    rest = self.flops(n, self.reach(n)) - forward - back
    return Step(
      held=held,
      flops=(forward + computed) * batch,
      ahead=batch * forward / fleet.speed[n] + 8 * up / fleet.uplink[n],
      server=0.0 if whole else batch * rest / server,
      behind=batch * computed / fleet.speed[n]
      + 8 * down / fleet.downlink[n]
      + 8 * told / fleet.uplink[n],
      up=up + told,
      whole=whole,
    )

  def uploaded(self, n, trained) -> float:
    if not trained:
      return 0.0
    own = self.own[int(n)]
    crossed = self.setting.steps * own.up
    if not self.weights:
      return crossed
    return super().uploaded(n, trained & own.held) + crossed

  def spent(self, n, trained) -> float:
    """With what a device could have computed while it waits."""
    if not trained:
      return 0.0
    own = self.own[int(n)]
    waiting = 0.0 if own.whole else self.together - own.ahead - own.behind
    assert waiting > -1e-6 * math.fabs(self.together)
    # Of a step and its share of the largest batch.
    return (own.flops + waiting * self.fleet.speed[n]) / self.setting.batch
