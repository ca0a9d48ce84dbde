"""Draws the participants of a round."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from relief_jax.types import Array, Fleet, Population


def draw(key: Array, fleet: Fleet, size: int) -> Array:
  """Draws the clients of a round, [size] int32 places in increasing order.

  Everybody when `size` is the whole fleet, else a uniform draw without
  replacement, whose cost does not grow with the fleet.
  """
  num = fleet.id.shape[0]
  if size == num:
    return jnp.arange(num, dtype=jnp.int32)
  if 4 * size > num:
    chosen = jax.random.choice(key, num, (size,), replace=False)
    return jnp.sort(chosen).astype(jnp.int32)
  return jnp.sort(_distinct(key, num, size))


def _distinct(key: Array, num: int, size: int) -> Array:
  """Draws `size` distinct numbers below `num`, [size] int32; `size <= num / 4`.

  The first `size` distinct ones of a long draw with replacement: uniform, since
  no number is treated unlike another. A quarter more than needed is drawn; in
  the rare case that this is too little, all is drawn anew.
  """
  length = size + size // 4 + 16

  def attempt(key):
    value = jax.random.randint(key, (length,), 0, num, jnp.int32)
    order = jnp.argsort(value, stable=True)
    ordered = value[order]
    again = jnp.append(False, ordered[1:] == ordered[:-1])
    first = jnp.zeros(length, bool).at[order].set(~again)
    return value, first

  def short(carry):
    return carry[2].sum() < size

  def redraw(carry):
    key, _, _ = carry
    key, own = jax.random.split(key)
    return key, *attempt(own)

  value, first = jax.lax.while_loop(short, redraw, (key, *attempt(key)))[1:]
  return value[jnp.nonzero(first, size=size)[0]]


def shared(population: Population) -> Population:
  """Gives the data that every client sees: the bank and the frozen base."""
  nobody: Any = None
  return dataclasses.replace(
    population, fleet=nobody, rows=nobody, online=nobody
  )
