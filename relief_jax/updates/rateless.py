"""Broadcasts the model once for all, in a rateless code. **Ours.**

A link inspired by https://arxiv.org/abs/2603.21616, known to us by its
abstract: one transmission, which each receiver leaves when it has enough or
when its budget of symbols and of decoding is spent, and which protects what
matters more. That paper codes images with learned transforms; here blocks of
parameters are sent in an idealised code, and nothing of the code itself is
simulated.

A block of k symbols is decoded from

    need = max(ceil(1.05 k + sqrt(k) / 2), ceil(k / (1 - 10 / effort)))

symbols that arrived: an overhead like that of LT codes, and the belief
propagation of a receiver that makes `effort` iterations, which takes about
10 / (1 - k / received) of them. Of n symbols that must arrive at an erasure
rate e it listens to n / (1 - e) on average, with variance n e / (1 - e)^2; a
normal deviate, drawn by device, block and round, and at least n.

Blocks follow one another, the most divergent first, and each is sent for as
long as somebody needs it, or until `repair` is spent. A device listens to the
blocks that it runs, in that order, until its budget is used up. What it did not
decode is *stale*: it trains on the last version that it decoded, at first the
initial model, and its update is the difference to what it trained on. The rate
on the air is that of the slowest device that listens. `unicast` is the same
code sent to one device after another, each at its own rate. A device pays with
time and energy for the symbols that it listens to; that it waits for blocks
which it does not run, or for its turn, is not counted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax import tree
from relief_jax.clients.device import Received, Row
from relief_jax.settings import Broadcast, HParams
from relief_jax.types import Array, Fleet, PyTree

# Purposes of keys: of a round's messages beside UP, DOWN and the faults' noise,
# and of the draw beside `faults._DRAW`.
_LUCK, _DRAW = 5, 62
# Iterations of a decoder are _STEPS / (1 - load).
_STEPS = 10.0


class Sent(NamedTuple):
  """Holds what a broadcast brought, and what it took.

  Attributes:
    decoded: [K, G] bool.
    stale: [K, G] bool, listened for and not decoded.
    size: [K] float32 bytes that a device listened to, lost ones among them.
    airtime: [] simulated seconds that the server sent.
    rate: [K] float32 bit/s at which devices received.
  """

  decoded: Array
  stale: Array
  size: Array
  airtime: Array
  rate: Array


def draw(config: ml_collections.ConfigDict, fleet: Fleet) -> dict[str, Array]:
  """Draws budgets and erasure rates, traced values; {} where the link is off.

  Args:
    config: of the run; its seed and `broadcast`.
    fleet: [N] clients.

  Returns:
    `listen`, [N] float32 in symbols of the whole model, infinite without a
    budget, and `erasure`, [N] float32.
  """
  given = config.broadcast
  if given.kind == 'off':
    return {}
  rng = np.random.default_rng([config.seed, _DRAW])
  shape, mean, spread = fleet.samples.shape, given.erasure, given.erasure_spread
  budget = given.budget or np.inf
  listen = budget * np.exp(given.budget_spread * rng.standard_normal(shape))
  erasure = np.full(shape, mean)
  if mean and spread:
    strength = (1 - spread) / spread
    drawn = rng.beta(mean * strength, (1 - mean) * strength, shape)
    erasure = np.minimum(drawn, 0.99)
  return {
    'listen': jnp.asarray(listen, jnp.float32),
    'erasure': jnp.asarray(erasure, jnp.float32),
  }


def needed(air: Broadcast, symbols: Array) -> Array:
  """Counts the symbols that must arrive of each block, [G].

  Args:
    air: of the setting.
    symbols: [G] k.
  """
  found = jnp.ceil(1.05 * symbols + 0.5 * jnp.sqrt(symbols))
  if air.effort:
    least = jnp.ceil(symbols / (1 - _STEPS / air.effort))
    found = jnp.maximum(found, least)
  return found


def most(air: Broadcast, need: Array, place: Array) -> Array:
  """Counts the symbols that are sent of each block at most, [G].

  Args:
    air: of the setting.
    need: [G] symbols.
    place: [G] int32, from 0 for the block that is sent first.
  """
  if not air.repair:
    return jnp.full(need.shape, jnp.inf)
  share = jnp.full(need.shape, air.repair)
  if air.protect == 'symbols':
    share *= 2 * (1 - place / max(need.size - 1, 1))
  return jnp.ceil(need * (1 + share))


def places(air: Broadcast, score: Array) -> Array:
  """Finds the place of each block in the transmission, [G] int32.

  Args:
    air: of the setting.
    score: [G], the largest is sent first; of equals the first.
  """
  if air.protect == 'none':
    return jnp.arange(score.size)
  return jnp.argsort(jnp.argsort(-score, stable=True))


def listened(
  long: Array, most: Array, place: Array, asked: Array, budget: Array
) -> tuple[Array, Array]:
  """Finds what a device decodes and how long it listens to each block.

  Args:
    long: [K, G] symbols that it listens to until a block is decoded.
    most: [G] symbols that are sent of it.
    place: [G] of it in the transmission.
    asked: [K, G] bool, blocks that it wants.
    budget: [K] symbols.

  Returns:
    Decoded [K, G] bool, and symbols [K, G].
  """
  stay = jnp.where(asked, jnp.minimum(long, most[None]), 0.0)
  earlier = place[None] < place[:, None]  # [G, G]: the other is sent before
  spent = stay @ earlier.T.astype(stay.dtype)
  symbols = jnp.clip(budget[:, None] - spent, 0.0, stay)
  enough = (long <= most[None]) & (spent + long <= budget[:, None])
  return asked & enough, symbols


def send(
  air: Broadcast,
  key: Array,
  hparams: HParams,
  fleet: Fleet,
  place: Array,
  score: Array,
  wire: Array,
  asked: Array,
) -> Sent:
  """Sends the model to the participants of a round.

  Args:
    air: of the setting.
    key: of the round's messages.
    hparams: with `listen` and `erasure` of all clients.
    fleet: [K] participants.
    place: [K] of them in the population.
    score: [G], by which blocks are ordered.
    wire: [G] float32 bytes of each block's message.
    asked: [K, G] bool, blocks that a device is to have.
  """
  symbols = jnp.ceil(wire / air.symbol)
  need = needed(air, symbols)
  rates = hparams['erasure'][place][:, None]
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.fold_in(key, _LUCK), fleet.id
  )
  luck = jax.vmap(lambda k: jax.random.normal(k, wire.shape))(keys)
  whole = jnp.broadcast_to(need[None], luck.shape)
  deviation = jnp.sqrt(whole * rates) / (1 - rates)
  long = jnp.ceil(jnp.maximum(whole / (1 - rates) + luck * deviation, whole))
  at = places(air, score)
  budget = hparams['listen'][place] * symbols.sum()
  decoded, heard = listened(long, most(air, need, at), at, asked, budget)
  size = air.symbol * heard.sum(-1)
  listens = size > 0
  slowest = jnp.where(listens, fleet.downlink, jnp.inf).min()
  if air.kind == 'rateless':
    rate = jnp.where(listens, slowest, fleet.downlink)
    seconds = 8 * air.symbol * heard.max(0).sum() / slowest
  else:
    rate = fleet.downlink
    seconds = (8 * size / jnp.where(listens, rate, 1.0)).sum()
  return Sent(decoded, asked & ~decoded, size, seconds, rate)


def told(sent: Sent, asked: Array) -> dict[str, Array]:
  """Gives what a round records of its broadcast (`RoundInfo.extra`).

  Args:
    sent: in the round.
    asked: [K, G] bool, as in `send`.
  """
  return {
    'airtime': sent.airtime,
    'stale': sent.stale.sum(0),
    'asked': asked.sum(0),
    'downlink': sent.rate,
  }


def started(task: Any, received: Received, row: Row) -> Received:
  """Gives what a device trains on: of stale blocks, what it had.

  Blocks that were not sent to it are as on the server, as with other links: it
  does not run them, or the server runs them in its place.

  Args:
    task: the model.
    received: of the server.
    row: of the device.
  """
  stale = tree.broadcast_groups(task.groups, row.stale)
  return received._replace(
    params=tree.select(stale, row.store.heard, received.params)
  )


def held(task: Any, decoded: Array, arrived: PyTree, stale: PyTree) -> PyTree:
  """Gives the last that every participant has decoded, [K, *P].

  Args:
    task: the model.
    decoded: [K, G] bool.
    arrived: P, what was sent.
    stale: [K, *P], what they had.
  """

  def one(decoded, stale):
    return tree.select(
      tree.broadcast_groups(task.groups, decoded), arrived, stale
    )

  return jax.vmap(one)(decoded, stale)
