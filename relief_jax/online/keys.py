"""Derives keys of the online world: seed, purpose, round, client id."""

import jax

from relief_jax.engine import ambient
from relief_jax.types import Array

# Purposes.
MISSING, WHICH, STREAM, PRESENCE, PACE, RADIO, LUCK = range(7)
# Rounds before the first one have keys too; a key takes no negative number.
_BEFORE = 2**20


def of(words: Array, purpose: int) -> Array:
  """Derives the key of a purpose.

  Args:
    words: [2] uint32 of the world.
    purpose: one of this module's numbers.
  """
  return jax.random.fold_in(ambient.of_words(words), purpose)


def at(key: Array, round_index: Array) -> Array:
  """Derives the key of a round, which may lie before the first one."""
  return jax.random.fold_in(key, round_index + _BEFORE)


def each(key: Array, ids: Array) -> Array:
  """Derives a key per client, [K], tied to its id.

  Args:
    key: of a purpose, or of a purpose and a round.
    ids: [K] int32.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


def uniform(key: Array, ids: Array, shape: tuple[int, ...] = ()) -> Array:
  """Draws [K, *shape] in [0, 1), tied to clients and not to cohort places."""
  return jax.vmap(lambda k: jax.random.uniform(k, shape))(each(key, ids))


def normal(key: Array, ids: Array, shape: tuple[int, ...] = ()) -> Array:
  """Draws [K, *shape] standard normal, likewise."""
  return jax.vmap(lambda k: jax.random.normal(k, shape))(each(key, ids))
