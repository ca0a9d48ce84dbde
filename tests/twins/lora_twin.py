"""The LoRA family as loops over devices, in float64."""

import copy

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms.parts import adapters
from relief_jax.budgets.deadlines import SLACK
from relief_jax.models import lora
from tests.support import tiny
from tests.twins import twin
from tests.twins.twin import CohortTwin

B = 'lora_b'


class AdapterTwin(CohortTwin):
  """FedIT: all train, owners count. The others say what else there is."""

  budgeted = False

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.names = [f'lora_a/{m}' for m in self.spec.modalities]
    self.scale = self.spec.lora_alpha / self.spec.rank
    self.number = 0
    self.rank = [self.spec.rank] * self.clients
    self.after = [None] * self.clients

  def halves(self, number):
    """Whether `a` trains, and b."""
    del number
    return True, True

  def plan(self, number):
    self.number = number
    trained, _ = super().plan(number)
    for n in range(self.clients):
      if self.budgeted:
        self.rank[n] = self.largest(n)
        if not self.rank[n]:
          trained[n] = set()
      if not self.halves(number)[0]:
        trained[n] = {g for g in trained[n] if not g.startswith('fusion')}
    return trained, [set(t) for t in trained]

  def largest(self, n):
    """The largest of R, R / 2, ... within the budget, or 0."""
    budget = float(self.fleet.budget[n]) * self.hparams['deadline']
    rank = self.spec.rank
    while rank and self.priced(n, rank, self.reach(n)) > budget * (1 + SLACK):
      rank //= 2
    return rank

  def priced(self, n, rank, trained):
    """FLOPs per sample with adapters of a rank."""
    other = copy.copy(self)
    other.task = lora.lora(self.spec._replace(rank=rank))
    return other.flops(n, trained)

  def spent(self, n, trained):
    if not trained:
      return 0.0
    rank = self.rank[n]
    total = self.priced(n, rank, trained)
    if not self.halves(self.number)[1]:  # b rests, the head trains
      head = self.params['head/w'].size + self.params['head/b'].size
      rest = rank * self.spec.hidden / (rank * self.spec.hidden + head)
      work = lora.lora(self.spec._replace(rank=rank)).work
      total -= rest * float(work.wgrad[self.task.blocks.name.index('shared')])
    return total

  def there(self, n, k):
    """Elements of parameter k within the rank of client n."""
    mask = np.ones(self.params[k].shape)
    if k == B:
      mask[self.rank[n] :] = 0
    elif k in self.names:
      mask[:, self.rank[n] :] = 0
    return mask

  def held(self, n, k):
    a, b = self.halves(self.number)
    moves = b if k == B else a if k in self.names else True
    return self.there(n, k) * moves

  def sent(self, n, k):
    return self.held(n, k).sum()

  def seen(self, n, theta):
    return {k: v * self.there(n, k) for k, v in theta.items()}

  def backward(self, n, k, value, gradient):
    steeper = (self.spec.rank / self.rank[n]) ** 2 if k == B else 1.0
    return gradient * self.held(n, k) * steeper

  def local(self, n, batches, trained):
    delta, loss = super().local(n, batches, trained)
    full = {k: self.params[k] + delta[k] for k in delta}
    self.after[n] = {k: v * self.there(n, k) for k, v in full.items()}
    return delta, loss

  def goals(self, before, trained):
    """Mean products of the devices that hold a sensor, by its name."""
    found = {}
    for m, k in zip(self.spec.modalities, self.names, strict=True):
      moves = self.halves(self.number)[0]
      own = f'fusion/{m}' if moves else 'shared'
      those = [n for n in range(self.clients) if own in trained[n]]
      votes = [self.vote(n, own) for n in those]
      mean = before[k] @ before[B]
      if those:
        every = [self.after[n][k] @ self.after[n][B] for n in those]
        mean = np.average(every, 0, votes)
      found[m] = mean
    return found

  def round(self, number, batches=None):
    before = self.params
    found = super().round(number, batches)
    if any(found.trained):
      self.merge(before, found.trained)
    return found._replace(params=self.params)

  def merge(self, before, trained):
    """What the server makes of it."""

  def add(self, m, value):
    """Adds to the base."""
    key = f'fusion/{m}'
    self.frozen[key] = jnp.asarray(
      np.asarray(self.frozen[key], np.float64) + value, jnp.float32
    )

  def split(self, a):
    """Factors [sum i_m, R] by sensor."""
    ends = np.cumsum([self.params[k].shape[0] for k in self.names])[:-1]
    return dict(zip(self.names, np.split(a, ends), strict=True))


