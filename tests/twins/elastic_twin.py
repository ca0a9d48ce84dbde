"""ElasticTrainer and FedEL as loops over all sets of groups; see twin.py."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from tests.support import tiny
from tests.twins.exits_twin import ExitTwin, exit_logits
from tests.twins.twin import Twin


class ElasticTwin(Twin):
  """The groups that lowered the loss most, as many as the budget affords."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    names = task.blocks.name
    self.known = [dict.fromkeys(names, np.inf) for _ in range(self.clients)]
    self.fall = [dict.fromkeys(names, 0.0) for _ in range(self.clients)]

  def importance(self, n) -> dict[str, float]:
    """Of the groups that client n may choose, inf where unknown."""
    return {g: v for g, v in self.known[n].items() if g in self.access(n)}

  def worth(self, number, n) -> dict[str, float]:
    """Of those groups; what is unknown comes first, in drawn order."""
    names, known = self.task.blocks.name, self.importance(n)
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
    key = jax.random.fold_in(key, self.fleet.id[n])
    draw = np.asarray(jax.random.uniform(key, (len(names),)), np.float64)
    total = sum(max(v, 0.0) for v in known.values() if np.isfinite(v))
    return {
      g: max(v, 0.0) / total
      if np.isfinite(v)
      else 2 + draw[names.index(g)] / len(names)
      for g, v in known.items()
    }

  def budget(self, n) -> float:
    """FLOPs per sample."""
    return float(self.fleet.budget[n]) * self.hparams['deadline']

  def plan(self, number):
    trained = []
    for n in range(self.clients):
      worth = self.worth(number, n)
      best: set[str] = set()
      for size in range(1, len(worth) + 1):
        for found in itertools.combinations(sorted(worth), size):
          if self.fleet.samples[n] and (
            self.flops(n, found) <= self.budget(n) * (1 + 1e-5)
          ):
            best = max(
              best, set(found), key=lambda s, w=worth: sum(w[g] for g in s)
            )
      trained.append(best)
    return trained, trained

  def watch(self, n, k, gradient, change):
    self.fall[n][self.group(k)] -= (gradient * change).sum()

  def observe(self, number, divergence, trained):
    for n, groups in enumerate(trained):
      for g in groups:
        self.known[n][g], self.fall[n][g] = self.fall[n][g], 0.0


@functools.cache
def _gradient(spec, depth):
  def loss(params, frozen, x, present, y, weight):
    scores = exit_logits(spec, params, x, present, depth)[-1]
    own = jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y]
    return (own * weight).sum() / weight.sum()

  return jax.jit(jax.value_and_grad(loss))


class WindowTwin(ElasticTwin):
  """FedEL."""

  group = staticmethod(ExitTwin.group)

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.blocks = len(self.spec.filters)
    self.low, self.start = [0] * self.clients, [0] * self.clients
    self.depth = [self.blocks] * self.clients
    self.overall = dict.fromkeys(task.blocks.name, 0.0)
    self.before = None

  def access(self, n):
    pairs = zip(self.task.blocks.name, self.task.blocks.modality, strict=True)
    return {g for g, m in pairs if m < 0 or self.fleet.owned[n, m]}

  def exit(self, depth) -> tuple[str, str]:
    """What the groups of an exit's columns, and of its head, begin with."""
    early = f'exit{depth - 1}'
    return ('fusion', 'shared') if depth == self.blocks else (early, early)

  def inside(self, n, low, depth) -> set[str]:
    """Groups of blocks low .. depth - 1 and of the exit behind them."""
    own, tail = self.exit(depth)
    names = self.spec.modalities
    found = {f'encoder{i}/{m}' for i in range(low, depth) for m in names}
    return self.access(n) & (found | {tail} | {f'{own}/{m}' for m in names})

  def flops(self, n, chosen):
    """Of the model cut at the window's end."""
    spec, depth = self.spec, self.depth[n]
    own, tail = self.exit(depth)
    head = 2 * spec.hidden * spec.classes
    total = head + 2 * spec.hidden + 5 * spec.classes
    total += (head + spec.hidden) * bool(chosen) + head * (tail in chosen)
    for m, (name, below) in enumerate(
      zip(spec.modalities, spec.channels, strict=True)
    ):
      if not self.fleet.owned[n, m]:
        continue
      length = spec.width
      mine = [f'encoder{i}/{name}' in chosen for i in range(depth)]
      deepest = mine.index(True) if any(mine) else depth
      for i, count in enumerate(spec.filters[:depth]):
        after = (length - spec.kernel) // spec.stride + 1
        products, small = 2 * after * spec.kernel * below * count, after * count
        more = -(-spec.kernel // spec.stride) - 1
        total += products + 3 * small
        total += (products + small) * mine[i]
        total += 2 * small * (deepest <= i)
        adds = more * (after + more) * spec.stride * below
        total += (products + adds) * (deepest < i)
        length, below = after, count
      column = 2 * below * spec.hidden
      total += length * below + column + spec.hidden
      total += column * (f'{own}/{name}' in chosen)
      total += column * (deepest < depth)
    return float(total)

  def importance(self, n):
    beta = self.setting.options.beta
    return {
      g: beta * self.known[n][g] + (1 - beta) * self.overall[g]
      for g in self.inside(n, self.low[n], self.depth[n])
    }

  def plan(self, number):
    for n in range(self.clients):
      for depth in range(self.start[n] + 1, self.blocks + 1):
        self.depth[n] = depth
        if self.flops(n, self.inside(n, self.start[n], depth)) >= self.budget(
          n
        ):
          break
    if self.before:
      self.overall = dict.fromkeys(self.overall, 0.0)
      for k, v in self.params.items():
        moved = np.square(v - self.before[k]).sum()
        self.overall[self.group(k)] += moved / self.hparams['client_lr']
    self.before = self.params
    return super().plan(number)

  def local(self, n, batches, trained):
    self.gradient = _gradient(self.spec, self.depth[n])
    return super().local(n, batches, trained)

  def observe(self, number, divergence, trained):
    super().observe(number, divergence, trained)
    for n in np.flatnonzero(self.fleet.samples):
      blocks = [
        int(g.split('/')[0][len('encoder') :])
        for g in trained[n]
        if g.startswith('encoder')
      ]
      self.low[n] = min(blocks, default=self.depth[n])
      self.start[n] = self.depth[n]
      if self.depth[n] == self.blocks:
        self.low[n] = self.start[n] = 0
