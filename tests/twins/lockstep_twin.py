"""Split training as loops over steps and devices, every part by itself."""

import jax
import numpy as np

from relief_jax import tree
from relief_jax.algorithms import ho_sfl
from relief_jax.rounds import split_steps
from tests.support import tiny
from tests.twins.split_twin import SplitTwin
from tests.twins.twin import Observed, named


class Momentum:
  """SGD with momentum of the parameters in one place."""

  def __init__(self, setting):
    self.setting, self.velocity = setting, {}

  def __call__(self, k, value, gradient):
    hparams = self.setting.hparams
    old = self.velocity.get(k, np.zeros_like(value))
    self.velocity[k] = float(hparams['client_momentum']) * old + gradient
    return value - float(hparams['client_lr']) * self.velocity[k]


class PooledTwin(SplitTwin):
  """One server model, on all batches at once; device parts are averaged.

  `given` are the groups that each device holds; None: those of its split.
  """

  merged = True
  given = None
  kept = None

  def choose(self, n, steps):
    del n
    return steps[self.setting.options.layers]

  def holds(self, n) -> set:
    return self.own[n].held if self.given is None else self.given[n]

  def turns(self, number, clients) -> list:
    """Devices whose gradients the server takes together."""
    del number
    return [clients]

  def share(self, n, clients) -> float:
    return self.weight(n) / sum(self.weight(c) for c in clients)

  def joint(self, number, t, total, slopes) -> dict:
    """The server's gradient, of the sum over devices and of theirs."""
    del number, t, slopes
    return total

  def round(self, number, batches=None):
    clients = [n for n in range(self.clients) if self.fleet.samples[n]]
    trained, _ = self.plan(number)
    if self.kept is None:
      self.kept = [self.params] * self.clients
    theta = [
      dict(self.params if self.merged else self.kept[n])
      for n in range(self.clients)
    ]
    phi, server = dict(self.params), Momentum(self.setting)
    device = [Momentum(self.setting) for _ in range(self.clients)]
    rows = {n: self.draw(number, n) for n in clients}
    losses = np.zeros(self.clients)
    for t in range(self.setting.steps):
      for those in self.turns(number, clients):
        total: dict = {}
        slopes: dict = {}
        for n in those:
          seen = {
            k: theta[n][k] if self.group(k) in self.holds(n) else phi[k]
            for k in phi
          }
          batch = rows[n][t][: self.size[n]]
          value, grads = slopes[n] = self.slopes(n, batch, seen)
          losses[n] += float(value) / self.setting.steps
          for k, g in grads.items():
            gradient = np.asarray(g, np.float64)
            if self.group(k) not in trained[n]:
              continue
            if self.group(k) in self.holds(n):
              theta[n][k] = device[n](k, theta[n][k], gradient)
            else:
              more = self.share(n, those) * gradient
              total[k] = total.get(k, 0.0) + more
        for k, gradient in self.joint(number, t, total, slopes).items():
          phi[k] = server(k, phi[k], gradient)
    before, self.kept = self.params, theta
    self.params = {k: v.copy() for k, v in phi.items()}
    if self.merged:
      for n in clients:
        for k in before:
          if self.group(k) in self.holds(n):
            change = theta[n][k] - before[k]
            self.params[k] += self.share(n, clients) * change
    upload = [self.uploaded(n, trained[n]) for n in range(self.clients)]
    return Observed(self.params, [], trained, upload, {}, losses.tolist())


class InTurnTwin(PooledTwin):
  """The server's part moves after each device, in a drawn order."""

  def turns(self, number, clients):
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]

    def draw(n):
      own = jax.random.fold_in(key, self.fleet.id[n])
      return float(jax.random.uniform(jax.random.fold_in(own, 1)))

    return [[n] for n in sorted(clients, key=draw)]

  def share(self, n, those):
    return 1.0 if len(those) == 1 else super().share(n, those)


class ProbedTwin(PooledTwin):
  """HO-SFL: one device part, moved along directions that all share."""

  weights = False

  def __init__(self, task, population, setting, seed=0):
    self.probes = setting.options.probes
    super().__init__(task, population, setting, seed)
    self.given = [set()] * self.clients

  def joint(self, number, t, total, slopes):
    held = next(iter(self.own.values())).held
    mask = np.array([g in held for g in self.task.blocks.name])
    part = tree.part(split_steps.parts(self.task, mask), tiny.init(self.task))
    found = ho_sfl.Part(self.task, mask, 1.0, self.probes)
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
    key = ho_sfl.step_key(key, t)
    size = sum(v.size for v in jax.tree.leaves(part))
    ahead = {k: 0.0 for k in total if self.group(k) in held}
    for q in range(self.probes):
      u = named(ho_sfl.direction(found, part, key, q))
      mean = sum(
        self.share(n, list(slopes))
        * sum((np.asarray(grads[k], np.float64) * u[k]).sum() for k in ahead)
        for n, (_, grads) in slopes.items()
      )
      for k in ahead:
        ahead[k] = ahead[k] + mean * u[k] / (self.probes + size + 1)
    return {**total, **ahead}


def named_all(params) -> list:
  """A model of each device, as `named`."""
  count = len(jax.tree.leaves(params)[0])
  return [
    named(jax.tree.map(lambda v, n=n: v[n], params)) for n in range(count)
  ]
