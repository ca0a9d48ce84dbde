"""Scores by which RELIEF's rules choose the blocks that a device trains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.clients import batches
from relief_jax.rounds.method import Round
from relief_jax.types import Array


class Known(NamedTuple):
  """Holds the facts that scores may use.

  Attributes:
    divergence: [G] D_g.
    magnitude: [G] EMA of |mean|^2 / |theta_g|.
    last: [K, G] int32, round in which a device last trained a block, -1 never.
  """

  divergence: Array
  magnitude: Array
  last: Array


def divergence(known: Known, round: Round) -> Array:
  """Scores by divergence."""
  del round
  return jnp.broadcast_to(known.divergence, known.last.shape)


def aged(known: Known, round: Round) -> Array:
  """Scores by divergence times the rounds waited."""
  waited = (round.round_index - known.last).astype(jnp.float32)
  return known.divergence[None] * waited


def magnitude(known: Known, round: Round) -> Array:
  """Scores by the size of the mean update."""
  del round
  return jnp.broadcast_to(known.magnitude, known.last.shape)


def random(known: Known, round: Round) -> Array:
  """Scores by a draw of the round and the device."""
  num = known.last.shape[1]
  keys = batches.client_keys(round.key, round.fleet)
  return jax.vmap(lambda k: jax.random.uniform(k, (num,)))(keys)


def _ordered(turn: Array, num: int) -> Array:
  order = jnp.mod(jnp.arange(num)[None] - turn[:, None], num)
  return -order.astype(jnp.float32)


def static(known: Known, round: Round) -> Array:
  """Scores by the order of the blocks."""
  del round
  turn = jnp.zeros(known.last.shape[:1], jnp.int32)
  return _ordered(turn, known.last.shape[1])


def round_robin(known: Known, round: Round) -> Array:
  """Scores by the order of the blocks, that begins elsewhere every round."""
  return _ordered(round.round_index + round.fleet.id, known.last.shape[1])


# Rule -> [K, G], higher is trained first.
RULES: dict[str, Callable[[Known, Round], Array]] = {
  'greedy': divergence,
  'greedy_ratio': divergence,
  'knapsack': divergence,
  'aged': aged,
  'random': random,
  'round_robin': round_robin,
  'magnitude': magnitude,
  'static': static,
}
