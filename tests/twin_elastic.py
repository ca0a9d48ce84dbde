"""ElasticTrainer as loops: every set of groups is tried; see twin.py."""

import itertools

import jax
import numpy as np

from tests import tiny
from tests.twin import Twin, group_of


class ElasticTwin(Twin):
  """The groups that lowered the loss most, as many as the budget affords."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    names = task.group_names
    self.known = [dict.fromkeys(names, np.inf) for _ in range(self.clients)]
    self.fall = [dict.fromkeys(names, 0.0) for _ in range(self.clients)]

  def worth(self, number, n) -> dict[str, float]:
    """Of the groups in reach; what is unknown comes first, in drawn order."""
    reach, names = self.access(n), self.task.group_names
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
    key = jax.random.fold_in(key, self.fleet.id[n])
    draw = np.asarray(jax.random.uniform(key, (len(names),)), np.float64)
    known = {g: v for g, v in self.known[n].items() if g in reach}
    total = sum(max(v, 0.0) for v in known.values() if np.isfinite(v))
    return {
      g: max(v, 0.0) / total
      if np.isfinite(v)
      else 2 + draw[names.index(g)] / len(names)
      for g, v in known.items()
    }

  def plan(self, number):
    trained = []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      worth = self.worth(number, n)
      best: set[str] = set()
      for size in range(1, len(worth) + 1):
        for found in itertools.combinations(sorted(worth), size):
          if self.fleet.samples[n] and (
            self.flops(n, found) <= budget * (1 + 1e-5)
          ):
            best = max(
              best, set(found), key=lambda s, w=worth: sum(w[g] for g in s)
            )
      trained.append(best)
    return trained, trained

  def watch(self, n, k, gradient, change):
    self.fall[n][group_of(k)] -= (gradient * change).sum()

  def observe(self, number, divergence, trained):
    for n, groups in enumerate(trained):
      for g in groups:
        self.known[n][g], self.fall[n][g] = self.fall[n][g], 0.0
