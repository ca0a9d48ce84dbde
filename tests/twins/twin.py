"""A slow and obvious twin of the round: loops over clients, steps and groups.

It shares the drawing of random numbers (keys) and the FLOP tables with the
simulator and nothing else. Models are written out anew with `lax.conv` and
without gates; gradients of frozen groups are computed and thrown away; sums
are in float64 and updates are stacked.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.support import tiny


def named(params) -> dict[str, np.ndarray]:
  """{'encoder/acc/0/w': float64 array, ...}."""
  leaves, _ = jax.tree.flatten_with_path(params)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(
      leaf, np.float64
    )
    for path, leaf in leaves
  }


def group_of(name: str) -> str:
  """Name of the group (cut `split`) that a parameter belongs to."""
  part, *rest = name.split('/')
  if part == 'encoder':
    return f'encoder/{rest[0]}'
  if part in ('fusion', 'lora_a'):
    return f'fusion/{rest[0]}'
  return 'shared'


def features(spec, every, x, present):
  """All encoders run; an absent modality's features are multiplied by 0.

  ReLU's slope at 0 is 0 here too; a channel that is dead from the start sits
  exactly on that kink.
  """
  for m, name in enumerate(spec.modalities):
    h = x[name]
    for i in range(len(spec.filters)):
      w = every[f'encoder/{name}/{i}/w']
      w = w.T.reshape(spec.kernel, h.shape[-1], spec.filters[i])
      h = jax.lax.conv_general_dilated(
        h, w, (spec.stride,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC')
      )
      h = jax.nn.relu(h + every[f'encoder/{name}/{i}/b'][None, None])
    yield name, present[m] * h.mean(1)


def logits(spec, params, frozen, x, present):
  """Class scores, [B, C]."""
  every = {**frozen, **params}
  z, low = every['bias'][None], 0.0
  for name, h in features(spec, every, x, present):
    z = z + h @ every[f'fusion/{name}']
    if f'lora_a/{name}' in every:
      low = low + h @ every[f'lora_a/{name}']
  if 'lora_b' in every:
    z = z + spec.lora_alpha / spec.rank * (low @ every['lora_b'])
  return jax.nn.relu(z) @ every['head/w'] + every['head/b'][None]


@functools.cache
def gradient(spec, of=0):
  """Loss and gradient, compiled: of the parameters, or 1: of the base."""

  def loss(params, frozen, x, present, y, weight):
    scores = logits(spec, params, frozen, x, present)
    own = jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y]
    return (own * weight).sum() / weight.sum()

  return jax.jit(jax.value_and_grad(loss, of))


class Observed(NamedTuple):
  """A round as the twin saw it.

  Attributes:
    params: {name: array} after the round.
    updates: [N] of {name: array}, zeros where not trained.
    trained: [N] sets of group names.
    upload: [N] bytes.
    divergence: {group: d_g} of this round where two or more trained it.
    loss: [N].
  """

  params: dict
  updates: list
  trained: list
  upload: list
  divergence: dict
  loss: list


class Twin:
  """Federated averaging by loops.

  Args:
    task: made by `tiny.task`, with the cut `split` unless `group` says more.
    population: of clients.
    setting: of the round.
    seed: as given to `tiny.run`.
  """

  group = staticmethod(group_of)

  def __init__(self, task, population, setting, seed=0):
    self.task, self.setting, self.seed = task, setting, seed
    self.spec = tiny.spec_of(task)
    self.params = named(tiny.init(task, seed))
    self.bank = population.bank
    self.frozen = {
      k: jnp.asarray(v, jnp.float32)
      for k, v in named(population.frozen).items()
    }
    fleet = jax.tree.map(np.asarray, population.fleet)
    self.fleet, self.rows = fleet, np.asarray(population.rows)
    self.clients = len(fleet.id)
    self.hparams = {k: float(v) for k, v in setting.hparams.items()}
    self.momentum = [None] * self.clients  # kept between rounds as an option

    self.gradient = gradient(self.spec)
    self.dilute = getattr(setting.options, 'denominator', None) == 'all'

  def access(self, n) -> set[str]:
    """Groups of client n's own modalities, and the shared one."""
    own = np.flatnonzero(self.fleet.owned[n])
    names = [self.spec.modalities[m] for m in own]
    return {
      g
      for g in self.task.blocks.name
      if g == 'shared' or g.split('/')[1] in names
    }

  def senses(self, n, m) -> bool:
    """Client n runs the encoder of modality m, if on a filled window."""
    return bool(self.fleet.owned[n, m]) or self.setting.fill == 'input'

  def reach(self, n) -> set[str]:
    """Groups that client n could train."""
    filled = self.setting.fill == 'input'
    return set(self.task.blocks.name) if filled else self.access(n)

  def draw(self, number, n) -> list[np.ndarray]:
    """Rows of client n's local steps in a round."""
    key = tiny.round_key(self.seed, number)
    _, _, step_key, _ = jax.random.split(key, 4)
    row_key, _ = jax.random.split(step_key)
    key = jax.random.fold_in(row_key, self.fleet.id[n])
    shape = self.setting.steps, self.setting.batch
    at = jax.random.randint(key, shape, 0, int(self.fleet.samples[n]))
    return [self.rows[n][np.asarray(a)] for a in at]

  def local(self, n, batches, trained):
    """Client n's update by SGD with momentum, and its mean loss."""
    theta = {k: v.copy() for k, v in self.params.items()}
    velocity = {k: np.zeros_like(v) for k, v in theta.items()}
    if self.setting.keep_client_state and self.momentum[n]:
      velocity = self.momentum[n]
    losses = []
    for rows in batches:
      value, grads = self.slopes(n, rows, self.seen(n, theta))
      gap = {k: theta[k] - self.params[k] for k in theta}
      pull = self.prox() / 2 * sum(np.square(v).sum() for v in gap.values())
      losses.append(float(value) + pull)
      for k in theta:
        if self.group(k) in trained:
          gradient = np.asarray(grads[k], np.float64)
          gradient = self.backward(n, k, theta[k], gradient)
          gradient = gradient + self.prox() * gap[k]
          velocity[k] = self.hparams['client_momentum'] * velocity[k] + gradient
          change = -self.hparams['client_lr'] * velocity[k]
          theta[k] = theta[k] + change
          self.watch(n, k, gradient, change)
    self.momentum[n] = velocity
    for k in theta:
      if self.group(k) in trained:
        theta[k] = self.finish(k, theta[k])
    delta = {k: theta[k] - self.params[k] for k in theta}
    return delta, float(np.mean(losses))

  def slopes(self, n, rows, theta):
    """Loss of client n on a batch, and its gradient."""
    owned = self.fleet.owned[n]
    x = {}
    for m, name in enumerate(self.spec.modalities):
      x[name] = self.bank.x[name][rows]
      if self.setting.fill == 'input' and not owned[m]:
        x[name] = jnp.broadcast_to(self.bank.fill[name], x[name].shape)
    present = owned | (self.setting.fill == 'input')
    # One shape, one program: a short batch is filled up with weight 0.
    short = self.setting.batch - len(rows)
    x = {k: jnp.pad(v, ((0, short), (0, 0), (0, 0))) for k, v in x.items()}
    return self.gradient(
      {k: jnp.asarray(v, jnp.float32) for k, v in theta.items()},
      self.frozen,
      x,
      jnp.asarray(present, jnp.float32),
      jnp.pad(self.bank.y[rows], (0, short)),
      jnp.pad(jnp.ones(len(rows)), (0, short)),
    )

  def watch(self, n, k, gradient, change) -> None:
    """Parameter k of client n changes in a local step."""

  def seen(self, n, theta) -> dict:
    """The parameters that client n computes with."""
    del n
    return theta

  def slope(self, n, k, value):
    """How they change with the value of parameter k of the model."""
    del n, k, value
    return 1.0

  def backward(self, n, k, value, gradient):
    """From the gradient of what is seen to that of parameter k."""
    return gradient * self.slope(n, k, value)

  def finish(self, k, value):
    """What a device sends of parameter k."""
    del k
    return value

  def settle(self, k, value):
    """What the server makes of parameter k where somebody trained it."""
    del k
    return value

  def held(self, n, k):
    """Elements of parameter k that client n holds."""
    del n
    return np.ones(self.params[k].shape)

  def sent(self, n, k) -> float:
    """Numbers of parameter k that client n sends."""
    return self.held(n, k).sum()

  def told(self, n) -> float:
    """Bytes that client n sends beside what it trains."""
    del n
    return 0.0

  def uploaded(self, n, trained) -> float:
    """Bytes that client n sends in a round."""
    if not trained:
      return 0.0
    sent = (self.sent(n, k) for k in self.params if self.group(k) in trained)
    return 4.0 * sum(sent) + self.told(n)

  def prox(self) -> float:
    """Strength of the pull to the received weights."""
    return 0.0

  def flops(self, n, chosen) -> float:
    """F_n(S) term by term."""
    work = jax.tree.map(lambda v: np.asarray(v, np.float64), self.task.work)
    total = float(work.shared)
    for m in range(len(self.spec.modalities)):
      if self.senses(n, m):
        total += work.fwd[m]
    for g, name in enumerate(self.task.blocks.name):
      if name in chosen:
        total += work.wgrad[g]
    for q in range(len(work.agrad)):
      if any(
        work.path[q, g] and name in chosen
        for g, name in enumerate(self.task.blocks.name)
      ):
        total += work.agrad[q]
    return total

  def spent(self, n, trained) -> float:
    """FLOPs per sample that client n is charged."""
    return self.flops(n, trained) if trained else 0.0

  def plan(self, number) -> tuple[list, list]:
    """Groups that each client trains, and those in whose mean it counts."""
    trained, counted = [], []
    for n in range(self.clients):
      everything = set(self.task.blocks.name)
      active = self.fleet.samples[n] > 0
      trained.append(self.reach(n) if active else set())
      counted.append(everything if active else set())
    return trained, counted

  def weight(self, n) -> float:
    """Of client n in a mean."""
    return float(self.fleet.samples[n]) if self.by_samples else 1.0

  def vote(self, n, g) -> float:
    """Of client n in the mean of group g."""
    del g
    return self.weight(n)

  @property
  def by_samples(self) -> bool:
    return self.setting.weight == 'samples'

  def round(self, number, batches=None) -> Observed:
    """One round; `batches` replaces the drawn rows, [N] lists."""
    trained, counted = self.plan(number)
    updates, losses, upload = [], [], []
    for n in range(self.clients):
      if trained[n]:
        rows = self.draw(number, n) if batches is None else batches[n]
        delta, loss = self.local(n, rows, trained[n])
      else:
        delta = {k: np.zeros_like(v) for k, v in self.params.items()}
        loss = 0.0
      updates.append(delta)
      losses.append(loss)
      upload.append(self.uploaded(n, trained[n]))
    before = self.params
    holds = [{k: self.held(n, k) for k in before} for n in range(self.clients)]
    self.params = {}
    for k, old in before.items():
      g = self.group(k)
      total, weight = np.zeros_like(old), np.zeros_like(old)
      for n in range(self.clients):
        if g in counted[n]:
          vote = self.vote(n, g)
          total += vote * updates[n][k]
          weight += vote * (1.0 if self.dilute else holds[n][k])
      mean = np.divide(total, weight, where=weight > 0, out=0 * old)
      self.params[k] = old + mean
      if any(g in chosen for chosen in trained):
        self.params[k] = self.settle(k, self.params[k])
    divergence = {}
    for g in self.task.blocks.name:
      those = [n for n in range(self.clients) if g in trained[n]]
      if len(those) >= 2:
        stack = np.stack(
          [
            np.concatenate(
              [u.ravel() for k, u in updates[n].items() if self.group(k) == g]
            )
            for n in those
          ]
        )
        w = np.array([self.vote(n, g) for n in those])
        mean = (w[:, None] * stack).sum(0) / w.sum()
        sq = np.square(stack - mean).sum(1)
        divergence[g] = (w * sq).sum() / w.sum() / stack.shape[1]
    self.observe(number, divergence, trained)
    return Observed(self.params, updates, trained, upload, divergence, losses)

  def observe(self, number, divergence, trained) -> None:
    """What the server remembers."""