def singular(value, rank):
  """The largest singular values; the largest number of a row is positive."""
  u, s, v = np.linalg.svd(value, full_matrices=False)
  u, s, v = u[:, :rank], s[:rank], v[:rank]
  sign = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
  return u * sign, s, v * sign[:, None]


class SecondTwin(AdapterTwin):
  """Only b trains."""

  def halves(self, number):
    return False, True


class AlternatingTwin(AdapterTwin):
  """b in the first round, then `a`, in turn."""

  def halves(self, number):
    return number % 2 == 1, number % 2 == 0


class ResidualTwin(AdapterTwin):
  """What the product of the means lacks goes into the base."""

  def merge(self, before, trained):
    for m, goal in self.goals(before, trained).items():
      product = self.params[f'lora_a/{m}'] @ self.params[B]
      self.add(m, self.scale * (goal - product))


class RestartTwin(AdapterTwin):
  """All goes into the base, and the factors are drawn anew."""

  budgeted = True

  def merge(self, before, trained):
    for m, goal in self.goals(before, trained).items():
      self.add(m, self.scale * goal)
    key = jax.random.split(tiny.round_key(self.seed, self.number), 4)[1]
    key = jax.random.fold_in(key, adapters.RESTART)
    fresh = twin.named(lora.init(key, self.spec))
    for m, k in zip(self.spec.modalities, self.names, strict=True):
      if any(f'fusion/{m}' in t for t in trained):
        self.params[k] = fresh[k]
    self.params[B] = np.zeros_like(self.params[B])


class LayerTwin(RestartTwin):
  """HSplitLoRA of one layer: rank R or none; measuring is paid for."""

  def plan(self, number):
    self.number = number
    trained, self.measures = [], []
    for n in range(self.clients):
      reach, real = self.reach(n), self.fleet.samples[n] > 0
      most = float(self.fleet.budget[n]) * self.hparams['deadline']
      budget, low = most * (1 + SLACK), self.priced(n, 0, {'shared'})
      more, turn = self.extra(n), number % self.setting.options.every == 0
      self.measures.append(bool(real and turn and low + more <= budget))
      left = (most - self.measures[n] * more) * (1 + SLACK)
      fits = self.priced(n, self.spec.rank, reach) <= left
      self.rank[n] = self.spec.rank if fits else 0
      alone = {'shared'} if real and low <= budget else set()
      trained.append(reach if real and fits else alone)
    return trained, [set(t) for t in trained]

  def priced(self, n, rank, trained):
    """Of rank 0: on the line through 1 and 2."""
    if rank:
      return super().priced(n, rank, trained)
    one, two = (super(LayerTwin, self).priced(n, r, trained) for r in (1, 2))
    return 2 * one - two

  def extra(self, n):
    """FLOPs of the measurement per sample of the round."""
    owned, width = self.fleet.owned[n].sum(), self.spec.hidden
    dense = 2 * owned * self.spec.filters[-1] * width
    whole = self.priced(n, self.spec.rank, self.reach(n))
    return (whole + dense) / self.setting.steps

  def told(self, n):
    return 4.0 * self.measures[n]

  def spent(self, n, trained):
    if not trained:
      return 0.0
    more = self.measures[n] * self.extra(n)
    return self.priced(n, self.rank[n], trained) + more

  def backward(self, n, k, value, gradient):
    if not self.rank[n]:  # only the head moves
      return gradient * self.held(n, k)
    return super().backward(n, k, value, gradient)


class CutTwin(AdapterTwin):
  """The largest singular values of the mean product."""

  budgeted = True

  def merge(self, before, trained):
    whole = np.concatenate(list(self.goals(before, trained).values()))
    a, s, v = singular(whole, self.spec.rank)
    self.params |= self.split(a) | {B: s[:, None] * v}


class TurnTwin(SecondTwin):
  """Orthonormal columns, and the same product."""

  def merge(self, before, trained):
    a = np.concatenate([self.params[k] for k in self.names])
    q, s, v = singular(a @ self.params[B], self.spec.rank)
    self.params |= self.split(q) | {B: s[:, None] * v}


