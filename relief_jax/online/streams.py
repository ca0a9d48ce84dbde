"""Keeps the windows that arrive in a small buffer for a while. **Ours.**

A device's windows come in an order of its own and begin again after the last
one. Of the arrivals so far it keeps the newest N_b: a ring buffer of row
numbers, whose content follows from the round. A drifting mix brings the classes
one after the other instead of all mixed. A label may come some rounds after its
window, which trains only then, if it is still there.

MMO-FL (https://arxiv.org/abs/2505.16138) takes 20 windows in and 20 out a round
at N_b of 500 or 800; the buffer is full when the first round begins.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax.online import keys
from relief_jax.types import Array


class Stream(NamedTuple):
  """Describes the arrivals on all clients.

  Attributes:
    rate: [N] float32, windows a round.
    phase: [N] float32 in [0, 1), of windows that rates leave over.
    drift: [] from 0, all classes mixed, to 1, class after class.
    delay: [] int32, rounds from a window to its label.
    slots: [N_b], the buffer; only its length counts.
    fresh: [A], most arrivals in a round; only its length counts.
  """

  rate: Array
  phase: Array
  drift: Array
  delay: Array
  slots: Array
  fresh: Array


class View(NamedTuple):
  """Holds the buffers and arrivals of the participants in a round.

  Attributes:
    own: [K, N_b] int32, rows of the bank in the buffers, those with labels
      first, each of them oldest first.
    labelled: [K] int32, how many have labels.
    fresh: [K, A] int32, rows that arrived in this round.
    arrived: [K] int32, how many of them are real.
  """

  own: Array
  labelled: Array
  fresh: Array
  arrived: Array


def draw(
  config: ml_collections.ConfigDict, clients: int, rng: np.random.Generator
) -> Stream | None:
  """Draws the stream of `config.online.stream`, None without a buffer.

  Args:
    config: `buffer`, `arrive`, `spread`, `drift`, `delay`.
    clients: N.
    rng: draws rates and phases.
  """
  if not config.buffer:
    return None
  factor = np.exp(config.spread * rng.standard_normal(clients))
  # More than a buffer of arrivals a round would be seen by nobody.
  rate = np.minimum(config.arrive * factor, config.buffer)
  most = max(1, math.ceil(rate.max()))
  return Stream(
    rate=jnp.asarray(rate, jnp.float32),
    phase=jnp.asarray(rng.random(clients), jnp.float32),
    drift=jnp.float32(config.drift),
    delay=jnp.int32(config.delay),
    slots=jnp.zeros(config.buffer, jnp.int8),
    fresh=jnp.zeros(most, jnp.int8),
  )


def order(key: Array, y: Array, count: Array, drift: Array) -> Array:
  """Orders a client's windows by arrival, [W] places; real ones first.

  Args:
    key: of the client; the order does not depend on the round.
    y: [W] classes of its windows.
    count: [] how many of them are real.
    drift: [] in [0, 1].
  """
  mixed_key, class_key = jax.random.split(key)
  mixed = jax.random.uniform(mixed_key, y.shape)
  turn = jax.vmap(
    lambda c: jax.random.uniform(jax.random.fold_in(class_key, c))
  )(y)
  score = (1 - drift) * mixed + drift * turn
  return jnp.argsort(jnp.where(jnp.arange(y.size) < count, score, 2.0))


def arrivals(stream: Stream, place: Array, round_index: Array) -> Array:
  """Counts the windows that had arrived by the end of a round, [K] int32."""
  passed = stream.rate[place] * round_index + stream.phase[place]
  return stream.slots.shape[0] + jnp.floor(passed).astype(jnp.int32)


def view(
  stream: Stream,
  words: Array,
  ids: Array,
  place: Array,
  round_index: Array,
  own: Array,
  samples: Array,
  y: Array,
) -> View:
  """Gathers the buffers of the participants in a round.

  Args:
    stream: of all clients.
    words: key of the world.
    ids: [K] of the participants.
    place: [K] places in the population.
    round_index: [] int32.
    own: [K, W] all their windows.
    samples: [K] how many of them are real.
    y: [windows] classes of the bank.
  """
  seen = arrivals(stream, place, round_index)
  before = arrivals(stream, place, round_index - 1)
  known = arrivals(stream, place, round_index - stream.delay)
  size, most = stream.slots.shape[0], stream.fresh.shape[0]
  client_keys = keys.each(keys.of(words, keys.STREAM), ids)

  def one(key, own, count, first, start):
    turn = own[order(key, y[own], count, stream.drift)]
    real = jnp.maximum(count, 1)
    at = (first + jnp.arange(size)) % real
    new = (start + jnp.arange(most)) % real
    return turn[at], turn[new]

  oldest = seen - size
  kept, fresh = jax.vmap(one)(client_keys, own, samples, oldest, before)
  here = samples > 0
  return View(
    own=kept,
    labelled=jnp.where(here, jnp.clip(known - oldest, 0, size), 0),
    fresh=fresh,
    arrived=jnp.where(here, seen - before, 0),
  )
