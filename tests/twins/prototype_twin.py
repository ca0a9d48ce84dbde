"""PMM and the QQR-style method as Python loops, window by window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.twins import twin


@functools.cache
def _gradient(spec, align):
  def loss(params, x, present, slots, trust, pull, y, weight):
    z, far = params['bias'][None], 0.0
    seen = twin.features(spec, params, x, present)
    for m, (name, h) in enumerate(seen):
      z = z + (h + (1 - present[m]) * slots[m]) @ params[f'fusion/{name}']
      apart = jnp.square(h - slots[m]).sum(1)
      far = far + trust[m] * present[m] * (pull[m] * weight * apart).sum()
    scores = jax.nn.relu(z) @ params['head/w'] + params['head/b'][None]
    own = jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y]
    return ((own * weight).sum() + align * far) / weight.sum()

  return jax.jit(jax.value_and_grad(loss))


@functools.cache
def _features(spec):
  def found(params, x):
    present = np.ones(len(spec.modalities))
    return [h for _, h in twin.features(spec, params, x, present)]

  return jax.jit(found)


class PrototypeTwin(twin.Twin):
  """PMM: labels' prototypes stand for what is missing."""

  align = 0.0

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.width, self.classes = self.spec.filters[-1], self.spec.classes
    shape = len(self.spec.modalities), self.classes
    self.mean = np.zeros((*shape, self.width))
    self.updates = np.zeros(shape, int)
    self.steps = _gradient(self.spec, self.align)
    self.gradient = self.with_slots

  def with_slots(self, params, frozen, x, present, y, weight):
    del frozen
    y = np.asarray(y)
    slots = self.mean[:, y] * self.shown(present)[:, None, None]
    pull = (self.updates[:, y] > 0).astype(float)
    return self.steps(
      params, x, present, slots, self.trusted(), pull, y, weight
    )

  def shown(self, present):
    """Modalities whose slots are used, [M]."""
    del present
    return np.ones(len(self.mean))

  def trusted(self):
    return np.ones(len(self.mean))

  def access(self, n):
    known = [
      f'fusion/{name}'
      for m, name in enumerate(self.spec.modalities)
      if self.updates[m].any()
    ]
    return super().access(n) | set(known)

  def windows(self, n):
    """(features [M][d], class) of every window, by the model received."""
    rows = self.rows[n][: self.fleet.samples[n]]
    params = {k: jnp.asarray(v, jnp.float32) for k, v in self.params.items()}
    found = _features(self.spec)(
      params, {m: self.bank.x[m][rows] for m in self.spec.modalities}
    )
    y = np.asarray(self.bank.y[rows])
    for i in range(len(rows)):
      yield [np.asarray(h[i], np.float64) for h in found], y[i]

  def tells(self, n):
    return self.fleet.samples[n] > 0  # nothing fails here

  def worth(self, n, m):
    """Weight of client n's windows in the prototypes of modality m."""
    return float(self.tells(n) and self.fleet.owned[n, m])

  def built(self, before):
    """Prototypes after a round that began with parameters `before`."""
    after, self.params = self.params, before
    total = np.zeros_like(self.mean)
    weight = np.zeros(self.updates.shape)
    for n in range(self.clients):
      if not self.tells(n):
        continue
      for features, c in self.windows(n):
        for m, h in enumerate(features):
          if self.fleet.owned[n, m]:
            total[m, c] += self.worth(n, m) * h
            weight[m, c] += self.worth(n, m)
    for m, c in zip(*np.nonzero(weight), strict=True):
      so_far = self.updates[m, c]
      fresh = total[m, c] / weight[m, c]
      self.mean[m, c] = (so_far * self.mean[m, c] + fresh) / (so_far + 1)
    self.updates += weight > 0
    self.params = after

  def told(self, n):
    return 4.0 * self.mean[0].size * self.fleet.owned[n].sum()

  def spent(self, n, trained):
    if not trained:
      return 0.0
    forward = np.asarray(self.task.work.fwd) @ self.fleet.owned[n]
    drawn = self.setting.steps * self.setting.batch
    more = forward * self.fleet.samples[n] / drawn if self.tells(n) else 0.0
    return self.flops(n, trained) + more

  def round(self, number, batches=None):
    before = self.params
    found = super().round(number, batches)
    self.built(before)
    return found


class QualityTwin(PrototypeTwin):
  """QQR-style: confidence weighs updates and prototypes, features align."""

  align = 0.05

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.steps = _gradient(self.spec, setting.options.align)
    self.dispersion = np.full(self.fleet.owned.shape, np.nan)
    self.number = 0

  def shown(self, present):
    return np.asarray(present)  # to align with, never to stand in

  def access(self, n):
    return twin.Twin.access(self, n)

  def conf(self, n, m):
    if not self.fleet.owned[n, m]:
      return 0.0
    own = self.dispersion[n, m]
    if self.number < self.setting.options.start or np.isnan(own):
      return 1.0
    middle = np.nanmedian(self.dispersion[:, m])
    beta = self.setting.options.beta
    return float(np.exp(-beta * max(own / middle - 1, 0)))

  def worth(self, n, m):
    return self.conf(n, m)

  def local(self, n, batches, trained):
    self.who = n
    return super().local(n, batches, trained)

  def trusted(self):
    return np.array([self.conf(self.who, m) for m in range(len(self.mean))])

  def vote(self, n, g):
    if g == 'shared':
      return self.weight(n)
    m = self.spec.modalities.index(g.split('/')[1])
    return self.weight(n) * self.conf(n, m)

  def plan(self, number):
    self.number = number
    trained, _ = super().plan(number)
    return trained, trained

  def told(self, n):
    own = self.fleet.owned[n].sum()
    return 4.0 * self.mean[0].size * own + 4.0 * own

  def built(self, before):
    after, self.params = self.params, before
    far = np.zeros(self.dispersion.shape)
    seen = np.zeros(self.dispersion.shape)
    for n in range(self.clients):
      for features, c in self.windows(n) if self.tells(n) else ():
        for m, h in enumerate(features):
          if self.fleet.owned[n, m] and self.updates[m, c]:
            far[n, m] += np.square(h - self.mean[m, c]).mean()
            seen[n, m] += 1
    self.params = after
    super().built(before)
    fresh = far / np.maximum(seen, 1)
    ema = self.hparams['ema']
    mixed = np.where(
      np.isnan(self.dispersion),
      fresh,
      (1 - ema) * self.dispersion + ema * fresh,
    )
    self.dispersion = np.where(seen > 0, mixed, self.dispersion)
