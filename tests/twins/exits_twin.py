"""The slow twin of a model with early exits; devices hold its front."""

import functools

import jax
import numpy as np

from tests.twins.twin import Twin, group_of


def exit_logits(spec, params, x, present, depth):
  """Logits of every exit up to a depth, a list of [B, C]."""
  last = len(spec.filters)
  pooled = {}
  for m, name in enumerate(spec.modalities):
    h, pooled[name] = x[name], []
    for i in range(depth):
      w = params[f'encoder/{name}/{i}/w']
      w = w.T.reshape(spec.kernel, h.shape[-1], spec.filters[i])
      h = jax.lax.conv_general_dilated(
        h, w, (spec.stride,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC')
      )
      h = jax.nn.relu(h + params[f'encoder/{name}/{i}/b'][None, None])
      pooled[name].append(present[m] * h.mean(1))
  found = []
  for e in range(depth):
    own = '' if e + 1 == last else f'exit/{e}/'
    z = params[f'{own}bias'][None]
    for name in spec.modalities:
      z = z + pooled[name][e] @ params[f'{own}fusion/{name}']
    scores = jax.nn.relu(z) @ params[f'{own}head/w']
    found.append(scores + params[f'{own}head/b'][None])
  return found


def loss(every, scores, y, weight, strength):
  """The sum over exits and over ordered pairs of them, by loops."""

  def mean(values):
    return (values * weight).sum() / weight.sum()

  logs = [jax.nn.log_softmax(s) for s in (scores if every else scores[-1:])]
  total = sum(mean(-own[np.arange(len(y)), y]) for own in logs)
  for i in range(len(logs)):
    for j in range(len(logs)):
      if i != j:
        teacher = jax.lax.stop_gradient(logs[j])
        gap = (jax.numpy.exp(teacher) * (teacher - logs[i])).sum(1)
        total += strength / (len(logs) - 1) * mean(gap)
  return total


@functools.cache
def _gradient(spec, depth, every):
  def objective(params, strength, x, present, y, weight):
    scores = exit_logits(spec, params, x, present, depth)
    return loss(every, scores, y, weight, strength)

  return jax.jit(jax.value_and_grad(objective))


class ExitTwin(Twin):
  """DepthFL."""

  @staticmethod
  def group(k):
    part, *rest = k.split('/')
    if part == 'encoder':
      return f'encoder{rest[1]}/{rest[0]}'
    if part == 'exit':
      own = f'exit{rest[0]}'
      return f'{own}/{rest[2]}' if rest[1] == 'fusion' else own
    return group_of(k)

  @property
  def every(self):
    return self.setting.options.exits == 'all'

  def exits(self, depth):
    """Depths of the exits that a device of this depth holds."""
    return range(1, depth + 1) if self.every else (depth,)

  def holds(self, n, depth) -> set[str]:
    """Groups of client n with so many layers."""
    names = [
      name for m, name in enumerate(self.spec.modalities) if self.senses(n, m)
    ]
    found = {f'encoder{i}/{m}' for i in range(depth) for m in names}
    for d in self.exits(depth):
      last = d == len(self.spec.filters)
      own, tail = ('fusion', 'shared') if last else (f'exit{d - 1}',) * 2
      found |= {tail, *(f'{own}/{m}' for m in names)}
    return found

  def plan(self, number):
    fade = self.setting.options.fade * self.hparams['rounds']
    self.strength = np.exp(-5 * (1 - min(number, fade) / fade) ** 2)
    self.depth, trained = [], []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      fits = [
        d
        for d in range(1, len(self.spec.filters) + 1)
        if self.fleet.samples[n] and self.priced(n, d) <= budget * (1 + 1e-5)
      ]
      self.depth.append(max(fits, default=0))
      trained.append(self.holds(n, self.depth[n]) if fits else set())
    return trained, trained

  def priced(self, n, depth) -> float:
    """FLOPs of client n that trains so many layers and their exits."""
    spec, exits = self.spec, self.exits(depth)
    hidden, classes = spec.hidden, spec.classes
    head = 6 * hidden * classes + 3 * hidden + 5 * classes
    total = head * len(exits)
    for m, channels in enumerate(spec.channels):
      if not self.senses(n, m):
        continue
      length, below = spec.width, channels
      for i, count in enumerate(spec.filters[:depth]):
        after = (length - spec.kernel) // spec.stride + 1
        products = 2 * after * spec.kernel * below * count
        total += 2 * products + 6 * after * count  # bias and ReLU, both ways
        if i:  # the input's gradient and the sum of its taps
          more = -(-spec.kernel // spec.stride) - 1
          total += products + more * (after + more) * spec.stride * below
        if i + 1 in exits:
          total += after * count  # mean over time
          total += 6 * count * hidden + hidden
          if i + 1 < depth:
            total += after * count  # two gradients added
        length, below = after, count
    return total

  def spent(self, n, trained):
    return self.priced(n, self.depth[n]) if trained else 0.0

  def local(self, n, batches, trained):
    own = _gradient(self.spec, self.depth[n], self.every)
    distill = self.setting.options.distill

    def gradient(params, frozen, *rest):
      del frozen
      return own(params, self.strength * distill, *rest)

    self.gradient = gradient
    return super().local(n, batches, trained)
