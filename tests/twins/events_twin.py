"""Asynchronous servers as discrete events: a heap of arrivals, one by one."""

import heapq

import jax
import numpy as np

from relief_jax.clients import batches
from tests.support import tiny
from tests.twins.twin import Observed, ReliefTwin, Twin


class EventTwin(Twin):
  """FedBuff; others say how updates are merged.

  Attributes:
    clock: simulated seconds.
    heap: (time of the arrival, device).
    began: device -> (step, parameters, trained, counted) at its start.
    ages: of who arrived in the last step, by device.
    elapsed: seconds of the last step.
  """

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.clock, self.heap, self.began = 0.0, [], {}
    self.ages, self.elapsed = {}, 0.0
    self.options = setting.options

  @property
  def size(self) -> int:
    return self.options.buffer or min(10, self.setting.cohort)

  def factor(self, age) -> float:
    """Of an update that is so many steps old."""
    o = self.options
    if o.max_staleness and age > o.max_staleness:
      return 0.0
    if o.staleness == 'hinge' and age > o.grace:
      return 1 / (o.slope * (age - o.grace) + 1)
    return (age + 1) ** -o.power if o.staleness == 'polynomial' else 1.0

  def merged(self, age, start, delta, now, trained, k):
    """What an update adds to the sum of parameter k."""
    del start, now, trained
    return self.factor(age) * delta[k]

  def share(self, n, g, age) -> float:
    """Weight of an update in the mean of a group."""
    del age
    return self.vote(n, g)

  def duration(self, n, trained) -> float:
    """Seconds of download, work and upload."""
    f, samples = self.fleet, self.setting.steps * self.setting.batch
    bits, down = 8 * self.uploaded(n, trained), 8 * self.downloaded(n)
    work = samples * self.spent(n, trained)
    return float(work / f.speed[n] + bits / f.uplink[n] + down / f.downlink[n])

  def downloaded(self, n) -> float:
    return self.uploaded(n, self.reach(n))

  def turns(self, number) -> list:
    """Devices in the order in which they are drawn to start."""
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[0]
    keys = batches.client_keys(key, self.fleet)
    luck = np.asarray(jax.vmap(jax.random.uniform)(keys))
    return sorted(range(self.clients), key=lambda n: luck[n])

  def start(self, n, number, trained, counted):
    self.began[n] = number, self.params, trained[n], counted[n]
    heapq.heappush(self.heap, (self.clock + self.duration(n, trained[n]), n))

  def arrivals(self, number, trained, counted) -> list:
    """Who is in the buffer when it is full."""
    able = [n for n in self.turns(number) if trained[n]]
    waiting = [n for n in able if n not in self.began]
    while waiting and len(self.began) < self.setting.cohort:
      self.start(waiting.pop(0), number, trained, counted)
    buffer = []
    while self.heap and len(buffer) < self.size:
      self.clock, n = heapq.heappop(self.heap)
      buffer.append(n)
      if waiting and len(buffer) < self.size:
        self.start(waiting.pop(0), number, trained, counted)
    return buffer

  def round(self, number, batches=None):
    """One step of the server."""
    del batches
    begin, nothing = self.clock, {k: 0 * v for k, v in self.params.items()}
    buffer = self.arrivals(number, *self.plan(number))
    self.elapsed, now, self.ages = self.clock - begin, self.params, {}
    trained = [set() for _ in range(self.clients)]
    counted = [set() for _ in range(self.clients)]
    updates, losses = [nothing] * self.clients, [0.0] * self.clients
    upload = [0.0] * self.clients
    for n in buffer:
      version, start, chosen, everywhere = self.began.pop(n)
      age = number - version
      upload[n] = self.uploaded(n, chosen)
      if not self.factor(age):
        continue
      self.ages[n], trained[n], counted[n] = age, chosen, everywhere
      self.params = start
      delta, losses[n] = self.local(n, self.draw(number, n), chosen)
      updates[n] = {
        k: self.merged(age, start, delta, now, chosen, k) for k in now
      }
    self.params = self.server(now, updates, counted)
    divergence = self.spread(updates, trained)
    self.observe(number, divergence, trained)
    return Observed(self.params, updates, trained, upload, divergence, losses)

  def server(self, now, updates, counted):
    """The next model."""
    after = {}
    for k, old in now.items():
      g = self.group(k)
      those = [n for n in self.ages if g in counted[n]]
      shares = [self.share(n, g, self.ages[n]) for n in those]
      total = sum(
        (s * updates[n][k] for s, n in zip(shares, those, strict=True)),
        0 * old,
      )
      after[k] = old + (total / sum(shares) if those else 0)
    return after

  def spread(self, updates, trained):
    """Weighted variance of each group's updates over its trainers."""
    found = {}
    for g in self.task.blocks.name:
      those = [n for n in self.ages if g in trained[n]]
      if len(those) < 2:
        continue
      stack = np.stack(
        [
          np.concatenate(
            [u.ravel() for k, u in updates[n].items() if self.group(k) == g]
          )
          for n in those
        ]
      )
      w = np.array([self.share(n, g, self.ages[n]) for n in those])
      w = w / w.sum()
      far = np.square(stack - w @ stack).sum(1)
      found[g] = w @ far / stack.shape[1]
    return found


