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

from tests import tiny


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


def logits(spec, params, frozen, x, present):
  """All encoders run; an absent modality's features are multiplied by 0.

  ReLU's slope at 0 is 0 here too; a channel that is dead from the start sits
  exactly on that kink.
  """
  every = {**frozen, **params}
  z, low = every['bias'][None], 0.0
  for m, name in enumerate(spec.modalities):
    h = x[name]
    for i in range(len(spec.filters)):
      w = every[f'encoder/{name}/{i}/w']
      w = w.T.reshape(spec.kernel, h.shape[-1], spec.filters[i])
      h = jax.lax.conv_general_dilated(
        h, w, (spec.stride,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC')
      )
      h = jax.nn.relu(h + every[f'encoder/{name}/{i}/b'][None, None])
    h = present[m] * h.mean(1)
    z = z + h @ every[f'fusion/{name}']
    if f'lora_a/{name}' in every:
      low = low + h @ every[f'lora_a/{name}']
  if 'lora_b' in every:
    z = z + spec.lora_alpha / spec.rank * (low @ every['lora_b'])
  return jax.nn.relu(z) @ every['head/w'] + every['head/b'][None]


@functools.cache
def _gradient(spec):
  def loss(params, frozen, x, present, y, weight):
    scores = logits(spec, params, frozen, x, present)
    own = jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y]
    return (own * weight).sum() / weight.sum()

  return jax.jit(jax.value_and_grad(loss), compiler_options=tiny.QUICK)


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
    task: made by `tiny.task`, with the cut `split`.
    population: of clients.
    setting: of the round.
    seed: as given to `tiny.run`.
  """

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

    self.gradient = _gradient(self.spec)

  def access(self, n) -> set[str]:
    """Groups of client n's own modalities, and the shared one."""
    own = np.flatnonzero(self.fleet.owned[n])
    names = [self.spec.modalities[m] for m in own]
    return {
      g
      for g in self.task.group_names
      if g == 'shared' or g.split('/')[1] in names
    }

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
      value, grads = self.gradient(
        {k: jnp.asarray(v, jnp.float32) for k, v in theta.items()},
        self.frozen,
        x,
        jnp.asarray(present, jnp.float32),
        jnp.pad(self.bank.y[rows], (0, short)),
        jnp.pad(jnp.ones(len(rows)), (0, short)),
      )
      gap = {k: theta[k] - self.params[k] for k in theta}
      pull = self.prox() / 2 * sum(np.square(v).sum() for v in gap.values())
      losses.append(float(value) + pull)
      for k in theta:
        if group_of(k) in trained:
          gradient = np.asarray(grads[k], np.float64)
          gradient = gradient + self.prox() * gap[k]
          velocity[k] = self.hparams['client_momentum'] * velocity[k] + gradient
          theta[k] = theta[k] - self.hparams['client_lr'] * velocity[k]
    self.momentum[n] = velocity
    delta = {k: theta[k] - self.params[k] for k in theta}
    return delta, float(np.mean(losses))

  def prox(self) -> float:
    """Strength of the pull to the received weights."""
    return 0.0

  def flops(self, n, chosen) -> float:
    """F_n(S) term by term."""
    work = jax.tree.map(lambda v: np.asarray(v, np.float64), self.task.work)
    total = float(work.shared)
    for m in range(len(self.spec.modalities)):
      if self.fleet.owned[n, m] or self.setting.fill == 'input':
        total += work.fwd[m]
    for g, name in enumerate(self.task.group_names):
      if name in chosen:
        total += work.wgrad[g]
    for q in range(len(work.agrad)):
      if any(
        work.path[q, g] and name in chosen
        for g, name in enumerate(self.task.group_names)
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
      everything = set(self.task.group_names)
      active = self.fleet.samples[n] > 0
      reach = everything if self.setting.fill == 'input' else self.access(n)
      trained.append(reach if active else set())
      counted.append(everything if active else set())
    return trained, counted

  def weight(self, n) -> float:
    """Of client n in a mean."""
    return float(self.fleet.samples[n]) if self.by_samples else 1.0

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
      upload.append(
        4.0
        * sum(
          v.size for k, v in self.params.items() if group_of(k) in trained[n]
        )
      )
    before = self.params
    self.params = {}
    for k, old in before.items():
      g = group_of(k)
      total, weight = np.zeros_like(old), 0.0
      for n in range(self.clients):
        if g in counted[n]:
          total += self.weight(n) * updates[n][k]
          weight += self.weight(n)
      self.params[k] = old + total / weight if weight else old
    divergence = {}
    for g in self.task.group_names:
      those = [n for n in range(self.clients) if g in trained[n]]
      if len(those) >= 2:
        stack = np.stack(
          [
            np.concatenate(
              [u.ravel() for k, u in updates[n].items() if group_of(k) == g]
            )
            for n in those
          ]
        )
        w = np.array([self.weight(n) for n in those])
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
    self.divergence = dict.fromkeys(task.group_names, np.inf)
    self.last = [
      dict.fromkeys(task.group_names, -1) for _ in range(self.clients)
    ]

  def plan(self, number):
    trained = []
    for n in range(self.clients):
      budget = float(self.fleet.budget[n]) * self.hparams['deadline']
      chosen = {'shared'}
      if not self.fleet.samples[n] or self.flops(n, chosen) > budget:
        trained.append(set())
        continue
      names = self.task.group_names
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
