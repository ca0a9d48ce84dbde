"""Selection of modalities as loops: orders, sensors and budgets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from tests.support import tiny
from tests.twins import twin


def between(values, keys) -> dict:
  """To 0..1 between the least and the most of the keys."""
  low = min(values[k] for k in keys)
  high = max(values[k] for k in keys)
  return {k: (values[k] - low) / ((high - low) or 1.0) for k in keys}


class MeritTwin(twin.Twin):
  """The modalities of most merit within the budget."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.names = self.spec.modalities
    self.last = [dict.fromkeys(self.names, -1) for _ in range(self.clients)]
    self.price, self.phi = {}, {}

  def groups(self, m) -> set[str]:
    return {g for g in self.task.blocks.name if g.endswith(f'/{m}')}

  def loss(self, rows, on) -> float:
    """Of the received model on some windows, sensors `on`."""
    scores = twin.logits(
      self.spec,
      {k: jnp.asarray(v, jnp.float32) for k, v in self.params.items()},
      self.frozen,
      {m: self.bank.x[m][rows] for m in self.names},
      jnp.asarray([m in on for m in self.names], jnp.float32),
    )
    right = np.asarray(scores)[np.arange(len(rows)), self.bank.y[rows]]
    return float(np.mean(jax.nn.logsumexp(scores, axis=1) - right))

  def shapley(self, number, n, owned) -> dict:
    """What each sensor takes off the loss, in the mean over all orders."""
    key = jax.random.split(tiny.round_key(self.seed, number), 4)[1]
    key = jax.random.fold_in(key, self.fleet.id[n])
    count = int(self.fleet.samples[n])
    at = jax.random.randint(key, (1, self.setting.batch), 0, count)
    rows = self.rows[n][np.asarray(at[0])]
    orders = list(itertools.permutations(owned))
    phi = dict.fromkeys(owned, 0.0)
    for order in orders:
      for i, m in enumerate(order):
        gain = self.loss(rows, order[:i]) - self.loss(rows, order[: i + 1])
        phi[m] += gain / len(orders)
    return phi

  def plan(self, number):
    options = self.setting.options
    most = options.top or len(self.names)
    trained = []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      budget *= 1 + 1e-5
      owned = [m for i, m in enumerate(self.names) if self.fleet.owned[n, i]]
      work = self.task.work
      fwd = sum(float(work.fwd[self.names.index(m)]) for m in owned)
      price = (fwd + 2 ** len(owned) * float(work.shared)) / self.setting.steps
      short = self.flops(n, self.access(n)) > budget or len(owned) > most
      fits = self.flops(n, {'shared'}) + price <= budget
      self.price[n], phi = 0.0, dict.fromkeys(owned, 0.0)
      if not self.fleet.samples[n] or self.flops(n, {'shared'}) > budget:
        trained.append(set())
        continue
      if len(owned) > 1 and short and fits and options.shapley:
        self.price[n] = price
        phi = self.phi[number, n] = self.shapley(number, n, owned)
      size = {
        m: sum(v.size for k, v in self.params.items() if f'/{m}' in k)
        for m in owned
      }
      phi, size = between(phi, owned), between(size, owned)
      score = {
        m: options.shapley * phi[m]
        + options.size * (1 - size[m])
        + options.recency * (number - self.last[n][m]) / (number + 1)
        for m in owned
      }
      chosen, count = {'shared'}, 0
      for m in sorted(owned, key=lambda m: -score[m]):
        more = chosen | self.groups(m)
        if count < most and self.flops(n, more) + self.price[n] <= budget:
          chosen, count = more, count + 1
      trained.append(chosen)
    return trained, trained

  def spent(self, n, trained):
    return self.flops(n, trained) + self.price[n] if trained else 0.0

  def observe(self, number, divergence, trained):
    for n, chosen in enumerate(trained):
      for m in self.names:
        if self.groups(m) & chosen:
          self.last[n][m] = number