class MixedTwin(EventTwin):
  """FedAsync: models are mixed into the present one."""

  @property
  def size(self):
    return self.options.buffer or self.setting.cohort

  def prox(self):
    return self.options.rho

  def merged(self, age, start, delta, now, trained, k):
    if self.group(k) not in trained:
      return 0 * delta[k]
    model = start[k] + delta[k]
    return self.options.alpha * self.factor(age) * (model - now[k])


class CohortEvents(EventTwin, ReliefTwin):
  """RELIEF: staleness scales, or is a weight among a group's trainers."""

  def merged(self, age, start, delta, now, trained, k):
    return delta[k] * (self.factor(age) if self.options.damped else 1.0)

  def share(self, n, g, age):
    damped = self.options.damped
    return self.vote(n, g) * (1.0 if damped else self.factor(age))


class TierTwin(EventTwin):
  """FedAT: a tier's devices wait for each other, tiers do not."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    tiers = self.options.tiers
    self.models = [self.params] * tiers
    self.rounds, self.known = [0] * tiers, [set() for _ in range(tiers)]

  def prox(self):
    return self.options.rho

  def factor(self, age):
    return 1.0

  def merged(self, age, start, delta, now, trained, k):
    if self.group(k) not in trained:
      return 0 * delta[k]
    return start[k] + delta[k] - now[k]

  def arrivals(self, number, trained, counted):
    able = [n for n in range(self.clients) if trained[n]]
    able.sort(key=lambda n: self.duration(n, trained[n]))
    count = self.options.tiers
    self.tier = {n: i * count // len(able) for i, n in enumerate(able)}
    most = -(-self.setting.cohort // count)
    for m in range(count):
      members = [n for n in self.turns(number) if self.tier.get(n) == m]
      if members and not any(n in self.began for n in members):
        for n in members[:most]:
          self.start(n, number, trained, counted)
    ends = {}
    for time, n in self.heap:
      ends[self.tier[n]] = max(ends.get(self.tier[n], 0.0), time)
    if not ends:
      self.first = None
      return []
    self.first = min(ends, key=ends.get)
    self.clock = ends[self.first]
    found = [n for _, n in self.heap if self.tier[n] == self.first]
    self.heap = [(t, n) for t, n in self.heap if n not in found]
    return found

  def server(self, now, updates, counted):
    if self.first is None:
      return now
    mean, m = super().server(now, updates, counted), self.first
    moved = {g for n in self.ages for g in self.reach(n)}
    self.rounds[m] += 1
    self.known[m] |= moved
    self.models[m] = {
      k: mean[k] if self.group(k) in moved else v
      for k, v in self.models[m].items()
    }
    after = {}
    for k, old in now.items():
      weights = [
        count * (self.group(k) in known)
        for count, known in zip(self.rounds[::-1], self.known, strict=True)
      ]
      after[k] = old
      if sum(weights):
        parts = zip(weights, self.models, strict=True)
        after[k] = sum(w * one[k] for w, one in parts) / sum(weights)
    return after