class CohortTwin(Twin):
  """Counts only the owners."""

  def plan(self, number):
    trained, counted = super().plan(number)
    return trained, [c & self.access(n) for n, c in enumerate(counted)]


class ProxTwin(Twin):
  """With a pull to the received weights."""

  def prox(self):
    return self.hparams['prox']


class ReliefTwin(Twin):
  """Divergence first within a budget; the mean is over those who trained."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.divergence = dict.fromkeys(task.blocks.name, np.inf)
    self.last = [
      dict.fromkeys(task.blocks.name, -1) for _ in range(self.clients)
    ]

  def plan(self, number):
    trained = []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      chosen = {'shared'}
      if not self.fleet.samples[n] or self.flops(n, chosen) > budget:
        trained.append(set())
        continue
      names = self.task.blocks.name
      ranked = sorted(
        self.access(n) - chosen,
        key=lambda g, n=n: (
          -self.divergence[g],
          self.last[n][g],
          names.index(g),
        ),
      )
      for g in ranked:
        if self.flops(n, chosen | {g}) <= budget:
          chosen = chosen | {g}
      trained.append(chosen)
    return trained, trained

  def observe(self, number, divergence, trained):
    for g, new in divergence.items():
      old = self.divergence[g]
      ema = self.hparams['ema']
      self.divergence[g] = new if np.isinf(old) else (1 - ema) * old + ema * new
    for n, groups in enumerate(trained):
      for g in groups:
        self.last[n][g] = number


class DepthTwin(Twin):
  """As many levels from the output as the budget allows."""

  def plan(self, number):
    trained = []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      chosen = set()
      for level in ('shared', 'fusion', 'encoder'):
        more = chosen | {g for g in self.access(n) if g.startswith(level)}
        if self.fleet.samples[n] and self.flops(n, more) <= budget:
          chosen = more
      trained.append(chosen)
    return trained, trained


class WidthTwin(Twin):
  """Sub-models of kept units; what is kept comes from `keep`."""

  layers = ('encoder/acc/0', 'encoder/acc/1', 'encoder/gyro/0')
  layers += ('encoder/gyro/1', 'fusion', 'head')

  def plan(self, number):
    self.number = number
    self.kept = [self.keep(n) for n in range(self.clients)]
    every = [self.reach(n) if k else set() for n, k in enumerate(self.kept)]
    return every, every

  def budget(self, n) -> float:
    """FLOPs per sample."""
    return float(self.fleet.budget[n]) * self.hparams['deadline']

  def priced(self, n, units) -> float:
    """FLOPs of training all of client n's model of so many units per layer."""
    spec = self.spec
    *filters, hidden, classes = units
    total = 4 * hidden * classes + 2 * hidden + 5 * classes  # head, twice
    total += 2 * hidden * classes + hidden
    for m, channels in enumerate(spec.channels):
      if not self.senses(n, m):
        continue
      length, below = spec.width, channels
      own = filters[2 * m : 2 * m + 2]
      for i, count in enumerate(own):
        after = (length - spec.kernel) // spec.stride + 1
        products = 2 * after * spec.kernel * below * count
        total += 2 * products + 6 * after * count  # bias and ReLU, both ways
        if i:  # the input's gradient and the sum of its taps
          more = -(-spec.kernel // spec.stride) - 1
          total += products + more * (after + more) * spec.stride * below
        length, below = after, count
      total += length * below  # mean over time
      total += 3 * 2 * below * hidden + hidden
    return total

  def spent(self, n, trained):
    if not trained:
      return 0.0
    return self.priced(n, [k.sum() for k in self.kept[n]])

  def axes(self, n, k):
    """What client n keeps of the axes of a parameter, [rows], [columns]."""
    part, *rest = k.split('/')
    keep = dict(zip(self.layers, self.kept[n], strict=True))
    if part == 'bias' or k == 'head/b':
      return (keep['fusion' if part == 'bias' else 'head'],)
    if part == 'fusion':
      return keep[f'encoder/{rest[0]}/1'], keep['fusion']
    if part == 'head':
      return keep['fusion'], keep['head']
    own = keep[f'encoder/{rest[0]}/{rest[1]}']
    if rest[2] == 'b':
      return (own,)
    channels = self.spec.channels[self.spec.modalities.index(rest[0])]
    below = np.ones(channels) if rest[1] == '0' else keep[k[:-3] + '0']
    return own, np.concatenate([below] * self.spec.kernel)

  def held(self, n, k):
    axes = self.axes(n, k) if self.kept[n] else (np.zeros(1),)
    return np.ones(self.params[k].shape) * functools.reduce(
      np.multiply.outer, axes
    )

  def seen(self, n, theta):
    return {k: v * self.slope(n, k, v) for k, v in theta.items()}

  def slope(self, n, k, value):
    del value
    hidden = not k.startswith('head')
    return self.held(n, k) * (self.factor(n) if hidden else 1.0)

  def classes(self, n):
    """Among the windows of client n, [C]."""
    own = self.rows[n][: self.fleet.samples[n]]
    return np.isin(np.arange(self.spec.classes), np.asarray(self.bank.y)[own])


class SliceTwin(WidthTwin):
  """HeteroFL."""

  start = 0

  def keep(self, n):
    *hidden, classes = self.task.widths.sizes
    for share in (1.0, 0.5, 0.25, 0.125, 0.0625):
      counts = [int(np.ceil(share * size)) for size in hidden]
      if self.fleet.samples[n] and (
        self.priced(n, counts + [classes]) <= self.budget(n) * (1 + 1e-5)
      ):
        self.share = {**getattr(self, 'share', {}), n: share}
        keep = []
        for count, size in zip(counts, hidden, strict=True):
          mask = np.zeros(size)
          mask[[(self.start + i) % size for i in range(count)]] = 1
          keep.append(mask)
        off = self.setting.options.masked == 'off'
        return keep + [np.ones(classes) if off else self.classes(n) * 1.0]
    return None

  def whole_head(self, n) -> list:
    """Rows of absent classes are left out of the mean, but run and sent."""
    *hidden, head = self.kept[n]
    return hidden + [np.ones(len(head))]

  def spent(self, n, trained):
    if not trained:
      return 0.0
    return self.priced(n, [k.sum() for k in self.whole_head(n)])

  def sent(self, n, k):
    masked, self.kept[n] = self.kept[n], self.whole_head(n)
    total = self.held(n, k).sum()
    self.kept[n] = masked
    return total

  def factor(self, n):
    return 1 / self.share[n]


class RollTwin(SliceTwin):
  """FedRolex."""

  def plan(self, number):
    self.start = number
    return super().plan(number)


class DropTwin(WidthTwin):
  """FedDrop; the parabola is searched by halving, what fits one by one."""

  def keep(self, n):
    *hidden, classes = self.task.widths.sizes
    low, high = 0.0, 1.0
    for _ in range(60):
      middle = (low + high) / 2
      cost = self.priced(n, [middle * size for size in hidden] + [classes])
      low, high = (middle, high) if cost <= self.budget(n) else (low, middle)
    if not self.fleet.samples[n] or low < 1 / 16:
      return None
    self.share = {**getattr(self, 'share', {}), n: low}
    key = jax.random.split(tiny.round_key(self.seed, self.number), 4)[1]
    key = jax.random.fold_in(key, self.fleet.id[n])
    draws = [
      np.asarray(jax.random.uniform(jax.random.fold_in(key, layer), (size,)))
      for layer, size in enumerate(hidden)
    ]
    every = np.sort(np.concatenate(draws))
    for limit in (low, *every[every < low][::-1]):
      keep = [(draw < limit) * 1.0 for draw in draws] + [np.ones(classes)]
      cost = self.priced(n, [k.sum() for k in keep])
      if cost <= self.budget(n) * (1 + 1e-5):
        return keep
    return None

  def factor(self, n):
    return 1 / self.share[n]


class MagnitudeTwin(Twin):
  """FIARSE."""

  def plan(self, number):
    del number
    flat = np.concatenate([np.abs(v).ravel() for v in self.params.values()])
    order = np.argsort(-flat.astype(np.float32), kind='stable')
    self.share, self.tau, self.masks, trained = {}, {}, {}, []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      every = self.reach(n)
      fits = [
        s
        for s in (1.0, 1 / 4, 1 / 16, 1 / 64)
        if self.fleet.samples[n]
        and s * self.flops(n, every) <= budget * (1 + 1e-5)
      ]
      trained.append(every if fits else set())
      if fits:
        chosen = order[: int(np.ceil(fits[0] * flat.size))]
        mask = np.zeros(flat.size)
        mask[chosen] = 1
        self.share[n] = fits[0]
        self.tau[n] = 0.0 if fits[0] == 1 else flat[chosen[-1]]
        ends = np.cumsum([v.size for v in self.params.values()])
        self.masks[n] = {
          k: part.reshape(v.shape)
          for (k, v), part in zip(
            self.params.items(), np.split(mask, ends[:-1]), strict=True
          )
        }
    return trained, trained

  def spent(self, n, trained):
    return self.share[n] * self.flops(n, trained) if trained else 0.0

  def held(self, n, k):
    if n not in self.masks:
      return np.zeros(self.params[k].shape)
    return self.masks[n][k]

  def passes(self, n, k, value):
    return self.held(n, k) * (np.abs(value) >= self.tau[n] * (1 - 1e-7))

  def seen(self, n, theta):
    return {k: v * self.passes(n, k, v) for k, v in theta.items()}

  def slope(self, n, k, value):
    size, tau = np.abs(value), self.tau[n]
    more = 2 * size * tau / np.square(size + tau) if tau else 0.0
    return self.passes(n, k, value) * (1 + more)
