"""Counts the transformer's FLOPs by hand, its passes by what trains.

A block of width d costs 24 d^2 T + 4 d T^2 forward for T tokens, as much again
for its weight gradients' products, and once more (8 d T^2) to pass the gradient
through; what works number by number is counted as in models/jaxprs.py. Tokens
of sensors that are not there cost nothing: see `task.TokenWork`.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from relief_jax.models import experts
from relief_jax.models.experts import Layer
from relief_jax.models.work_builder import WorkBuilder, paths
from relief_jax.task import TokenWork, Work
from relief_jax.types import Array

# FLOPs a number: forward, and of the gradient of what comes in.
_NORM = 7, 8
GELU = 9, 11
_SOFTMAX = 7, 5  # with the scores' scale and bias

ATTENTION = ('q', 'k', 'v', 'o')
# Linear layers of a block: of an input and an output of so many d.
LINEAR = {
  'q': (1, 1),
  'k': (1, 1),
  'v': (1, 1),
  'o': (1, 1),
  'up': (1, 4),
  'down': (4, 1),
}


class Trained(NamedTuple):
  """Says whose gradients a layer of the model makes.

  Attributes:
    linear: {linear layer: its group}; what is frozen is not there.
    ranks: {linear layer: rank of its adapter}; {}: the layers themselves.
    norms: groups of the norms before attention and MLP; () where frozen.
    mixture: in place of an MLP, or None.
  """

  linear: Mapping[str, int]
  ranks: Mapping[str, int]
  norms: tuple[int, ...] = ()
  mixture: Layer | None = None

  def of(self, *names: str) -> set[int]:
    """Groups of some linear layers that train."""
    return {self.linear[name] for name in names if name in self.linear}

  @property
  def groups(self) -> tuple[int, ...]:
    """Groups of all of it."""
    own = self.mixture
    more = () if own is None else (own.gate, *own.expert)
    return *self.linear.values(), *self.norms, *more


class Builder:
  """Collects FLOPs per sample as powers of the number of tokens T."""

  def __init__(self, num_modalities: int, num_groups: int):
    self.fwd = np.zeros(num_modalities)
    self.shared = np.zeros(3)  # per sample, per token, per pair of tokens
    self.wgrad = np.zeros((3, num_groups))
    self._agrad: dict[frozenset[int], np.ndarray] = {}

  def through(self, groups: Collection[int], power: int, flops: float) -> None:
    """Adds a gradient pass that the training of `groups` needs."""
    if groups:
      row = self._agrad.setdefault(frozenset(groups), np.zeros(3))
      row[power] += flops

  def per_token(self, more: WorkBuilder) -> None:
    """Adds what every token costs."""
    self.shared[1] += more.shared
    self.wgrad[1] += more.wgrad
    for groups, flops in more.passes.items():
      self.through(groups, 1, flops)

  def build(self, tokens: np.ndarray, size: Array) -> Work:
    """Builds the record; `tokens` are [M], T of each modality."""
    total = tokens.sum()
    scale = np.array([total, total**2], float)
    agrad = np.array(list(self._agrad.values())).reshape(-1, 3).T

    def exact(values):
      return jnp.asarray(values, jnp.float32)

    return Work(
      shared=exact(self.shared[0]),
      fwd=exact(self.fwd),
      wgrad=exact(self.wgrad[0]),
      agrad=exact(agrad[0]),
      path=paths(self._agrad, self.wgrad.shape[1]),
      size=size,
      tokens=TokenWork(
        share=exact(tokens / total),
        shared=exact(self.shared[1:] * scale),
        wgrad=exact(self.wgrad[1:] * scale[:, None]),
        agrad=exact(agrad[1:] * scale[:, None]),
      ),
    )


def embedding(
  work: Builder,
  m: int,
  tokens: int,
  fan_in: int,
  d: int,
  own: int | None,
  low: tuple[int, int, int] | None,
) -> None:
  """Adds the embedding of one modality's patches, or of its symbols.

  Args:
    work: is added to.
    m: number of the modality.
    tokens: T_m.
    fan_in: numbers of a patch; 0: symbols, whose rows are looked up.
    d: width.
    own: its group; None: frozen.
    low: groups of `a` and `b` of its adapter, and r; or None.
  """
  work.fwd[m] += tokens * (2 * fan_in * d + d)
  if own is not None:
    work.wgrad[0, own] += tokens * (2 * fan_in * d + d + d * (fan_in == 0))
  if low:
    a, b, rank = low
    work.fwd[m] += tokens * (2 * fan_in * rank + 2 * rank * d + 2 * d)
    work.wgrad[0, a] += tokens * (2 * fan_in * rank or rank)
    # Grows with all tokens that are there; every modality adds its part.
    work.wgrad[1, b] += 2 * rank * d / len(work.fwd)
    work.through({a}, 0, tokens * 2 * rank * d)
    work.through({a, b}, 0, tokens * d)


def block(
  work: Builder,
  d: int,
  heads: int,
  own: Trained,
  below: Collection[int],
  load: tuple[float, float] | None = None,
) -> None:
  """Adds one block.

  Args:
    work: is added to.
    d: width.
    heads: H.
    own: what of it trains.
    below: groups of all that comes before it.
    load: of its mixture, as `experts.add_work`; None: all experts are there.
  """
  before = set(below)
  if own.mixture is None:
    _mlp(work, d, own, before)
  else:
    _mixture(work, d, own, before, load or own.mixture.mixture.load)
  _attention(work, d, heads, own, before)


def _low(work: Builder, d: int, own: Trained, names, needed: set[int]) -> None:
  """Adds what the gradient through the adapters of some layers costs."""
  for name in names:
    r = own.ranks.get(name, 0)
    if r:
      i, o = (wide * d for wide in LINEAR[name])
      work.through({own.linear[name]} | needed, 1, 2 * r * o + o)
      work.through(needed, 1, 2 * r * i + i)


def _weights(work: Builder, d: int, own: Trained, names) -> None:
  """Adds weight gradients of some linear layers, and their adapters."""
  for name in names:
    if name not in own.linear:
      continue
    i, o = (wide * d for wide in LINEAR[name])
    g, r = own.linear[name], own.ranks.get(name, 0)
    if r:
      work.shared[1] += 2 * r * (i + o) + 2 * o
      work.wgrad[1, g] += 2 * r * (i + o)
    else:
      work.wgrad[1, g] += 2 * i * o + o


def _attention(
  work: Builder, d: int, heads: int, own: Trained, before: set[int]
) -> None:
  """Adds the first half of a block."""
  work.shared[1] += 8 * d * d + (_NORM[0] + 5) * d
  work.shared[2] += 4 * d + _SOFTMAX[0] * heads
  _weights(work, d, own, ATTENTION)
  for g in own.norms:
    work.wgrad[1, g] += 3 * d
  first = set(own.norms[:1])
  attended = own.of('q', 'k', 'v') | first | before
  _low(work, d, own, ['o'], attended)
  work.through(attended, 1, 2 * d * d)
  work.through(attended, 2, 8 * d + _SOFTMAX[1] * heads)
  _low(work, d, own, ['q', 'k', 'v'], first | before)
  work.through(first | before, 1, 6 * d * d + 2 * d)
  work.through(before, 1, (_NORM[1] + 1) * d)


def _mlp(work: Builder, d: int, own: Trained, before: set[int]) -> None:
  """Adds the second half of a block without experts."""
  work.shared[1] += 16 * d * d + (_NORM[0] + 6 + 4 * GELU[0]) * d
  _weights(work, d, own, ['up', 'down'])
  halfway = own.of(*ATTENTION) | set(own.norms[:1]) | before
  second = set(own.norms[1:])
  expanded = own.of('up') | second | halfway
  _low(work, d, own, ['down'], expanded)
  work.through(expanded, 1, 8 * d * d + GELU[1] * 4 * d)
  _low(work, d, own, ['up'], second | halfway)
  work.through(second | halfway, 1, 8 * d * d)
  work.through(halfway, 1, (_NORM[1] + 1) * d)


def _mixture(
  work: Builder,
  d: int,
  own: Trained,
  before: set[int],
  load: tuple[float, float],
) -> None:
  """Adds the second half of a block with experts."""
  assert own.mixture is not None
  work.shared[1] += (_NORM[0] + 1) * d  # the sum with what comes by it
  halfway = own.of(*ATTENTION) | set(own.norms) | before
  more = WorkBuilder(0, work.wgrad.shape[1])
  experts.add_work(own.mixture, more, halfway, *load)
  work.per_token(more)
  work.through(halfway, 1, (_NORM[1] + 1) * d)


def head(
  work: Builder,
  d: int,
  classes: int,
  own: int,
  below: Collection[int],
  every_token: bool,
) -> None:
  """Adds the last norm and the layer behind it, of a mean or of every token."""
  power = int(every_token)
  if not every_token:
    work.shared[1] += 2 * d  # the mean
    work.shared[0] += d
    work.through(below, 1, d)
  work.shared[power] += 2 * d * classes + 6 * classes + _NORM[0] * d
  work.wgrad[power, own] += 2 * d * classes + classes + 3 * d
  everything = {own} | set(below)
  work.through(everything, power, 2 * d * classes + 3 * classes)
  work.through(below, power, _NORM[1] * d)
