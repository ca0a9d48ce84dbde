"""Chooses a rank for every layer of a device within its budget (**ours**).

All layers start at the smallest rank. Then, again and again, one layer gets its
next rank: of those whose next rank still fits the device's time and memory the
one with the most importance for its extra FLOPs. A device needs no more than
L (|Q| - 1) such steps, so that many are taken for all devices at once.

Costs are not additive: the first layer that trains near the input opens the way
of the gradient down to it, and is charged for that. A larger budget may
therefore choose one dear layer where a smaller one chose two cheap ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.budgets.greedy import SLACK
from relief_jax.budgets.memory import Limit
from relief_jax.types import Array


class Price(NamedTuple):
  """Holds what training at some ranks takes, [K] each.

  Attributes:
    flops: per sample.
    memory: bytes; None where nobody counted it.
  """

  flops: Array
  memory: Array | None

  def fits(self, limit: Limit) -> Array:
    """Tells who has the time and the memory, [K] bool."""
    inside = self.flops <= limit.budget * (1 + SLACK)
    if self.memory is not None and limit.memory is not None:
      inside &= self.memory <= limit.memory
    return inside


def levels(rank: int, least: int) -> tuple[int, ...]:
  """Lists the ranks that a layer may have, Q.

  >>> levels(12, 0), levels(8, 4), levels(8, 8), levels(1, 0)
  ((0, 2, 4, 8, 12), (4, 8), (8,), (0, 1))

  Args:
    rank: R, of the model.
    least: the smallest; then 2, 4, 8, ... and R.
  """
  more = {2**i for i in range(1, rank.bit_length()) if 2**i < rank} | {rank}
  return (least, *sorted(r for r in more if r > least))


def solve(
  among: tuple[int, ...],
  score: Array,
  price: Callable[[Array], Price],
  limit: Limit,
  may: Array,
) -> Array:
  """Chooses every device's ranks, [K, L] int32.

  Args:
    among: Q, ascending.
    score: [L] importance, at least 0.
    price: ranks [K, L] -> their price.
    limit: of the devices; who affords not even the smallest ranks has these.
    may: [K, L] bool, layers that may have more.
  """
  ranks, last = jnp.array(among, jnp.int32), len(among) - 1
  layers = may.shape[-1]
  one = jnp.eye(layers, dtype=jnp.int32)

  def step(at, _):
    now = price(ranks[at]).flops
    tried = jnp.minimum(at[None] + one[:, None], last)
    found = jax.vmap(price)(ranks[tried])
    fits = jax.vmap(lambda v: v.fits(limit))(found).T & may & (at < last)
    extra = jnp.maximum((found.flops - now[None]).T, 1.0)
    worth = jnp.where(fits, score[None] / extra, -1.0)
    return at + jnp.where(fits.any(-1)[:, None], one[worth.argmax(-1)], 0), None

  at = jnp.zeros(may.shape, jnp.int32)
  return ranks[jax.lax.scan(step, at, length=layers * last)[0]]
