"""Methods of a mixture of experts as loops; the mixture sample by sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.engine import ambient
from tests.support import tiny
from tests.twins import twin

NEVER = -1e9


def group_of(name: str) -> str:
  part, *rest = name.split('/')
  if part == 'expert':
    return f'expert/{rest[0]}'
  return 'gate' if part == 'gate' else twin.group_of(name)


def one_expert(params, e, x):
  inside = x @ params[f'expert/{e}/up'] + params[f'expert/{e}/b']
  inside = inside * (inside > 0)
  return inside @ params[f'expert/{e}/down'] + params[f'expert/{e}/c']


def routed(spec, params, a, present):
  """Probabilities [E] of one sample, and the experts that it is sent to."""
  score = a @ params['gate/w'] + params['gate/b']
  for m, name in enumerate(spec.modalities):
    score = score + present[m] * params[f'gate/seen/{name}']
  p = jax.nn.softmax(score) * (params['gate/b'] > NEVER / 2)
  return p, jnp.argsort(-p, stable=True)[: spec.mixture.top]


def fused(spec, params, x, present):
  z = params['bias'][None]
  for name, h in twin.features(spec, params, x, present):
    z = z + h @ params[f'fusion/{name}']
  return jax.nn.relu(z)


def sample(spec, params, a, present):
  """Class scores of one sample, its p, and marks of its experts."""
  p, those = routed(spec, params, a, present)
  total, y = jnp.maximum(sum(p[e] for e in those), 1e-9), a
  every = jnp.stack(
    [one_expert(params, e, a) for e in range(spec.mixture.number)]
  )
  for e in those:
    y = y + p[e] / total * every[e]
  mark = jnp.zeros(spec.mixture.number).at[those].set(1.0)
  return y @ params['head/w'] + params['head/b'], p, mark * (p > 0)


@functools.cache
def _gradient(spec):
  def loss(params, frozen, x, present, y, weight, wanted, mu):
    a = fused(spec, params, x, present)
    scores, p, mark = jax.vmap(lambda one: sample(spec, params, one, present))(
      a
    )
    own = jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y]
    value = (own * weight).sum() / weight.sum()
    mean = (weight[:, None] * p).sum(0) / weight.sum()
    share = (weight[:, None] * mark).sum(0)
    value += (
      spec.mixture.balance
      * spec.mixture.number
      * (share / jnp.maximum(share.sum(), 1e-9) * mean).sum()
    )
    gap = jnp.log(jnp.maximum(mean, 1e-9) / jnp.maximum(wanted, 1e-9))
    return value + mu * (wanted.sum() > 0) * (mean * gap).sum()

  return jax.jit(jax.value_and_grad(loss))


@functools.cache
def _probabilities(spec):
  def found(params, x, present):
    a = fused(spec, params, x, present)
    return jax.vmap(lambda one: routed(spec, params, one, present))(a)

  return jax.jit(found)


class ImportanceTwin(twin.Twin):
  """HFedMoE: experts by importance within the budget."""

  group = staticmethod(group_of)

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.count = self.spec.mixture.number
    self.mu, self.wanted = 0.0, np.zeros(self.count)
    self.gradient = lambda *known: _gradient(self.spec)(
      *known, jnp.asarray(self.wanted, jnp.float32), self.mu
    )

  @property
  def experts(self):
    return [f'expert/{e}' for e in range(self.count)]

  @property
  def whole(self):
    return self.setting.options.form == 'backward'

  def weighs(self) -> bool:
    options = self.setting.options
    return options.gate == 'alpha' or options.threshold > 0

  def access(self, n):
    own = [self.spec.modalities[m] for m in np.flatnonzero(self.fleet.owned[n])]
    free = ('shared', 'gate', *self.experts)
    return {
      g for g in self.task.blocks.name if g in free or g.split('/')[1] in own
    }

  def cost(self, n, chosen) -> float:
    """F_n of a set, with the forward pass of the device's own experts."""
    mine = [g for g in chosen if g in self.experts]
    if self.setting.options.most and len(mine) > self.setting.options.most:
      return float('inf')
    more = len(mine) * self.beside()
    if self.whole:
      return self.flops(n, chosen) + more
    task = self.task
    try:
      work = task.experts.work(jnp.float32([len(mine)]))
      self.task = task._replace(work=work)
      return self.flops(n, chosen) + more
    finally:
      self.task = task

  def beside(self) -> float:
    """FLOPs per sample for each expert that trains, beside training."""
    return 0.0

  def extra(self, n) -> float:
    """FLOPs of the measurement per sample of the round, 0 without."""
    if not self.fleet.samples[n]:
      return 0.0
    fwd = np.asarray(self.task.work.fwd) @ self.fleet.owned[n]
    price = (fwd + self.task.experts.routing.shared) / self.setting.steps
    budget = self.budget(n)
    if self.cost(n, {'shared', 'gate'}) + price > budget:
      return 0.0
    if not self.weighs() and self.cost(n, self.access(n)) <= budget:
      return 0.0
    return price

  def budget(self, n) -> float:
    bound = float(self.fleet.budget[n]) * self.hparams['deadline']
    return min(bound, 1e37) * (1 + 1e-5)

  def measure(self, number, n):
    """Mean p, score, importance of the experts, and who is routed to."""
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
    key = jax.random.fold_in(key, self.fleet.id[n])
    count = int(self.fleet.samples[n])
    at = jax.random.randint(key, (1, self.setting.batch), 0, count)
    rows = self.rows[n][np.asarray(at[0])]
    p, those = _probabilities(self.spec)(
      {k: jnp.asarray(v, jnp.float32) for k, v in self.params.items()},
      {m: self.bank.x[m][rows] for m in self.spec.modalities},
      jnp.asarray(self.fleet.owned[n], jnp.float32),
    )
    p, options = np.asarray(p, np.float64), self.setting.options
    mean = p.mean(0)
    score = options.lam * mean + (1 - options.lam) * p.max(0)
    told = (p * np.log(p / mean)).mean(0)
    return mean, score, score - options.beta * told, set(np.ravel(those))

  def order(self, number, n, usage, importance):
    if self.setting.options.rule == 'random':
      key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
      key = jax.random.fold_in(key, self.fleet.id[n])
      return jax.random.uniform(jax.random.fold_in(key, 2), (self.count,))
    return usage if self.setting.options.rule == 'usage' else importance

  def plan(self, number):
    self.usage = np.zeros((self.clients, self.count))
    self.score = np.zeros((self.clients, self.count))
    self.trained = []
    for n in range(self.clients):
      chosen, budget, extra = {'shared', 'gate'}, self.budget(n), self.extra(n)
      if not self.fleet.samples[n] or self.cost(n, chosen) + extra > budget:
        self.trained.append(set())
        continue
      importance, those = np.zeros(self.count), set()
      if extra:
        self.usage[n], self.score[n], importance, those = self.measure(
          number, n
        )
      order = self.order(number, n, self.usage[n], importance)
      ranked = [
        g
        for g in self.task.blocks.name
        if g in self.access(n) and g not in self.experts
      ]
      ranked += sorted(
        (g for e, g in enumerate(self.experts) if e in those),
        key=lambda g, order=order: -order[int(g.split('/')[1])],
      )
      if self.cost(n, self.access(n)) + extra <= budget:
        ranked = self.access(n)
      for g in ranked:
        if self.cost(n, chosen | {g}) + extra <= budget:
          chosen = chosen | {g}
      self.trained.append(chosen)
    return self.trained, [self.counts(n) for n in range(self.clients)]

  def counts(self, n) -> set:
    least = self.setting.options.threshold / self.count
    return {
      g
      for g in self.trained[n]
      if g not in self.experts or self.usage[n][int(g[7:])] >= least
    }

  def alpha(self, n) -> float:
    if self.setting.options.gate != 'alpha':
      return 1.0
    return sum(
      self.usage[n][e] * self.score[n][e]
      for e, g in enumerate(self.experts)
      if g in self.trained[n]
    )

  def vote(self, n, g):
    return self.weight(n) * (self.alpha(n) if g == 'gate' else 1.0)

  def seen(self, n, theta):
    if self.whole:
      return theta
    lacks = [g not in self.trained[n] for g in self.experts]
    return {**theta, 'gate/b': np.where(lacks, NEVER, theta['gate/b'])}

  def spent(self, n, trained):
    return self.cost(n, trained) + self.extra(n) if trained else 0.0

  def told(self, n):
    return 4.0 * (self.count + 1) if self.extra(n) else 0.0


