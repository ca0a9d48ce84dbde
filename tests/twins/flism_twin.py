"""FLISM as a Python loop; contrasts pair by pair."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.clients import noise as white
from tests.support import tiny
from tests.twins import twin


def contrast(first, second, y, weight, temperature):
  """Over every view, its positives and all others, one by one."""
  views = [(z, int(i)) for z in (first, second) for i in range(len(y))]
  views = [(z[i] / jnp.sqrt((z[i] ** 2).sum() + 1e-12), i) for z, i in views]
  real = [j for j, (_, i) in enumerate(views) if weight[i]]
  total = 0.0
  for a in real:
    others = {
      b: jnp.exp((views[a][0] * views[b][0]).sum() / temperature)
      for b in real
      if b != a
    }
    # Classes are traced: a factor of 0 or 1.
    same = {b: 1.0 * (y[views[a][1]] == y[views[b][1]]) for b in others}
    every = sum(others.values())
    logs = sum(same[b] * jnp.log(v / every) for b, v in others.items())
    total -= logs / sum(same.values())
  return total / len(real)


def divergence(target, found):
  """KL(target || found) of two rows of logits."""
  p, q = (jnp.exp(v) / jnp.exp(v).sum() for v in (target, found))
  return (p * jnp.log(p / q)).sum()


@functools.cache
def _gradient(spec, temperature, kd, batch):
  def loss(params, teacher, x, view, several, y):
    present = np.ones(len(spec.modalities))
    sides = (
      jnp.concatenate(
        [h for _, h in twin.features(spec, params, v, present)], 1
      )
      for v in (x, view)
    )
    scores = twin.logits(spec, params, {}, x, present)
    target = twin.logits(spec, teacher, {}, x, present)
    plain = sum(
      jnp.log(jnp.exp(scores[i]).sum()) - scores[i, y[i]] for i in range(batch)
    )
    taught = sum(divergence(target[i], scores[i]) for i in range(batch))
    pulled = contrast(*sides, y, np.ones(batch), temperature)
    return (plain + kd * taught) / batch + several * pulled

  return jax.jit(jax.value_and_grad(loss))


class FlismTwin(twin.Twin):
  """With filled inputs, all terms on."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.teacher, self.entropy = self.params, {}
    options = setting.options
    self.gradient = _gradient(
      self.spec, options.temperature, options.kd, setting.batch
    )

  def key(self, n):
    key = jax.random.split(tiny.round_key(self.seed, self.number), 4)[1]
    return jax.random.fold_in(key, self.fleet.id[n])

  def left(self, n):
    """Sensors of the second view, a set."""
    own = np.flatnonzero(self.fleet.owned[n]).tolist()
    if len(own) < 2:
      return set(own)
    count_key, order_key = jax.random.split(jax.random.fold_in(self.key(n), 1))
    draw = jax.random.uniform(order_key, self.fleet.owned[n].shape)
    out = int(jax.random.randint(count_key, (), 1, len(own)))
    return set(sorted(own, key=lambda m: float(draw[m]))[out:])

  def inputs(self, rows, there):
    return {
      name: self.bank.x[name][rows]
      if m in there
      else jnp.broadcast_to(self.bank.fill[name], self.bank.x[name][rows].shape)
      for m, name in enumerate(self.spec.modalities)
    }

  def local(self, n, batches, trained):
    own = set(np.flatnonzero(self.fleet.owned[n]).tolist())
    keys = jax.random.split(jax.random.fold_in(self.key(n), 0), len(batches))
    theta = {k: v.copy() for k, v in self.params.items()}
    velocity = {k: np.zeros_like(v) for k, v in theta.items()}
    losses = []
    for rows, key in zip(batches, keys, strict=True):
      view = self.inputs(rows, self.left(n))
      for m, name in enumerate(self.spec.modalities):
        noise = white.normal(jax.random.fold_in(key, m), view[name].shape)
        view[name] += self.setting.options.noise * noise
      value, grads = self.gradient(
        single(theta),
        single(self.teacher),
        self.inputs(rows, own),
        view,
        1.0 * (len(own) > 1),
        self.bank.y[rows],
      )
      losses.append(float(value))
      for k in theta:
        gradient = np.asarray(grads[k], np.float64)
        velocity[k] = self.hparams['client_momentum'] * velocity[k] + gradient
        theta[k] = theta[k] - self.hparams['client_lr'] * velocity[k]
    rows = self.rows[n][: self.fleet.samples[n]]
    scores = twin.logits(
      self.spec, single(theta), {}, self.inputs(rows, own), np.ones(2)
    )
    p = np.exp(np.asarray(scores, np.float64))
    p /= p.sum(1, keepdims=True)
    self.entropy[n] = -(p * np.log(p)).sum(1).mean()
    delta = {k: theta[k] - self.params[k] for k in theta}
    return delta, float(np.mean(losses))

  def weight(self, n):
    return 1 / max(self.entropy[n], self.setting.options.floor)

  def told(self, n):
    del n
    return 4.0  # the entropy

  def spent(self, n, trained):
    if not trained:
      return 0.0
    forward, step = self.flops(n, set()), self.flops(n, trained)
    views = 2 if self.fleet.owned[n].sum() > 1 else 1
    drawn = self.setting.steps * self.setting.batch
    return views * step + forward + forward * self.fleet.samples[n] / drawn

  def round(self, number, batches=None):
    self.number, before = number, self.params
    found = super().round(number, batches)
    active = [n for n in range(self.clients) if found.trained[n]]
    self.teacher = {
      k: v + np.mean([found.updates[n][k] for n in active], 0)
      for k, v in before.items()
    }
    return found


def single(params):
  """As float32."""
  return {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