class PaddedTwin(AdapterTwin):
  """HetLoRA: padded with zeros, weights by norms, last ranks pruned."""

  budgeted = True

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.options = setting.options
    self.cap = [self.spec.rank] * self.clients
    plain = self.gradient

    def gradient(params, *rest):
      value, grads = plain(params, *rest)
      a, b = self.tail(*self.now)
      share = self.rank[self.now[0]] / self.spec.rank
      return value + self.options.prune * share * a * b, grads

    self.gradient = gradient

  def plan(self, number):
    found = super().plan(number)
    self.rank = [min(r, c) for r, c in zip(self.rank, self.cap, strict=True)]
    return found

  def last(self, n):
    """Ranks of client n that may be pruned."""
    at, rank = np.arange(self.spec.rank), self.rank[n]
    return (at >= max(int(self.options.gamma * rank), 1)) & (at < rank)

  def tail(self, n, theta):
    """Norms of the last columns of `a` and rows of b."""
    a = np.concatenate([theta[k] for k in self.names])
    last = self.last(n)
    return np.linalg.norm(a[:, last]), np.linalg.norm(theta[B][last])

  def seen(self, n, theta):
    self.now = n, {k: v.copy() for k, v in theta.items()}
    return super().seen(n, theta)

  def backward(self, n, k, value, gradient):
    found = super().backward(n, k, value, gradient)
    a, b = self.tail(*self.now)
    if not (a and b and self.options.prune) or k not in (*self.names, B):
      return found
    last, share = self.last(n), self.rank[n] / self.spec.rank
    if k == B:
      return found + self.options.prune * a / b * value * last[:, None] / share
    return found + self.options.prune * share * b / a * value * last

  def local(self, n, batches, trained):
    delta, loss = super().local(n, batches, trained)
    now, then = (
      np.prod(self.tail(n, theta)) for theta in (self.after[n], self.params)
    )
    if now < then:
      self.cap[n] = max(int(self.options.gamma * self.rank[n]), 1)
    changed = {k for k in delta if self.group(k) in trained}
    for k in changed & {B, *self.names}:
      delta[k] = self.after[n][k] - self.params[k]
    return delta, loss

  def held(self, n, k):
    return self.there(n, k)

  @property
  def dilute(self):
    """All count for every rank."""
    return True

  @dilute.setter
  def dilute(self, value):
    del value

  def vote(self, n, g):
    if self.options.weights == 'equal':
      return self.weight(n)
    every = [self.after[n][k] for k in self.names]
    if g != 'shared':
      every = np.concatenate(every)
      return (
        self.weight(n) * self.scale * np.linalg.norm(every @ self.after[n][B])
      )
    every = np.concatenate(every) @ self.after[n][B]
    return self.weight(n) * self.scale * np.linalg.norm(every)


class SmallTwin(SecondTwin):
  """Fed-SB: b moves in the rows of a basis from the first full gradient."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.basis = None

  def plan(self, number):
    self.starts = self.basis is None
    return super().plan(number)

  def sent(self, n, k):
    if k != B:
      return super().sent(n, k)
    if self.basis is not None:
      return self.spec.rank**2
    every = zip(self.names, range(len(self.names)), strict=True)
    inputs = sum(self.params[k].shape[0] for k, m in every if self.senses(n, m))
    return inputs * self.spec.hidden

  def spent(self, n, trained):
    found = super().spent(n, trained)
    if trained and self.starts:
      more = self.flops(n, trained) + self.flops(n, set())
      steps = self.setting.steps * self.setting.batch
      found += more * self.fleet.samples[n] / steps
    return found

  def backward(self, n, k, value, gradient):
    found = super().backward(n, k, value, gradient)
    if k != B:
      return found
    if self.basis is None:
      return 0 * found
    return found @ self.basis.T @ self.basis

  def first(self, n):
    """Gradient of the base on all windows of a device, by name."""
    rows = self.rows[n]  # as many of each device: one program
    real = np.arange(len(rows)) < self.fleet.samples[n]
    x = {m: self.bank.x[m][rows] for m in self.spec.modalities}
    present = self.fleet.owned[n] | (self.setting.fill == 'input')
    params = {k: jnp.asarray(v, jnp.float32) for k, v in self.start.items()}
    y, weight = self.bank.y[rows], jnp.asarray(real, jnp.float32)
    slope = twin.gradient(self.spec, 1)
    return slope(params, self.frozen, x, present, y, weight)[1]

  def round(self, number, batches=None):
    self.start = self.params
    return super().round(number, batches)

  def merge(self, before, trained):
    if self.basis is not None:
      return
    parts = []
    for m, name in enumerate(self.spec.modalities):
      those = [
        n for n in range(self.clients) if trained[n] and self.senses(n, m)
      ]
      every = [np.asarray(self.first(n)[f'fusion/{name}']) for n in those]
      votes = [self.weight(n) for n in those]
      parts.append(np.average(np.asarray(every, np.float64), 0, votes))
    a, s, v = singular(np.concatenate(parts), self.spec.rank)
    self.basis = v
    rate = self.hparams['client_lr'] / self.scale
    self.params |= self.split(a) | {B: -rate * s[:, None] * v}