class AlignedTwin(ImportanceTwin):
  """FedAlign-MoE: gates by consistency, experts by what they say."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    options = self.setting.options
    self.mu = options.mu
    shape = (options.anchors, self.spec.hidden)
    drawn = jax.random.normal(ambient.key(0), shape)
    self.anchors = np.maximum(np.asarray(drawn, np.float64), 0.0)

  def weighs(self):
    return True

  def plan(self, number):
    self.signature = {}
    trained, counted = super().plan(number)
    real = [n for n in range(self.clients) if trained[n] and self.extra(n)]
    self.current = np.zeros(self.count)
    if real:
      self.current = np.average(
        [self.usage[n] for n in real], 0, [self.weight(n) for n in real]
      )
    return trained, counted

  def counts(self, n):
    chosen = set(self.trained[n])
    return chosen if self.extra(n) else chosen - {'gate'}

  def local(self, n, batches, trained):
    delta, loss = super().local(n, batches, trained)
    after = {k: self.params[k] + delta[k] for k in delta}
    for e, g in enumerate(self.experts):
      if g in trained:
        each = [one_expert(after, e, x) for x in self.anchors]
        out = np.asarray(each, np.float64).mean(0)
        self.signature[n, g] = out / max(np.linalg.norm(out), 1e-9)
    return delta, loss

  def vote(self, n, g):
    if g == 'gate':
      gap = np.abs(self.usage[n] - self.current).sum()
      return self.weight(n) * np.exp(-gap / self.setting.options.temperature)
    if g not in self.experts:
      return self.weight(n)
    return self.weight(n) * sum(
      max(self.signature[n, g] @ other, 0.0)
      for (_, h), other in self.signature.items()
      if h == g
    )

  def observe(self, number, divergence, trained):
    if self.current.sum():
      self.wanted = self.current

  def beside(self):
    samples = self.setting.steps * self.setting.batch
    return self.task.experts.each * self.setting.options.anchors / samples

  def told(self, n):
    """Signatures of its experts are charged where it is told what trains."""
    return 4.0 * self.count if self.extra(n) else 0.0

  def uploaded(self, n, trained):
    count = len([g for g in trained if g in self.experts])
    return super().uploaded(n, trained) + 4.0 * count * self.spec.hidden
