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

from relief_jax.models.encoders import paths
from relief_jax.task import TokenWork, Work
from relief_jax.types import Array

# FLOPs a number: forward, and of the gradient of what comes in.
_NORM = 7, 8
_GELU = 9, 11
_SOFTMAX = 7, 5  # with the scores' scale and bias

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
  """

  linear: Mapping[str, int]
  ranks: Mapping[str, int]
  norms: tuple[int, ...] = ()


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
  work: Builder, d: int, heads: int, own: Trained, below: Collection[int]
) -> None:
  """Adds one block.

  Args:
    work: is added to.
    d: width.
    heads: H.
    own: what of it trains.
    below: groups of all that comes before it.
  """
  linear = own.linear
  work.shared[1] += 24 * d * d + (2 * _NORM[0] + 9 + 4 * _GELU[0] + 2) * d
  work.shared[2] += 4 * d + _SOFTMAX[0] * heads
  for name, (wide_in, wide_out) in LINEAR.items():
    if name not in linear:
      continue
    i, o, g = wide_in * d, wide_out * d, linear[name]
    r = own.ranks.get(name, 0)
    if r:
      work.shared[1] += 2 * r * (i + o) + 2 * o
      work.wgrad[1, g] += 2 * r * (i + o)
    else:
      work.wgrad[1, g] += 2 * i * o + o
  for g in own.norms:
    work.wgrad[1, g] += 3 * d
  before = set(below)
  first, second = (set(own.norms[:1]), set(own.norms[1:]))

  def groups(*names):
    return {linear[name] for name in names if name in linear}

  def low(names, needed):
    """Adds what the gradient through adapters costs."""
    for name in names:
      r = own.ranks.get(name, 0)
      if r:
        i, o = (wide * d for wide in LINEAR[name])
        work.through({linear[name]} | needed, 1, 2 * r * o + o)
        work.through(needed, 1, 2 * r * i + i)

  attended = groups('q', 'k', 'v') | first | before
  halfway = groups('o') | attended
  expanded = groups('up') | second | halfway
  low(['down'], expanded)
  work.through(expanded, 1, 8 * d * d + _GELU[1] * 4 * d)
  low(['up'], second | halfway)
  work.through(second | halfway, 1, 8 * d * d)
  work.through(halfway, 1, (_NORM[1] + 1) * d)
  low(['o'], attended)
  work.through(attended, 1, 2 * d * d)
  work.through(attended, 2, 8 * d + _SOFTMAX[1] * heads)
  low(['q', 'k', 'v'], first | before)
  work.through(first | before, 1, 6 * d * d + 2 * d)
  work.through(before, 1, (_NORM[1] + 1) * d)


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
